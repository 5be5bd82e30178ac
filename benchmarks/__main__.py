"""``python -m benchmarks``: lists the benchmarks."""

from __future__ import annotations

import ast
from pathlib import Path


def main() -> None:
    """Print one line per benchmark."""
    print("Each prints figures against a baseline of the same run. Start one with `python -m benchmarks.NAME`:\n")
    for path in sorted(Path(__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body) and path.stem[0] != "_":
            print(f"  {path.stem:16} {(ast.get_docstring(tree) or '').splitlines()[0]}")


if __name__ == "__main__":
    main()

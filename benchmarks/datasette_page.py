"""``docs/audit/datasette.yml``: what Datasette shows beside the views, taken from the document and the questions.

``python -m benchmarks.audit --write-answers`` renews it, and a test compares it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.audit_questions import FOLDER, Question, questions

PATH = FOLDER / "datasette.yml"
_DOCUMENT = FOLDER.parent / "audit.md"
_HEAD = """\
# What Datasette shows beside the views, and the questions. Made of docs/audit.md and docs/audit/*.sql, by
# `python -m benchmarks.audit --write-answers`.
"""
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")


def made() -> str:
    """Return the file as document and questions would have it."""
    text = _DOCUMENT.read_text(encoding="utf-8")
    databases: dict[str, Any] = {
        "ledger": {"tables": {}, "queries": {}},
        "audit": {"tables": {}},
        "_memory": {"queries": {}},
    }
    for name, section in re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL):
        database = "audit" if name.startswith("audit_") else "ledger"
        databases[database]["tables"][name] = _table(section)
    for question in questions():
        database = "_memory" if question.needs_index else "ledger"
        databases[database]["queries"][question.path.stem] = _query(question)
    title = {"title": "Audit of OpenPersistentMemory", "databases": databases}
    return _HEAD + "\n".join(_yaml(title, 0)) + "\n"


def _table(section: str) -> dict[str, Any]:
    about = _plain(section.partition("\n| column")[0])
    columns = {
        name: _plain(meaning) for name, meaning in re.findall(r"^\| `(\w+)` \| (.*?) \|$", section, re.MULTILINE)
    }
    return {"description": about, "columns": columns}


def _query(question: Question) -> dict[str, Any]:
    comments = question.path.read_text(encoding="utf-8").partition("\n--   .param")[0].partition("-- Answer,")[0]
    _, *about = (line.removeprefix("--").strip() for line in comments.splitlines())
    sql = question.sql.strip().removesuffix(";")
    names = list(question.parameters)
    described = {"title": question.title, "description": _plain(" ".join(about)), "sql": sql}
    return described | ({"params": names} if names else {})


def _plain(markdown: str) -> str:
    return " ".join(_LINK.sub(r"\1", markdown).replace("`", "").split())


def _yaml(values: Mapping[str, Any], depth: int) -> Iterator[str]:
    """Yield the lines of a mapping. A text of one line is written as JSON has it, which YAML reads the same."""
    margin = "  " * depth
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield f"{margin}{name}:"
            yield from _yaml(value, depth + 1)
        elif isinstance(value, str) and "\n" in value:
            yield f"{margin}{name}: |-"
            yield from (f"{margin}  {line}".rstrip() for line in value.split("\n"))
        else:
            yield f"{margin}{name}: {json.dumps(value, ensure_ascii=False)}"

"""A migration that is killed in front of every statement, each time on a copy of the same ledger.

    python -m tests.migrating LEDGER SCRATCH

The copies lie below ``SCRATCH``, named by how many statements were let through; the last one, which nothing stopped, is
``whole.sqlite3``. Prints how many were killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from migrations.runner import migrate


def killed_after(statements: int, path: Path) -> bool:
    """Migrate in a process of its own that dies behind ``statements`` statements; tell whether it died."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status)
    left = statements

    def count(*_: Any) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    event.listen(Engine, "before_cursor_execute", count)
    # What was begun is in front of the commit, too.
    event.listen(Engine, "commit", count)
    migrate(path)
    os._exit(0)


def main() -> None:
    original, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    for statements in range(1000):
        path = scratch / f"{statements}.sqlite3"
        shutil.copy(original, path)
        if not killed_after(statements, path):
            path.rename(scratch / "whole.sqlite3")
            sys.stdout.write(f"{statements}\n")
            return


if __name__ == "__main__":
    main()

"""Kill a migration after some of its statements, at several points, each time on a fresh copy.

    python -m tests.migrating LEDGER SCRATCH

The copies are in ``SCRATCH``, named by the number of statements that ran; ``whole.sqlite3`` is the one that was not
killed. Prints the number of statements of a whole migration, its commit counted as one.
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

_POINTS = 8


def migrate_up_to(statements: int, path: Path) -> int:
    """Migrate in a child process that is killed after ``statements`` statements; return how many ran."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        with os.fdopen(reading) as seen:
            ran = len(seen.read())
        os.waitpid(child, 0)
        return ran

    def count(*_: Any) -> None:
        nonlocal statements
        if statements == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        statements -= 1
        os.write(writing, b".")

    event.listen(Engine, "before_cursor_execute", count)
    event.listen(Engine, "commit", count)
    migrate(path)
    os._exit(0)


def main() -> None:
    original, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    shutil.copy(original, scratch / "whole.sqlite3")
    total = migrate_up_to(-1, scratch / "whole.sqlite3")
    for statements in {0, 1, total - 2, total - 1} | set(range(2, total, -(-total // _POINTS))):
        path = scratch / f"{statements}.sqlite3"
        shutil.copy(original, path)
        ran = migrate_up_to(statements, path)
        assert ran == statements, f"{ran} statements ran where {statements} were let through"
    sys.stdout.write(f"{total}\n")


if __name__ == "__main__":
    main()

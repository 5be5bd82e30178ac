"""Which backups an operator has made: an erasure names them, since they still hold what was erased."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def backups_beside(storage_dir: Path) -> Sequence[Path]:
    """Return the files in ``STORAGE_DIR`` that are copies of the ledger, by what they are called."""
    own = {"ledger.sqlite3", "vectors.sqlite3"}
    databases = storage_dir.rglob("*.sqlite3")
    users = storage_dir / "users"
    return sorted(path for path in databases if path.name not in own and not path.is_relative_to(users))

"""The list of all copies of the ledger, so that an erasure can name those that still hold what was erased.

The list lies beside the ledger and holds no personal data: where a copy went, when, and its head. Nothing removes
entries, since a disk that is not connected now may still carry its copy.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from domain.errors import OpmError
from projections.durable import write_durably

_FILE = "backups.json"


class BackupsUnreadable(OpmError):
    """The list of backups is damaged."""


class Backup(BaseModel):
    """A copy of the ledger: where it is, when it was made (UTC), and the position and hash of its last event.

    ``path`` is absolute: a file, or the folder into which a restore moved the former storage. Position 0 also stands
    for a ledger too damaged to tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    made_at: datetime
    position: int
    hash: str


_BACKUPS = TypeAdapter(list[Backup])


def known_backups(storage_dir: Path) -> list[Backup]:
    """Return every recorded copy, oldest first, whether or not its file still exists.

    Raises :class:`BackupsUnreadable` when the list is damaged.
    """
    path = storage_dir / _FILE
    try:
        return _BACKUPS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except (ValidationError, OSError) as error:
        raise BackupsUnreadable(
            f"{_FILE} cannot be read ({type(error).__name__}): repair it, or remove it and note the backups yourself"
        ) from None


def remember_backup(storage_dir: Path, backup: Backup) -> None:
    """Add a copy to the list, replacing an earlier one at the same path; it is on the disk when this returns."""
    with _locked(storage_dir):
        others = [known for known in known_backups(storage_dir) if known.path != backup.path]
        write_durably(storage_dir / _FILE, _BACKUPS.dump_json([*others, backup], indent=2) + b"\n")


@contextmanager
def _locked(storage_dir: Path) -> Iterator[None]:
    with (storage_dir / "backups.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

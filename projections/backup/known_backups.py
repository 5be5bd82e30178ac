"""The list of all copies of the ledger, so that an erasure can name those that still hold what was erased.

The list lies beside the ledger and holds no personal data: where a copy went, when, and its head. Nothing removes
entries of whole copies, since a disk that is not connected now may still carry its copy.

A copy is listed before its first byte is written, under the partial name that it has until it is whole. So a backup
that is killed leaves no copy that nobody knows of: the next backup and every erasure find and remove it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from domain.errors import OpmError
from projections.durable import fsync_path, write_durably

_FILE = "backups.json"
_LOCK = "backup.lock"
"""Held as long as a partial copy is being written."""
_PARTIAL = ".partial"


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


def partial_of(target: Path) -> Path:
    """Return the name under which a copy is written until it is whole."""
    return target.with_name(f".{target.name}{_PARTIAL}")


@contextmanager
def copying(storage_dir: Path, partial: Backup) -> Iterator[None]:
    """List a partial copy and let the block write it; when it ends, the copy is renamed or gone, and unlisted.

    One backup runs at a time. What an earlier one left when it was killed is removed.
    """
    with (storage_dir / _LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _remove_partials(storage_dir)
        remember_backup(storage_dir, partial)
        try:
            yield
        finally:
            _remove_partials(storage_dir)


def remove_partials(storage_dir: Path) -> None:
    """Remove what killed backups left; one that is being written now stays in the list."""
    if not any(_is_partial(known) for known in known_backups(storage_dir)):
        return
    with (storage_dir / _LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        _remove_partials(storage_dir)


def _remove_partials(storage_dir: Path) -> None:
    """Delete every partial copy that can be reached. Of one that cannot, on a disk taken away, the entry stays."""
    gone: set[str] = set()
    for known in known_backups(storage_dir):
        path = Path(known.path)
        if _is_partial(known) and path.parent.is_dir():
            for part in ("", "-journal", "-wal", "-shm"):
                path.with_name(path.name + part).unlink(missing_ok=True)
            fsync_path(path.parent)
            gone.add(known.path)
    if gone:
        with _locked(storage_dir):
            others = [known for known in known_backups(storage_dir) if known.path not in gone]
            write_durably(storage_dir / _FILE, _BACKUPS.dump_json(others, indent=2) + b"\n")


def _is_partial(known: Backup) -> bool:
    return known.path.endswith(_PARTIAL) and Path(known.path).name.startswith(".")


@contextmanager
def _locked(storage_dir: Path) -> Iterator[None]:
    with (storage_dir / "backups.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

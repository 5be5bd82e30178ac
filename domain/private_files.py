"""Who may read the files of ``STORAGE_DIR``: the user whom the service runs as, and nobody else.

New files and folders are private whatever the umask says, because the process's own umask is set before the first one
is made; that also covers those that SQLite, FAISS and others make. Files of earlier versions are tightened at the next
start. A command that is run as root gives what it made to the owner of the folder, so that the service can go on.

Only what the product makes is touched, by its name: a ``STORAGE_DIR`` may hold other things too.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger(__name__)

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
_OTHERS = 0o077
_OWN = (
    "ledger.*",
    "vectors.*",
    "users",
    "system",
    "erasing",
    "audit.sqlite3*",
    "backups.json*",
    "embedding-endpoints.json*",
    "mirror.boot*",
    "before-restore-*",
    "*.lock",
)
"""What the product makes in ``STORAGE_DIR``."""


def private_by_default() -> None:
    """Let this process make files and folders that only its user can read."""
    os.umask(_OTHERS)


def tighten(storage_dir: Path) -> None:
    """Take the files in ``STORAGE_DIR`` away from all other users; what is private already costs nothing.

    A folder is changed after what is in it, and looked into only if it was open. So an interrupted call is done again.
    """
    failed = 0
    entries = _own_entries(storage_dir)
    for path in entries:
        failed += _tightened(path)
    # A folder with other things in it is somebody else's to close.
    if {path.name for path in entries} == set(_names(storage_dir)):
        failed += _closed(storage_dir)
    if failed:
        log.warning(
            "%d files or folders in STORAGE_DIR can be read by other users and belong to another user than this one: "
            "run `chmod -R go= STORAGE_DIR` as their owner",
            failed,
        )


@contextmanager
def given_to_owner(storage_dir: Path | None) -> Iterator[None]:
    """Give what the block makes in ``STORAGE_DIR`` to the owner of that folder, however it ends."""
    if storage_dir is None:
        yield
        return
    give_to_owner(storage_dir)
    try:
        yield
    finally:
        give_to_owner(storage_dir)


def give_to_owner(storage_dir: Path) -> None:
    """Run as root, give the files of root in ``STORAGE_DIR`` to the owner of that folder."""
    if os.geteuid() != 0 or not storage_dir.is_dir():
        return
    owner = storage_dir.stat()
    if owner.st_uid == 0:
        return

    # Through descriptors of folders, so that nobody can lead root elsewhere with a link. Files are not opened: closing
    # one would release the locks that SQLite holds on it in this process.
    for entry in _own_entries(storage_dir):
        if not entry.is_dir() or entry.is_symlink():
            _give(entry.name, storage_dir, None, owner)
            continue
        for _, folders, files, descriptor in os.fwalk(entry, follow_symlinks=False):
            for name in (*folders, *files):
                _give(name, None, descriptor, owner)
        _give(entry.name, storage_dir, None, owner)


def _give(name: str, folder: Path | None, descriptor: int | None, owner: os.stat_result) -> None:
    path = folder / name if folder is not None else name
    try:
        found = os.stat(path, dir_fd=descriptor, follow_symlinks=False)
        if found.st_uid == 0 and (found.st_nlink == 1 or stat.S_ISDIR(found.st_mode)):
            os.chown(path, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)
    except FileNotFoundError:
        pass  # a service removed it meanwhile


def _tightened(path: Path) -> int:
    """Close a file, or a folder and all in it; return how many could not be."""
    if path.is_symlink():
        return 0
    if not path.is_dir():
        return _closed(path)
    if not path.stat().st_mode & _OTHERS:
        return 0
    failed = 0
    for name in _names(path):
        failed += _tightened(path / name)
    return failed + _closed(path)


def _closed(path: Path) -> int:
    """Close one file or folder; return 1 where that is not allowed."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & _OTHERS:
            path.chmod(mode & ~_OTHERS)
    except FileNotFoundError:
        return 0  # a service removed it meanwhile
    except OSError:
        return 1
    return 0


def _own_entries(storage_dir: Path) -> list[Path]:
    found = {path for pattern in _OWN for path in storage_dir.glob(pattern)}
    return sorted(found)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError:
        return []

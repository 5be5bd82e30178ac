"""Kills a restore at every point at which it changes the disk, each time on its own copy of a storage.

    python -m tests.projections.restoring STORAGE BACKUP SCRATCH

``BACKUP`` is a file, or ``mirror``. Each run restores in a copy of ``STORAGE`` below ``SCRATCH``, named by the number
of changes it could make; the last one, which nothing stopped, is named ``whole``. Prints how many were killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

from domain.settings import StorageSettings
from projections.backup.restore import restore_backup, restore_from_mirror

_CHANGES = frozenset({"os.rename", "os.link", "os.remove", "os.mkdir"})


def restore(storage: Path, backup: str) -> None:
    settings = StorageSettings(storage_dir=storage)
    if backup == "mirror":
        restore_from_mirror(settings)
    else:
        restore_backup(settings, Path(backup))


def killed_after(changes: int, storage: Path, backup: str) -> bool:
    """Restore in a process that dies before change number ``changes`` + 1; return whether it died."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status)
    left = changes
    inside = str(storage)

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in _CHANGES and inside in str(arguments[0]):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(count)
    restore(storage, backup)
    os._exit(0)


def main() -> None:
    original, backup, scratch = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    for changes in range(1000):
        storage = scratch / str(changes)
        shutil.copytree(original, storage)
        if not killed_after(changes, storage, backup):
            storage.rename(scratch / "whole")
            sys.stdout.write(f"{changes}\n")
            return


if __name__ == "__main__":
    main()

"""Durable writes: whatever happens, a file is either the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def fsync_path(path: Path) -> None:
    """Wait until the content of a file, or the list of files of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_durably(temporary: Path, target: Path) -> None:
    """Move a complete temporary file over ``target`` atomically; it is on the disk when this returns."""
    fsync_path(temporary)
    temporary.replace(target)
    fsync_path(target.parent)


def write_durably(target: Path, content: bytes) -> None:
    """Write a whole file atomically; it is on the disk when this returns."""
    temporary = target.with_name(f"{target.name}.tmp")
    temporary.write_bytes(content)
    replace_durably(temporary, target)


def boot_id() -> str | None:
    """Return what identifies this start of the machine, None where the system does not say (it is Linux that does)."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return None

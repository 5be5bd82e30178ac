"""The lock that keeps an erasure apart from whoever writes about people in ``STORAGE_DIR`` on demand."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def erasing_lock(storage_dir: Path) -> Iterator[None]:
    """Let one holder run at a time, in all processes."""
    with (storage_dir / "erasing.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

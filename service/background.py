"""The background work of a ``STORAGE_DIR`` is done by one service, however many run on it.

Every service can answer: its searches follow the ledger by themselves. Summaries, the mirror and the embedding of what
was recorded are wanted once, so the first service to take the lock does them, and the next one takes over when that
ends, however it ends: the kernel lets go of the lock.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from projections.follower import Follower

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0


async def follow_alone(storage_dir: Path, followers: Mapping[str, Follower]) -> None:
    """Run ``followers`` until cancelled, from the moment on at which no other service does."""
    with (storage_dir / "background.lock").open("ab") as file:
        if not _taken(file):
            log.warning(
                "another service runs on this STORAGE_DIR and does its background work; this one answers, and takes "
                "over when that one ends"
            )
            while not _taken(file):  # noqa: ASYNC110 - a file lock gives no sign when it is let go
                await asyncio.sleep(_LOOK_AGAIN_S)
            log.warning("the other service on this STORAGE_DIR has ended: its background work is done here now")
        async with asyncio.TaskGroup() as group:
            for name, follower in followers.items():
                group.create_task(follower.run(), name=name)


def _taken(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

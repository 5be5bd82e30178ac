"""One process does the background work of a ``STORAGE_DIR``, however many services run on it.

Every service can answer, because its searches follow the ledger by themselves. Summaries, the mirror and the embedding
of recorded texts must happen only once, so the service that holds a lock does them. When it ends, even by a crash, the
kernel releases the lock and another service takes over.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from projections.follower import Follower, safe_message
from projections.threads import background_idle

log = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0


async def follow_alone(storage_dir: Path, followers: Mapping[str, Follower]) -> None:
    """Wait until no other service runs the followers of this storage, then run ``followers`` until cancelled.

    Nothing but that ends it: what fails here is tried again, and shows as the followers' trouble meanwhile.
    """
    while True:
        try:
            await _follow_once(storage_dir, followers)
        except Exception as error:  # noqa: BLE001 - the outermost loop of the background: logged and shown
            trouble = safe_message(error)
            log.warning("the background work cannot go on: %s; next try in %g s", trouble, _LOOK_AGAIN_S)
            for follower in followers.values():
                follower.raised = trouble
            await asyncio.sleep(_LOOK_AGAIN_S)


async def _follow_once(storage_dir: Path, followers: Mapping[str, Follower]) -> None:
    with lock_file(storage_dir) as file:
        if not _taken(file):
            log.warning(
                "another service does the background work of this STORAGE_DIR; this one answers requests, and takes "
                "over when that one ends"
            )
            while not _taken(file):  # noqa: ASYNC110 - a file lock cannot be awaited
                await asyncio.sleep(_LOOK_AGAIN_S)
            log.warning("the other service on this STORAGE_DIR has ended: this one does the background work now")
        try:
            async with asyncio.TaskGroup() as group:
                for name, follower in followers.items():
                    group.create_task(follower.run(), name=name)
        finally:
            # A cancelled follower leaves its last piece of work behind in the thread: the lock is held until that ends.
            await background_idle()


def lock_file(storage_dir: Path) -> IO[bytes]:
    """Open the file whose lock the process with the background work holds."""
    return (storage_dir / "background.lock").open("ab")


def _taken(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

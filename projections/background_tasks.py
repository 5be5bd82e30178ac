"""Background work of one event loop: at most one task per key, failures logged and counted.

Work that a request starts but does not wait for goes here: bringing an index up to date, checking a file, fetching an
exact token count. Such work is asked for again and again, so a key that is already running is not started twice, and
whatever fails is tried again the next time somebody asks.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from contextlib import nullcontext
from typing import Any

from projections.follower import safe_message

log = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]


class BackgroundTasks:
    """A keyed set of tasks. To be used from one event loop.

    At most ``tasks_max`` tasks are held at a time, and at most ``concurrency`` of them run while the others wait for
    their turn; None sets no bound. ``failures`` counts the tasks that failed, ``failing`` says whether the last one to
    end did.
    """

    def __init__(self, *, tasks_max: int | None = None, concurrency: int | None = None) -> None:
        self.failures = 0
        self.failing = False
        self._tasks: dict[Hashable, asyncio.Task[None]] = {}
        self._tasks_max = tasks_max
        self._places = asyncio.Semaphore(concurrency) if concurrency is not None else None
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tasks

    def start(self, key: Hashable, what: str, work: Work) -> bool:
        """Start ``work`` under ``key``; ``what`` names it in the log should it fail.

        Returns False, and starts nothing, while work with that key is held, while the set is full, and once it is
        closed.
        """
        full = self._tasks_max is not None and len(self._tasks) >= self._tasks_max
        if self._closed or full or key in self._tasks:
            return False
        task = asyncio.get_running_loop().create_task(self._logged(what, work))
        self._tasks[key] = task
        task.add_done_callback(lambda _task: self._tasks.pop(key))
        return True

    async def wait_for_one(self, timeout_s: float | None = None) -> None:
        """Return when the next task ends, or after ``timeout_s``; at once where there is none."""
        if self._tasks:
            tasks = list(self._tasks.values())
            await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def finish(self) -> None:
        """Start nothing any more, and wait for what has been started."""
        self._closed = True
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """Start nothing any more, cancel what has been started, and wait until it has ended."""
        for task in self._tasks.values():
            task.cancel()
        await self.finish()

    async def _logged(self, what: str, work: Work) -> None:
        try:
            async with self._places or nullcontext():
                await work()
        except Exception as error:  # noqa: BLE001 - the outermost frame of a background task: logged and counted
            self.failures += 1
            self.failing = True
            log.warning("%s failed: %s", what, safe_message(error))
        else:
            self.failing = False

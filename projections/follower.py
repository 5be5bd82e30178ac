"""Feeds a projection from its checkpoint to the head of the ledger, then waits for more.

A follower pulls: it asks the projection to advance until there is nothing left, then sleeps until the ledger reports a
commit. The projection alone knows its checkpoint, so a needless wake-up costs one look and does no harm. Before each
round a follower lets commits gather, so that while they keep coming it takes many of them at once. Commits of other
processes (a rebuild, the command line) are noticed by looking at the head of the ledger every ``poll_s`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from domain.errors import InvalidInput, OpmError
from domain.ledger import Ledger
from projections.threads import in_background

log = logging.getLogger(__name__)

_RETRY_FIRST_S = 0.5
_RETRY_MAX_S = 30.0
_STEP_S_MAX = 300.0
"""A step that takes longer is stuck: on a lock, or a disk that does not answer."""
_SETTLE_S = 0.05
"""So long a follower lets commits gather before it takes them in, in one round."""


class Projection(Protocol):
    """A view of the ledger that knows how far it has read."""

    @property
    def name(self) -> str:
        """What log lines call it."""
        ...

    async def advance(self) -> bool:
        """Take in one bounded batch of events behind its checkpoint; True when there may be more at once.

        May raise: it is called again later, from wherever the checkpoint then stands.
        """
        ...


class Follower:
    """Keeps one projection at the head of the ledger while :meth:`run` runs.

    ``failures`` counts what ``advance`` raised since the start, and ``raised`` is what the last call raised.
    """

    def __init__(self, ledger: Ledger, projection: Projection, *, poll_s: float = 1.0) -> None:
        self.failures = 0
        self.raised: str | None = None
        self._step_since_s: float | None = None
        self._ledger = ledger
        self._projection = projection
        self._poll_s = poll_s
        self._wake = asyncio.Event()
        self._asked = asyncio.Event()
        self._head_seen = -1
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def failing(self) -> bool:
        return self.trouble is not None

    @property
    def trouble(self) -> str | None:
        """What keeps the projection from following: what its last step raised, or that a step does not end."""
        if self._step_since_s is not None and (took_s := time.monotonic() - self._step_since_s) > _STEP_S_MAX:
            return f"a step has been going on for {took_s:.0f} s"
        return self.raised

    async def run(self) -> None:
        """Follow until cancelled. One call at a time, on the event loop that awaits it."""
        loop = asyncio.get_running_loop()

        def committed() -> None:
            # Who is awake already clears the flag before they read the ledger, and so reads this commit too.
            if not self._wake.is_set():
                # The writer's thread may call while this loop closes; nobody is left to wake then.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._wake.set)

        unsubscribe = self._ledger.subscribe(committed)
        waiting: list[asyncio.Future[None]] = []
        try:
            while True:
                self._wake.clear()
                self._asked.clear()
                waiting, self._waiting = self._waiting, []
                while await self._retried(self._step):
                    pass
                for future in waiting:
                    if not future.done():
                        future.set_result(None)
                while not await self._retried(self._woken):
                    pass
        finally:
            unsubscribe()
            for future in waiting + self._waiting:
                future.cancel()
            self._waiting = []

    async def caught_up(self) -> None:
        """Return once the projection holds everything that was committed before this call.

        :meth:`run` has to be running, or to be started later; when it ends, this is cancelled.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._asked.set()
        self._wake.set()
        await future

    async def _step(self) -> bool:
        self._step_since_s = time.monotonic()
        try:
            return await self._projection.advance()
        finally:
            self._step_since_s = None

    async def _retried(self, step: Callable[[], Awaitable[bool]]) -> bool:
        """Return what ``step`` returns, trying again after failures, ever more rarely."""
        retry_s = _RETRY_FIRST_S
        while True:
            try:
                answer = await step()
            except Exception as error:  # noqa: BLE001 - the outermost loop of a background task: logged and counted
                self.failures += 1
                self.raised = safe_message(error)
                log.warning("projection %s: %s; next try in %.1f s", self._projection.name, self.raised, retry_s)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _RETRY_MAX_S)
            else:
                self.raised = None
                return answer

    async def _woken(self) -> bool:
        """Wait ``poll_s``; True when something was committed meanwhile, here or by another process."""
        # Not `asyncio.wait_for`: before Python 3.12 it loses a cancellation that comes together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._poll_s):
                await self._wake.wait()
            # Let more commits gather, and whoever made this one be answered first; but let nobody wait for it here.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SETTLE_S):
                    await self._asked.wait()
            return True
        # Compare with the last look, not with a checkpoint: a projection that reads only some types may stand still
        # while the head moves on. An append made just before the projection read costs one needless round.
        head = await in_background(self._ledger.reader.head_position)
        moved, self._head_seen = head != self._head_seen, head
        return moved


def safe_message(error: Exception) -> str:
    """Describe an error without repeating what anybody wrote: messages from outside may quote texts or keys."""
    kind = type(error).__name__
    if isinstance(error, OpmError) and not isinstance(error, InvalidInput):
        return f"{kind}: {error}"
    if isinstance(error, OSError):
        return f"{kind}: {error.strerror}"
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f" at {Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno}" if frame is not None else ""
    return f"{kind}{where}"

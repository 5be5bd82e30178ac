"""What can be done while an endpoint is waited for is done then, and not after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Generic, Self, TypeVar

_UNDER_WAY_S = 0.001
"""By then a question to an endpoint has left, as a rule, and nothing is to be done but to wait."""

T = TypeVar("T")


@asynccontextmanager
async def meanwhile(work: Callable[[], None]) -> AsyncIterator[None]:
    """Do ``work`` while the block waits: a moment after it began, and not at all where it ends before.

    It is for what would be done later anyway, and must be idempotent. An error of the block goes before one of it.
    """
    failures: list[Exception] = []

    def worked() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised where the block ends
            failures.append(error)

    timer = asyncio.get_running_loop().call_later(_UNDER_WAY_S, worked)
    try:
        yield
    finally:
        timer.cancel()
    if failures:
        raise failures[0]


class ReadAhead(Generic[T]):
    """Read in a thread while the block waits: begun a moment after it, and not at all where it ends before.

    What is read may be more than will be wanted in the end; whoever wants less reads that where nothing was begun.
    """

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self._begun: asyncio.Task[T] | None = None

    async def __aenter__(self) -> Self:
        self._timer = asyncio.get_running_loop().call_later(0, self._begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if error is not None and self._begun is not None:
            self._begun.cancel()

    async def taken(self) -> T | None:
        """Return what was read, None where nothing was; raises what reading raised."""
        return await self._begun if self._begun is not None else None

    def _begin(self) -> None:
        self._begun = asyncio.get_running_loop().create_task(asyncio.to_thread(self._read))
        # Nobody may take it, and an error that nobody takes is none.
        self._begun.add_done_callback(lambda read: read.cancelled() or read.exception())

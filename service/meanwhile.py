"""What can be done while an endpoint is waited for is done then, and not after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

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


def begun(read: Callable[[], T]) -> asyncio.Future[T]:
    """Begin to read in a thread, at once, what will be wanted later, or perhaps not: then its error is nobody's."""
    reading = asyncio.get_running_loop().run_in_executor(None, read)
    reading.add_done_callback(lambda done: done.cancelled() or done.exception())
    return reading

"""What can be done while an endpoint is waited for is done then, and not after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

_UNDER_WAY_S = 0.001
"""By then a question to an endpoint has left, as a rule, and nothing is to be done but to wait."""


@asynccontextmanager
async def meanwhile(work: Callable[[], None]) -> AsyncIterator[None]:
    """Do ``work`` while the block waits: a moment after it began, and not at all where it ends before.

    It is for what would be done later anyway, and must be idempotent. An error of the block goes before one of it.
    """

    async def later() -> None:
        await asyncio.sleep(_UNDER_WAY_S)
        work()

    task = asyncio.create_task(later())
    try:
        yield
    except BaseException:
        if not task.cancel():
            task.exception()
        raise
    if not task.cancel():
        task.result()

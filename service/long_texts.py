"""Work on long texts leaves the event loop, where everybody would wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_LONG_CHARS = 50_000
"""Work on shorter texts takes less time than handing it over."""


async def with_texts(chars: int, work: Callable[[], T]) -> T:
    """Do work on texts of so many characters together; on long ones in a thread."""
    return await asyncio.to_thread(work) if chars > _LONG_CHARS else work()

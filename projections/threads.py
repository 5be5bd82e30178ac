"""The thread in which the background's blocking work runs, one piece at a time.

Python runs one thread at a time, and SQLite lets go of the interpreter at every step of a statement. So the more
threads read and write at once, the more often each waits for the others, and turns wait with them. What follows the
ledger is in no hurry: one thread is enough for it (docs/decisions/0013-few-threads-and-few-rows.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_BACKGROUND = ThreadPoolExecutor(max_workers=1, thread_name_prefix="background")


async def background_idle() -> None:
    """Return when all that was handed over until now is done."""
    await in_background(lambda: None)


async def in_background(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Run blocking work that no request waits for."""
    return await asyncio.get_running_loop().run_in_executor(_BACKGROUND, partial(work, *arguments, **named))

"""How many tokens a text has, without ever making a turn wait for the answer.

A conservative estimate is there at once. Where a prompt comes near its budget and the chat endpoint can count, exact
counts are fetched beside the turn's other calls and kept for the next ones; what has not arrived when the prompt is put
together stays an estimate.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Literal

from domain.tokens import estimate_tokens
from service.chat_client import ChatClient

_KEPT_MAX = 20_000
_IN_FLIGHT_MAX = 8
_NEAR_BUDGET = 0.8
_LEFT_ALONE_S = 300.0


class Counting:
    """Counts the texts of one prompt; ``kind`` tells how, once they are counted."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self._exact: set[bool] = set()

    def __call__(self, text: str) -> int:
        self._exact.add(self._counter.is_exact(text))
        return self._counter.count(text)

    @property
    def kind(self) -> Literal["exact", "estimate", "mixed"]:
        if len(self._exact) > 1:
            return "mixed"
        return "exact" if self._exact == {True} else "estimate"


class TokenCounter:
    """Counts by estimate, and by the endpoint's own tokenizer as far as its counts are known."""

    def __init__(self, chat: ChatClient) -> None:
        self._chat = chat
        self._exact: OrderedDict[int, int] = OrderedDict()
        self._estimates: OrderedDict[int, int] = OrderedDict()
        self._places = asyncio.Semaphore(_IN_FLIGHT_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: set[int] = set()
        self._ask_again_at = 0.0

    def count(self, text: str) -> int:
        """Return the exact count where it is known, else an upper estimate."""
        key = hash(text)
        known = self._exact.get(key) or self._estimates.get(key)
        if known is None:
            # The same memories come up again and again, and an estimate of a long one takes a while.
            known = self._estimates[key] = estimate_tokens(text)
            _forget_oldest(self._estimates)
        return known

    def counting(self) -> Counting:
        """Return a count for one prompt that notes how its texts were counted."""
        return Counting(self)

    def is_exact(self, text: str) -> bool:
        """Tell whether the endpoint itself has counted this text."""
        return hash(text) in self._exact

    def prefetch(self, texts: Iterable[str], budget_tokens: int) -> None:
        """Start fetching exact counts, if the estimates come near the budget; return at once."""
        wanted = list(dict.fromkeys(texts))
        if time.monotonic() < self._ask_again_at or sum(map(self.count, wanted)) < _NEAR_BUDGET * budget_tokens:
            return
        for text in wanted:
            key = hash(text)
            if key not in self._exact and key not in self._asked and len(self._tasks) < _KEPT_MAX:
                self._asked.add(key)
                task = asyncio.get_running_loop().create_task(self._fetch(text))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop fetching."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, text: str) -> None:
        key = hash(text)
        try:
            async with self._places:
                waits = time.monotonic() < self._ask_again_at
                count = None if waits else await self._chat.count_tokens(text)
        finally:
            self._asked.discard(key)
        if count is None:
            # There is no /tokenize here, or it has trouble: it is left alone for a while, and the estimate serves.
            if not waits:
                self._ask_again_at = time.monotonic() + _LEFT_ALONE_S
            return
        self._exact[key] = count
        _forget_oldest(self._exact)


def _forget_oldest(counts: OrderedDict[int, int]) -> None:
    while len(counts) > _KEPT_MAX:
        counts.popitem(last=False)

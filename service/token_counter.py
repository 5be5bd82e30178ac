"""How many tokens a text has, without ever making a turn wait for the answer.

A conservative estimate is there at once. Where a prompt comes near its budget and the chat endpoint can count, the
exact counts of its texts are fetched in the background, for the prompts of later turns.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import partial
from typing import Literal

from domain.tokens import KeptEstimates
from projections.background_tasks import BackgroundTasks
from service.chat_client import ChatClient

_KEPT_MAX = 20_000
_WAITING_MAX = 1_000
_IN_FLIGHT_MAX = 8
_NEAR_BUDGET = 0.8
_LEFT_ALONE_S = 300.0


class Counting:
    """Counts the texts of one prompt, and notes how it counted them."""

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self.exact: dict[str, int] = {}
        self.estimated: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        count = self._counter.exact(text)
        if count is not None:
            self.exact[text] = count
        else:
            count = self.estimated[text] = self._counter.estimate(text)
        return count

    @property
    def kind(self) -> Literal["exact", "estimate", "mixed"]:
        if self.exact and self.estimated:
            return "mixed"
        return "exact" if self.exact else "estimate"

    @property
    def tokens(self) -> int:
        """Of all texts that were counted, whether or not they found room."""
        return sum(self.exact.values()) + sum(self.estimated.values())


class TokenCounter:
    """Counts by estimate, and by the endpoint's own tokenizer as far as its counts are known.

    Both are kept by the hashes of texts, and no text is.
    """

    def __init__(self, chat: ChatClient) -> None:
        self.estimate = KeptEstimates()
        self._chat = chat
        self._exact: OrderedDict[int, int] = OrderedDict()
        self._fetching = BackgroundTasks(tasks_max=_WAITING_MAX, concurrency=_IN_FLIGHT_MAX)
        self._ask_again_at = 0.0

    def exact(self, text: str) -> int | None:
        """Return the endpoint's own count where it is known."""
        return self._exact.get(hash(text))

    def counting(self) -> Counting:
        """Return what counts the texts of one prompt."""
        return Counting(self)

    def learn(self, counting: Counting, budget_tokens: int) -> None:
        """Fetch exact counts of what was estimated, if all of it came near the budget; return at once."""
        if counting.tokens < _NEAR_BUDGET * budget_tokens or time.monotonic() < self._ask_again_at:
            return
        for text in counting.estimated:
            self._fetching.start(hash(text), "a token count", partial(self._fetch, text))

    async def close(self) -> None:
        """Stop fetching."""
        await self._fetching.close()

    async def _fetch(self, text: str) -> None:
        if time.monotonic() < self._ask_again_at:
            return
        count = await self._chat.count_tokens(text)
        if count is None:
            # There is no /tokenize here, or it has trouble: it is left alone for a while, and the estimate serves.
            self._ask_again_at = time.monotonic() + _LEFT_ALONE_S
            return
        self._exact[hash(text)] = count
        if len(self._exact) > _KEPT_MAX:
            self._exact.popitem(last=False)

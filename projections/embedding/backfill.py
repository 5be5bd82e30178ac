"""Embeds every text of the ledger that the vector cache does not know, several requests at a time.

Texts are read in the order of the ledger, for all users together, so that each request is full. When all users are
read, the cache's position moves along: it says up to which event nothing is missing. So an interrupted run goes on from
there, and a run with nothing new reads nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential
from tenacity.wait import wait_base, wait_random

from domain.errors import EmbeddingUnavailable
from domain.ledger import Ledger
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.caching_embedder import CachingEmbedder
from projections.progress import Progress

log = logging.getLogger(__name__)

_EVENTS_PER_READ = 1024
_ATTEMPTS = 8
_BACKOFF_MAX_S = 30.0
_RECORD_EVERY_S = 2.0
_ASKED_MAX_S = 300.0
"""How long an endpoint may ask us to wait; some name the end of the day."""

T = TypeVar("T")


@dataclass
class Embedded:
    """How many texts were embedded, up to which position all now are, and whose events were read."""

    texts: int
    position: int
    users: set[str] = field(default_factory=set)


class _Wait(wait_base):
    """Waits as long as the endpoint asked for, else exponentially longer, with jitter."""

    def __init__(self) -> None:
        self._own = wait_exponential(multiplier=0.5, max=_BACKOFF_MAX_S) + wait_random(0, 0.5)

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome is not None else None
        asked = error.retry_after_s if isinstance(error, EmbeddingUnavailable) else None
        return min(asked, _ASKED_MAX_S) if asked is not None else self._own(retry_state)


def _tell(retry_state: RetryCallState) -> None:
    error = retry_state.outcome.exception() if retry_state.outcome is not None else None
    log.warning("%s; next try in %.1f s", error, retry_state.next_action.sleep if retry_state.next_action else 0.0)


async def retried(work: Callable[[], Awaitable[T]]) -> T:
    """Return what ``work`` returns, trying again for about a minute while the endpoint is unavailable."""
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(EmbeddingUnavailable),
        wait=_Wait(),
        stop=stop_after_attempt(_ATTEMPTS),
        before_sleep=_tell,
        reraise=True,
    ):
        with attempt:
            return await work()
    raise AssertionError("unreachable: the last attempt returns or raises")


async def embed_texts(
    ledger: Ledger,
    cache: VectorCache,
    embedder: CachingEmbedder,
    *,
    user_id: str | None,
    after: int,
    batch: int,
) -> Embedded:
    """Embed what is missing of the events behind ``after``, of one user or of all.

    As many requests are pending at once as the embedder allows; as many batches again wait or are stored.
    Raises :class:`EmbeddingUnavailable` when the endpoint stays away and :class:`EmbeddingMisfit` when it is not the
    right one; what was embedded until then is kept.
    """
    batches = _Batches(cache, embedder, batch, moves_position=user_id is None)
    done = Embedded(0, after)
    total = await asyncio.to_thread(ledger.reader.count_facets, user_id, after)
    try:
        with Progress("texts", "event", total) as progress:
            while True:
                changes, position = await asyncio.to_thread(
                    ledger.reader.facet_texts, user_id, done.position, _EVENTS_PER_READ
                )
                if position == done.position:
                    break
                done.position = position
                done.users.update(change.user_id for change in changes)
                await batches.take([change.text for change in changes if change.text is not None], position)
                progress.advance(len(changes))
            await batches.finish()
    finally:
        await batches.close()
    done.texts = batches.embedded
    return done


class _Batches:
    """The pending requests of one backfill, and how far it is done. Batches are numbered as they are filled."""

    def __init__(self, cache: VectorCache, embedder: CachingEmbedder, batch: int, *, moves_position: bool) -> None:
        self.embedded = 0
        self._cache = cache
        self._embedder = embedder
        self._batch = batch
        # Twice as many as requests: while the vectors of some are stored, the next are pending.
        self._free = asyncio.Semaphore(2 * embedder.concurrency)
        self._moves_position = moves_position
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._waiting: dict[bytes, str] = {}
        self._under_way: set[bytes] = set()
        self._started = 0
        self._finished: set[int] = set()
        self._all_before = 0
        """Batches with a lower number are done."""
        self._position_after: dict[int, int] = {}
        """By number of batches: the position that is reached when all of them are done."""
        self._recorded_at = time.monotonic()

    async def take(self, texts: list[str], position: int) -> None:
        """Take in the texts of the events up to ``position``; waits while enough requests are pending."""
        by_hash = {text_hash(text): text for text in texts}
        # Before the cache is asked: what is stored in between would be in neither of the two.
        busy = self._under_way | self._waiting.keys()
        known = await asyncio.to_thread(self._cache.known, self._embedder.space_id, list(by_hash))
        self._waiting |= {key: text for key, text in by_hash.items() if key not in known and key not in busy}
        while len(self._waiting) >= self._batch:
            await self._start()
        self._position_after[self._started + bool(self._waiting)] = position
        await self._move_position()

    async def finish(self) -> None:
        """Embed what is left, and wait until all is done."""
        if self._waiting:
            await self._start()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._raise_failure()
        await self._move_position(at_once=True)

    async def close(self) -> None:
        """Cancel the pending requests."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _start(self) -> None:
        keys = list(self._waiting)[: self._batch]
        texts = [self._waiting[key] for key in keys]
        await self._free.acquire()
        self._raise_failure()
        for key in keys:
            del self._waiting[key]
        self._under_way.update(keys)
        task = asyncio.create_task(self._embed(self._started, keys, texts))
        self._started += 1
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = self._failure or error

    async def _embed(self, number: int, keys: list[bytes], texts: list[str]) -> None:
        await retried(lambda: self._embedder.embed(texts))
        self.embedded += len(texts)
        self._under_way.difference_update(keys)
        self._finished.add(number)
        await self._move_position()

    async def _move_position(self, *, at_once: bool = False) -> None:
        """Record the position up to which all is embedded, if it has moved and the last record is old enough."""
        while self._all_before in self._finished:
            self._finished.discard(self._all_before)
            self._all_before += 1
        reached = [number for number in self._position_after if number <= self._all_before]
        now = time.monotonic()
        if not reached or not (at_once or now - self._recorded_at >= _RECORD_EVERY_S):
            return
        self._recorded_at = now
        position = max(self._position_after.pop(number) for number in reached)
        if self._moves_position:
            await asyncio.to_thread(self._cache.put, self._embedder.space_id, {}, position=position)
        await asyncio.to_thread(self._cache.checkpoint)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

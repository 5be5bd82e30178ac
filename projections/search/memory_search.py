"""The one door through which the service searches memory: by meaning, by words, or by both.

Both indices are asked at once, the words while the question is being embedded. What they propose is fused (see
:mod:`domain.fusion`), and only then are the best memories read from the ledger. Where one index cannot be searched, the
other one's ranking stands, and the result says so: a turn is never answered with nothing because one of them is ill.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from domain.errors import EmbeddingError, IndexCatchingUp, IndexUnavailable
from domain.events import RetrievalMode
from domain.fusion import Fusion
from domain.ledger_reader import LedgerReader
from domain.retrieval import Candidate
from domain.temporal.time_range import TimeRange
from projections.dense.memory_index import DenseResult, MemoryIndex
from projections.embedding.endpoint import EmbeddingSpace
from projections.follower import safe_message
from projections.lexical.index import LexicalResult
from projections.lexical.index_files import LexicalFiles
from projections.search.ranking import ByVectors, Ranking, ranking

log = logging.getLogger(__name__)

Trouble = EmbeddingError | IndexUnavailable
QUESTION_UNDER_WAY_S = 0.0015
"""By then the question is on its way to the embedding endpoint, as a rule, and nothing holds it up any more."""
_AFTER_A_TURN_S = 2.0
"""Once since the start, a user's words are read whole to see whether the file holds together: not beside the turn."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Candidates, best first, and how they were found. Times in milliseconds.

    ``mode`` is how memory was searched in the end: another than was asked for where ``trouble`` says why. ``fusion`` is
    None where nothing was fused, ``space`` where the vectors were not asked; ``notice`` is told where that space is not
    the configured model's.
    """

    candidates: list[Candidate]
    mode: RetrievalMode
    trouble: Trouble | None
    fusion: Fusion | None
    space: EmbeddingSpace | None
    notice: str | None
    position: int
    embed_ms: float
    search_ms: float
    lexical_ms: float


@dataclass(frozen=True, slots=True)
class _ByWords:
    """What the words found and in how many milliseconds, or why they could not be searched."""

    found: LexicalResult | None = None
    took_ms: float = 0.0
    trouble: IndexUnavailable | None = None


_NOT_ASKED = _ByWords()


class MemorySearch:
    """Searches users' memories through both indices. To be used from one event loop."""

    def __init__(
        self, reader: LedgerReader, index: MemoryIndex, words: LexicalFiles, fusion: Fusion | None = None
    ) -> None:
        self._reader = reader
        self._index = index
        self._words = words
        self._fusion = fusion or Fusion()
        self._threads = ThreadPoolExecutor(thread_name_prefix="words")
        self._in_background: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._one_check = asyncio.Semaphore(1)
        self._checked: set[str] = set()
        self._closing = threading.Event()
        self._closed = asyncio.Event()

    async def search(
        self, user_id: str, query: str, count: int, mode: RetrievalMode, wanted: TimeRange | None = None
    ) -> SearchResult:
        """Return the ``count`` memories of a user that fit ``query`` best, and ``wanted``, the time that it names.

        Raises an :class:`EmbeddingError` or :class:`IndexUnavailable` where neither index can be searched.
        """
        depth = max(self._fusion.depth, count) if mode == "hybrid" else count
        after_s = 0.0 if mode == "lexical" else QUESTION_UNDER_WAY_S
        asked = self._ask_words(user_id, query, depth, after_s) if mode != "dense" else None
        rank = partial(self._ranked, user_id, count, wanted)

        def ranked_with_words(dense: DenseResult) -> tuple[DenseResult, Ranking | None]:
            # Waited for in the thread that goes on with it: each change of threads takes its time.
            words = asked.result() if asked is not None else _NOT_ASKED
            behind = words.found is not None and words.found.position < dense.position
            return dense, None if behind else rank(dense, words.found)

        dense: DenseResult | None = None
        ranked: Ranking | None = None
        trouble: Trouble | None = None
        try:
            if mode != "lexical":
                dense, ranked = await self._index.search_then(user_id, query, depth, ranked_with_words)
        except (EmbeddingError, IndexUnavailable) as error:
            trouble = error
        finally:
            # Waited for in any case: a thread cannot be called back.
            words = await asyncio.wrap_future(asked) if asked is not None else _NOT_ASKED
            self._look_after(user_id, words)
        if ranked is None:
            if dense is not None or mode == "dense":
                # Where a memory came in meanwhile, both must speak of the same, or the past could not be asked again.
                words = await asyncio.wrap_future(self._ask_words(user_id, query, depth))
                self._look_after(user_id, words)
            if dense is None and words.found is None:
                why = trouble or words.trouble
                assert why is not None
                raise why
            ranked = await asyncio.to_thread(rank, dense, words.found)
        position = dense.position if dense is not None else words.found.position if words.found is not None else 0
        return SearchResult(
            candidates=ranked.candidates,
            mode="hybrid" if ranked.fusion is not None else "dense" if dense is not None else "lexical",
            trouble=trouble or words.trouble,
            fusion=ranked.fusion,
            space=dense.space if dense is not None else None,
            notice=self._index.notice_of(dense.space) if dense is not None else None,
            position=position,
            embed_ms=dense.embed_ms if dense is not None else 0.0,
            search_ms=dense.search_ms if dense is not None else 0.0,
            lexical_ms=words.took_ms,
        )

    async def close(self) -> None:
        """Stop what runs in the background."""
        self._closing.set()
        self._closed.set()
        await asyncio.gather(*self._in_background.values(), return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    def _ranked(
        self,
        user_id: str,
        count: int,
        wanted: TimeRange | None,
        dense: DenseResult | None,
        lexical: LexicalResult | None,
    ) -> Ranking:
        return ranking(
            self._reader,
            user_id,
            ByVectors(dense.hits, dense.cosines) if dense is not None else None,
            lexical.hits if lexical is not None else None,
            self._fusion,
            count,
            wanted=wanted,
        )

    def _ask_words(self, user_id: str, query: str, count: int, after_s: float = 0.0) -> Future[_ByWords]:
        """Search a user's words in a thread, ``after_s`` seconds from now."""
        if self._closing.is_set():
            refused: Future[_ByWords] = Future()
            refused.set_result(_ByWords(trouble=IndexUnavailable("the service is stopping")))
            return refused
        return self._threads.submit(self._by_words, user_id, query, count, after_s)

    def _by_words(self, user_id: str, query: str, count: int, after_s: float) -> _ByWords:
        time.sleep(after_s)
        started = time.perf_counter()
        try:
            found = self._words.search(user_id, query, count)
        except IndexUnavailable as error:
            return _ByWords(trouble=error)
        return _ByWords(found, (time.perf_counter() - started) * 1000)

    def _look_after(self, user_id: str, words: _ByWords) -> None:
        """Leave to the background what a user's words were found to need."""
        if isinstance(words.trouble, IndexCatchingUp):
            catch_up = partial(asyncio.to_thread, self._words.catch_up, user_id, stop=self._closing.is_set)
            self._later(user_id, "brought up to date", catch_up)
        elif words.found is not None and user_id not in self._checked:
            self._checked.add(user_id)
            self._later(user_id, "checked", partial(self._check, user_id))

    def _later(self, user_id: str, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Work on a user's words in the background; ``what`` is to become of them, once at a time."""
        key = (user_id, what)
        if key not in self._in_background:
            task = asyncio.get_running_loop().create_task(self._logged(what, work))
            self._in_background[key] = task
            task.add_done_callback(lambda _task: self._in_background.pop(key, None))

    async def _logged(self, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the outermost loop of a background task: logged, tried again when asked
            log.warning("a lexical index could not be %s: %s", what, safe_message(error))

    async def _check(self, user_id: str) -> None:
        """See whether a user's words hold together: not beside the turn, and of one user at a time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), _AFTER_A_TURN_S)
        async with self._one_check:
            if not self._closed.is_set():
                await asyncio.to_thread(self._words.check, user_id)

"""The one door through which the service searches memory: dense, lexical, or both (hybrid).

The question is embedded; then one thread searches both indices, fuses what they propose (see :mod:`domain.fusion`) and
reads the best memories from the ledger. Where one index cannot be searched, the other one's ranking stands, and the
result says so: no turn goes without memory because one of them is ill.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from domain.errors import EmbeddingError, IndexCatchingUp, IndexUnavailable
from domain.events import RetrievalMode
from domain.fusion import Fusion
from domain.ledger_reader import LedgerReader
from domain.retrieval import Candidate
from domain.temporal.time_range import TimeRange
from projections.background_tasks import BackgroundTasks
from projections.dense.dense_index import DenseIndex, DenseResult, EmbeddedQuery
from projections.embedding.endpoint import EmbeddingSpace
from projections.lexical.index import LexicalResult
from projections.lexical.index_files import LexicalFiles
from projections.search.ranking import DenseHits, ranking

P = ParamSpec("P")
T = TypeVar("T")
Trouble = EmbeddingError | IndexUnavailable


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Candidates, best first, and how they were found. Times in milliseconds.

    ``mode`` is how memory was searched in the end: another than was asked for where ``trouble`` says why. ``fusion`` is
    None where nothing was fused, and ``space`` where no vectors were searched; ``notice`` says where that space is not
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
class _Request:
    user_id: str
    query: str
    count: int
    mode: RetrievalMode
    wanted: TimeRange | None


@dataclass(frozen=True, slots=True)
class _Lexical:
    """What the lexical index found, and in how many milliseconds."""

    result: LexicalResult
    took_ms: float


class MemorySearch:
    """Searches users' memories through both indices. To be used from one event loop."""

    def __init__(
        self, reader: LedgerReader, dense: DenseIndex, lexical: LexicalFiles, fusion: Fusion | None = None
    ) -> None:
        self._reader = reader
        self._dense = dense
        self._lexical = lexical
        self._fusion = fusion or Fusion()
        self._catching_up = BackgroundTasks()
        self._checking = BackgroundTasks(concurrency=1)
        self._checked: set[str] = set()
        self._closing = threading.Event()

    async def search(
        self, user_id: str, query: str, count: int, mode: RetrievalMode, wanted: TimeRange | None = None
    ) -> SearchResult:
        """Return the ``count`` memories of a user that fit ``query`` best, and ``wanted``, the time that it names.

        Raises an :class:`EmbeddingError` or :class:`IndexUnavailable` where neither index can be searched.
        """
        request = _Request(user_id, query, count, mode, wanted)
        embedded: EmbeddedQuery | Trouble | None = None
        if mode != "lexical":
            try:
                embedded = await self._dense.embed(user_id, query)
            except (EmbeddingError, IndexUnavailable) as error:
                embedded = error
        lexical, result = await self._dense.in_search_thread(self._search_and_rank, request, embedded)
        self._look_after_lexical(user_id, lexical)
        if isinstance(result, Exception):
            raise result
        return result

    async def in_search_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do blocking work of a turn in one of the threads of its search; raises as :meth:`search` once closed."""
        return await self._dense.in_search_thread(work, *arguments, **named)

    async def close(self) -> None:
        """Search no more, and wait for what runs in the background."""
        self._closing.set()
        await self._catching_up.finish()
        await self._checking.finish()

    def _search_and_rank(
        self, request: _Request, embedded: EmbeddedQuery | Trouble | None
    ) -> tuple[_Lexical | IndexUnavailable | None, SearchResult | Trouble]:
        """Search both indices and rank what they found; return what came of the lexical one, too. Blocks.

        Where neither could be searched, the reason stands in the place of the result.
        """
        depth = max(self._fusion.depth, request.count) if request.mode == "hybrid" else request.count
        dense = self._search_dense(embedded, depth) if embedded is not None else None
        lexical = None
        if request.mode != "dense" or not isinstance(dense, DenseResult):
            # After the dense index, and so with all that it has read: both must rank the same memories, or the same
            # search could not be repeated as of that position.
            lexical = self._search_lexical(request, depth)
        trouble = next((error for error in (dense, lexical) if isinstance(error, Exception)), None)
        if isinstance(dense, DenseResult):
            found = lexical if isinstance(lexical, _Lexical) else None
            return lexical, self._ranked(request, dense, found, dense.position, trouble)
        if isinstance(lexical, _Lexical):
            return lexical, self._ranked(request, None, lexical, lexical.result.position, trouble)
        assert trouble is not None, "an index that was asked gives a result or an error"
        return lexical, trouble

    def _search_dense(self, embedded: EmbeddedQuery | Trouble, depth: int) -> DenseResult | Trouble:
        if isinstance(embedded, Exception):
            return embedded
        try:
            return self._dense.search_embedded(embedded, depth)
        except (EmbeddingError, IndexUnavailable) as error:
            return error

    def _search_lexical(self, request: _Request, depth: int) -> _Lexical | IndexUnavailable:
        if self._closing.is_set():
            return IndexUnavailable("the service is stopping")
        started = time.perf_counter()
        try:
            result = self._lexical.search(request.user_id, request.query, depth)
        except IndexUnavailable as error:
            return error
        return _Lexical(result, (time.perf_counter() - started) * 1000)

    def _ranked(
        self,
        request: _Request,
        dense: DenseResult | None,
        lexical: _Lexical | None,
        position: int,
        trouble: Trouble | None,
    ) -> SearchResult:
        ranked = ranking(
            self._reader,
            request.user_id,
            request.query,
            DenseHits(dense.hits, dense.cosines) if dense is not None else None,
            lexical.result.hits if lexical is not None else None,
            self._fusion,
            request.count,
            wanted=request.wanted,
        )
        return SearchResult(
            candidates=ranked.candidates,
            mode="hybrid" if ranked.fusion is not None else "dense" if dense is not None else "lexical",
            trouble=trouble,
            fusion=ranked.fusion,
            space=dense.space if dense is not None else None,
            notice=self._dense.notice_of(dense.space) if dense is not None else None,
            position=position,
            embed_ms=dense.embed_ms if dense is not None else 0.0,
            search_ms=dense.search_ms if dense is not None else 0.0,
            lexical_ms=lexical.took_ms if lexical is not None else 0.0,
        )

    def _look_after_lexical(self, user_id: str, lexical: _Lexical | IndexUnavailable | None) -> None:
        """Leave to the background what a user's lexical index was found to need."""
        if isinstance(lexical, IndexCatchingUp):
            catch_up = partial(asyncio.to_thread, self._lexical.catch_up, user_id, stop=self._closing.is_set)
            self._catching_up.start(user_id, "bringing a lexical index up to date", catch_up)
        elif isinstance(lexical, _Lexical) and user_id not in self._checked:
            # Once since the start the file is read whole, to see whether it holds together.
            self._checked.add(user_id)
            self._checking.start(user_id, "checking a lexical index", partial(self._check, user_id))

    async def _check(self, user_id: str) -> None:
        if not self._closing.is_set():
            await asyncio.to_thread(self._lexical.check, user_id)

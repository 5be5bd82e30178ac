"""Searches one user's memory as it was at a position of the ledger: dense, lexical, or hybrid.

What a search of the service gives at the head of the ledger, this gives for any position before it. Each index is built
in memory when it is first needed, and carried forward from question to question: positions must ascend.
"""

from __future__ import annotations

import asyncio

from domain.errors import InvalidInput
from domain.events import RetrievalMode
from domain.fusion import Fusion
from domain.ledger_reader import LedgerReader
from domain.retrieval import Candidate
from domain.temporal.time_range import TimeRange
from projections.embedding.endpoint import EmbeddingSpace
from projections.lexical.as_of import LexicalAsOf
from projections.lexical.index import LexicalHit
from projections.search.dense_as_of import DenseAsOf
from projections.search.ranking import DenseHits, ranking


class SearchAsOf:
    """Searches one user's memory at ascending positions; without ``dense`` only lexically. To be closed."""

    def __init__(
        self, reader: LedgerReader, user_id: str, dense: DenseAsOf | None, fusion: Fusion | None = None
    ) -> None:
        self._reader = reader
        self._user_id = user_id
        self._dense = dense
        self._fusion = fusion or Fusion()
        self._lexical: LexicalAsOf | None = None

    @property
    def space(self) -> EmbeddingSpace | None:
        return self._dense.space if self._dense is not None else None

    async def search(
        self,
        query: str,
        count: int,
        *,
        position: int,
        mode: RetrievalMode,
        timeout_s: float,
        wanted: TimeRange | None = None,
    ) -> list[Candidate]:
        """Return the ``count`` memories that fit ``query`` best, best first, of those that were there at ``position``.

        ``wanted`` is the time that the query names, seen from when it was asked, ``timeout_s`` how long the embedding
        of the query may take. Raises an :class:`EmbeddingError` when it, or a memory without a vector, cannot be
        embedded, and :class:`InvalidInput` for another mode than lexical without ``dense``.
        """
        if mode != "lexical" and self._dense is None:
            raise InvalidInput(
                "retrieval", mode, "without an embedding model, memory can be searched lexically only: use lexical"
            )
        depth = max(self._fusion.depth, count) if mode == "hybrid" else count
        dense: DenseHits | None = None
        if mode != "lexical" and self._dense is not None:
            await self._dense.advance(position)
            dense = await self._dense.search(query, depth, timeout_s=timeout_s)
        lexical = await asyncio.to_thread(self._search_lexical, query, depth, position) if mode != "dense" else None
        ranked = await asyncio.to_thread(
            ranking,
            self._reader,
            self._user_id,
            query,
            dense,
            lexical,
            self._fusion,
            count,
            wanted=wanted,
            as_of=position,
        )
        return ranked.candidates

    def close(self) -> None:
        if self._lexical is not None:
            self._lexical.close()

    def _search_lexical(self, query: str, count: int, position: int) -> list[LexicalHit]:
        if self._lexical is None:
            self._lexical = LexicalAsOf(self._reader, self._user_id)
        self._lexical.advance(position)
        return self._lexical.search(query, count)

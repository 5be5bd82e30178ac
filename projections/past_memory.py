"""One user's memory as it could be searched at a position of the ledger, edits and withdrawals until then included.

Both indices are built in memory from the texts as they stood, with vectors from the cache, and only ever move forward:
to ask at many positions in their order costs one pass through the user's events. Nothing is written but vectors that
the cache lacked.
"""

from __future__ import annotations

import asyncio
from functools import partial

from domain.events import RetrievalMode
from domain.fusion import Fusion
from domain.memory import FacetText
from domain.reader import LedgerReader
from domain.retrieval import Candidate
from projections.embedder import Embedder
from projections.embedding_client import EmbeddingClient, EmbeddingSpace, Vectors
from projections.index_rows import hash_of, index_rows
from projections.lexical import LexicalIndex
from projections.ranking import ByVectors, ranking
from projections.user_index import UserIndex
from projections.vector_cache import VectorCache

_EVENTS_PER_READ = 1024
_TIMEOUT_S = 60.0


class PastMemory:
    """Searches one user's memory in one embedding space at ascending positions.

    ``embedded`` counts the texts that had to be embedded for it.
    """

    def __init__(
        self,
        reader: LedgerReader,
        client: EmbeddingClient,
        cache: VectorCache,
        space: EmbeddingSpace,
        user_id: str,
        *,
        batch: int,
    ) -> None:
        self.space = space
        self.position = 0
        self.embedded = 0
        self._reader = reader
        self._cache = cache
        self._user_id = user_id
        self._embedder = Embedder(client, cache, space, batch=batch, timeout_s=_TIMEOUT_S)
        self._fusion = Fusion()
        self._words = LexicalIndex.in_memory()
        self._index = UserIndex(space.dimensions, "fp16" if cache.half else "fp32")

    async def advance(self, position: int) -> None:
        """Take in all that the ledger says up to ``position``, which is not before the last one asked for.

        Raises an :class:`EmbeddingError` where texts without a vector cannot be embedded.
        """
        assert position >= self.position, "the past is searched forward"
        while True:
            changes, read_to = await asyncio.to_thread(self._read, position)
            if read_to == self._index.position:
                break
            self.embedded += await self._embedder.embed_missing(
                [change.text for change in changes if change.text is not None]
            )
            await asyncio.to_thread(self._take_in, changes, read_to)
        self.position = position

    def search(self, query: str, vector: Vectors, count: int, mode: RetrievalMode = "hybrid") -> list[Candidate]:
        """Return the ``count`` memories that fit ``query`` best, as they stood.

        ``vector`` is the query's: float32, shape (dimensions,), length 1.
        """
        depth = max(self._fusion.depth, count) if mode == "hybrid" else count
        dense = ByVectors(self._index.search(vector, depth), partial(self._index.cosines, vector))
        lexical = self._words.search(query, depth) if mode != "dense" else None
        return ranking(
            self._reader,
            self._user_id,
            dense if mode != "lexical" else None,
            lexical,
            self._fusion,
            count,
            as_of=self.position,
        ).candidates

    def _read(self, position: int) -> tuple[list[FacetText], int]:
        return self._reader.facet_texts(self._user_id, self._index.position, _EVENTS_PER_READ, as_of=position)

    def _take_in(self, changes: list[FacetText], read_to: int) -> None:
        hashes = [key for change in changes if (key := hash_of(change)) is not None]
        rows = index_rows(changes, self._cache.get(self._embedder.space_id, hashes), self.space.dimensions)
        self._words.apply(changes)
        self._index.extend(
            self._index.position, rows.positions, rows.keys, rows.vectors, read_to, withdrawn=rows.withdrawn
        )

"""One user's vectors as they could be searched at a position of the ledger, edits and withdrawals until then included.

The index is built in memory from the texts as they stood, with vectors from the cache, and only moves forward: many
questions in the order of their positions cost one pass through the user's events. Only vectors that the cache lacked
are written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from domain.errors import EmbeddingMisfit
from domain.ledger_reader import LedgerReader
from domain.memory import FacetText
from projections.dense.user_index import UserIndex
from projections.dense.vector_changes import hash_of, vector_changes
from projections.embedding.cache import VectorCache
from projections.embedding.caching_embedder import CachingEmbedder
from projections.embedding.endpoint import EmbeddingClient, EmbeddingSpace
from projections.search.ranking import DenseHits

_EVENTS_PER_READ = 512
_TIMEOUT_S = 60.0


class DenseAsOf:
    """Searches one user's memory in one embedding space at ascending positions.

    ``embedded`` counts the texts that had to be embedded for it; ``on_embedded`` is told of them as they are.
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
        on_embedded: Callable[[int], object] = lambda _texts: None,
    ) -> None:
        self.space = space
        self.position = 0
        self.embedded = 0
        self._on_embedded = on_embedded
        self._reader = reader
        self._cache = cache
        self._client = client
        self._user_id = user_id
        self._embedder = CachingEmbedder(client, cache, space, batch=batch, timeout_s=_TIMEOUT_S)
        self._index = UserIndex(space.dimensions, "fp16" if cache.half else "fp32")

    async def advance(self, position: int) -> None:
        """Take in all that the ledger says up to ``position``, which is not before the last one asked for.

        Raises an :class:`EmbeddingError` where texts without a vector cannot be embedded.
        """
        assert position >= self.position, "the past is searched in ascending order"
        while True:
            changes, read_to = await asyncio.to_thread(self._read, position)
            if read_to == self._index.position:
                break
            texts = [change.text for change in changes if change.text is not None]
            if embedded := await self._embedder.embed_missing(texts):
                self.embedded += embedded
                self._on_embedded(embedded)
            await asyncio.to_thread(self._take_in, changes, read_to)
        self.position = position

    async def search(self, query: str, count: int, *, timeout_s: float) -> DenseHits:
        """Return the ``count`` memories nearest to ``query`` at that position, best first.

        Raises an :class:`EmbeddingError` when it cannot be embedded, or no longer as the index was.
        """
        vectors = await self._client.embed_query(query, timeout_s=timeout_s)
        if vectors.shape[1] != self.space.dimensions:
            raise EmbeddingMisfit(
                f"{self.space.model} gives vectors of {vectors.shape[1]} numbers now, and gave {self.space.dimensions}"
            )
        hits = await asyncio.to_thread(self._index.search, vectors[0], count)
        return DenseHits(hits, partial(self._index.cosines, vectors[0]))

    def _read(self, position: int) -> tuple[list[FacetText], int]:
        return self._reader.facet_texts(self._user_id, self._index.position, _EVENTS_PER_READ, as_of=position)

    def _take_in(self, changes: list[FacetText], read_to: int) -> None:
        hashes = [key for change in changes if (key := hash_of(change)) is not None]
        rows = vector_changes(changes, self._cache.get(self._embedder.space_id, hashes), self.space.dimensions)
        self._index.extend(
            self._index.position, rows.positions, rows.keys, rows.vectors, read_to, withdrawn=rows.withdrawn
        )

"""Embeds what was recorded, in the order of the ledger, and keeps the indices of its users close behind.

The checkpoint lies in the vector cache, beside the vectors it speaks of, and moves in the same transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from domain.errors import EmbeddingModelMismatch
from domain.identity import SYSTEM_ID
from domain.ledger import Ledger
from domain.memory import FacetText
from projections.dense.dense_index import DenseIndex
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingSpace
from projections.threads import in_background

log = logging.getLogger(__name__)

_EVENTS_MAX = 256


class DenseProjection:
    """The projection that a :class:`~projections.follower.Follower` runs in the background of a service."""

    name = "dense"

    def __init__(self, ledger: Ledger, index: DenseIndex, cache: VectorCache) -> None:
        self._reader = ledger.reader
        self._index = index
        self._cache = cache
        self._position = ledger.reader.head_position()
        self.mismatch: str | None = None
        """What is wrong with the active model, as the operator is told it; None when all is well."""

    async def advance(self) -> bool:
        """Embed the texts of one bounded batch of events; raise as :class:`DenseIndex` does."""
        space = await self._index.space_of(SYSTEM_ID)
        try:
            more = await self._follow(space)
        except EmbeddingModelMismatch as error:
            self._report(str(error))
            return await self._follow_rebuilt_users()
        self._report(self._index.notice)
        return more

    def _report(self, mismatch: str | None) -> None:
        """Log what is wrong, once for as long as it stays the same."""
        if mismatch not in (None, self.mismatch):
            log.warning("%s", mismatch)
        self.mismatch = mismatch

    async def _follow(self, space: EmbeddingSpace) -> bool:
        embedder = self._index.embedder(space)
        after, texts, position = await in_background(self._read, embedder.space_id)
        if position == after:
            return False
        await embedder.embed_missing([text.text for text in texts if text.text is not None])
        await self._index.follow(_users(texts))
        await in_background(self._record, embedder.space_id, position)
        return True

    def _read(self, space_id: int) -> tuple[int, list[FacetText], int]:
        after = self._cache.position(space_id)
        return after, *self._reader.facet_texts(None, after, _EVENTS_MAX)

    def _record(self, space_id: int, position: int) -> None:
        self._cache.put(space_id, {}, position=position)
        self._cache.checkpoint()

    async def _follow_rebuilt_users(self) -> bool:
        """Serve the users whose own model answers: a rebuild has activated it for them alone."""
        texts, self._position = await in_background(self._reader.facet_texts, None, self._position, _EVENTS_MAX)
        await self._index.follow(_users(texts))
        return bool(texts)


def _users(texts: Sequence[FacetText]) -> list[str]:
    return list(dict.fromkeys(text.user_id for text in texts))

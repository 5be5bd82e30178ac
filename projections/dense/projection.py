"""Embeds what was recorded, in the order of the ledger, and keeps the indices of its users close behind.

The checkpoint lies in the vector cache, beside the vectors it speaks of, and moves in the same transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from domain.errors import EmbeddingModelMismatch
from domain.identity import SYSTEM_ID
from domain.ledger import Ledger
from domain.memory import FacetText
from projections.dense.memory_index import MemoryIndex
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingSpace

log = logging.getLogger(__name__)

_EVENTS_MAX = 256


class VectorProjection:
    """The projection that a :class:`~projections.follower.Follower` runs in the background of a service."""

    name = "vectors"

    def __init__(self, ledger: Ledger, index: MemoryIndex, cache: VectorCache) -> None:
        self._ledger = ledger
        self._index = index
        self._cache = cache
        self._position = ledger.reader.head_position()
        self.mismatch: str | None = None
        """What is amiss with the active model: what the operator is told, None when all is well."""

    async def advance(self) -> bool:
        """Embed the texts of one bounded batch of events; raise as :class:`MemoryIndex` does."""
        space = await self._index.space_of(SYSTEM_ID)
        try:
            more = await self._follow(space)
        except EmbeddingModelMismatch as error:
            self._tell(str(error))
            return await self._follow_rebuilt_users()
        self._tell(self._index.notice)
        return more

    def _tell(self, mismatch: str | None) -> None:
        """Log what is amiss, once for as long as it stays the same."""
        if mismatch not in (None, self.mismatch):
            log.warning("%s", mismatch)
        self.mismatch = mismatch

    async def _follow(self, space: EmbeddingSpace) -> bool:
        embedder = self._index.embedder(space)
        after = await asyncio.to_thread(self._cache.position, embedder.space_id)
        texts, position = await asyncio.to_thread(self._ledger.reader.facet_texts, None, after, _EVENTS_MAX)
        await embedder.embed_missing([text.text for text in texts if text.text is not None])
        await self._maintain(texts)
        await asyncio.to_thread(self._cache.put, embedder.space_id, {}, position=position)
        await asyncio.to_thread(self._cache.checkpoint)
        return position > after

    async def _follow_rebuilt_users(self) -> bool:
        """Serve the users whose own model answers: a rebuild has activated it for them alone."""
        texts, self._position = await asyncio.to_thread(
            self._ledger.reader.facet_texts, None, self._position, _EVENTS_MAX
        )
        await self._maintain(texts)
        return bool(texts)

    async def _maintain(self, texts: Sequence[FacetText]) -> None:
        for user_id in dict.fromkeys(text.user_id for text in texts):
            # A user whose model nobody serves any more waits for a rebuild, which embeds what is skipped here.
            with contextlib.suppress(EmbeddingModelMismatch):
                await self._index.maintain(user_id)

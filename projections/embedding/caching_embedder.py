"""Embeds the texts of memories through the cache, and copes with texts that the model refuses.

A batch in which a text is refused is halved until that text stands alone. What is refused even then, by its beginning
too, is marked in the cache and left out of the index.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from domain.errors import EmbeddingMisfit, EmbeddingRejected, EmbeddingUnavailable
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.endpoint import EmbeddingClient, EmbeddingSpace, Vectors
from projections.embedding.model_router import ModelClient
from projections.threads import in_background

log = logging.getLogger(__name__)

_CONTROL_TEXT = "hello"


class CachingEmbedder:
    """Turns texts into vectors of one space, and keeps them.

    ``batch`` bounds the texts of one request, ``timeout_s`` its time, and ``concurrency`` the pending requests.
    """

    def __init__(
        self,
        client: EmbeddingClient | ModelClient,
        cache: VectorCache,
        space: EmbeddingSpace,
        *,
        batch: int,
        timeout_s: float,
        concurrency: int = 1,
    ) -> None:
        self.space = space
        self.space_id = cache.space_id(space)
        self._client = client
        self._cache = cache
        self._batch = batch
        self._timeout_s = timeout_s
        self.concurrency = concurrency
        self._under_way = asyncio.Semaphore(concurrency)

    async def embed_missing(self, texts: Sequence[str]) -> int:
        """Embed what the cache does not know yet; return how many texts that were.

        Raises :class:`EmbeddingUnavailable` or :class:`EmbeddingMisfit`; what was embedded before that is kept.
        """
        missing = await in_background(self._missing, texts) if texts else []
        for start in range(0, len(missing), self._batch):
            await self.embed(missing[start : start + self._batch])
        return len(missing)

    def _missing(self, texts: Sequence[str]) -> list[str]:
        by_hash = {text_hash(text): text for text in texts}
        known = self._cache.known(self.space_id, list(by_hash))
        return [text for key, text in by_hash.items() if key not in known]

    async def embed(self, texts: Sequence[str]) -> None:
        """Embed texts and keep the vectors, in one request unless one of them is refused; raises as above."""
        try:
            vectors = await self.request([self.space.passage_prefix + text for text in texts])
        except EmbeddingRejected:
            if len(texts) > 1:
                half = len(texts) // 2
                await self.embed(texts[:half])
                await self.embed(texts[half:])
                return
            await self._check_endpoint()
            log.warning(
                "the embedding endpoint refuses a memory of %d characters; it is left out of the index", len(texts[0])
            )
            self._cache.put(self.space_id, {text_hash(texts[0]): None})
            return
        await in_background(self.keep, texts, vectors)

    def keep(self, texts: Sequence[str], vectors: Vectors) -> None:
        """Put vectors of shape (len(texts), dimensions) into the cache."""
        self._cache.put(self.space_id, {text_hash(text): row for text, row in zip(texts, vectors, strict=True)})

    async def request(self, prefixed: Sequence[str]) -> Vectors:
        """Embed texts that carry their prefixes; raise :class:`EmbeddingMisfit` for vectors of another length."""
        async with self._under_way:
            vectors = await self._client.embed(prefixed, timeout_s=self._timeout_s)
        if vectors.shape[1] != self.space.dimensions:
            raise EmbeddingMisfit(
                f"{self.space.model} now gives vectors of {vectors.shape[1]} numbers, the index holds "
                f"{self.space.dimensions}: run `python -m projections.rebuild`"
            )
        return vectors

    async def _check_endpoint(self) -> None:
        """Raise :class:`EmbeddingUnavailable` if the endpoint refuses everything: no text is to blame for that."""
        try:
            await self.request([self.space.passage_prefix + _CONTROL_TEXT])
        except EmbeddingRejected as error:
            raise EmbeddingUnavailable(f"the embedding endpoint refuses even a single word: {error}") from None

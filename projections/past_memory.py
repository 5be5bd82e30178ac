"""One user's memory as it was at a position of the ledger, searched by vectors or by words.

What a search of the service gives at the head of the ledger, this gives for any position before it. Each index is built
when it is first asked for, in memory, and carried forward from question to question: positions must ascend.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from domain.errors import InvalidInput
from domain.events import RetrievalMode
from domain.memory import Memory
from domain.reader import LedgerReader
from projections.embedding_client import EmbeddingSpace
from projections.lexical import LexicalHit
from projections.past_vectors import PastVectors
from projections.past_words import PastWords
from projections.user_index import Hit

MODES: tuple[RetrievalMode, ...] = ("dense", "lexical")
"""The ways in which the past can be searched."""


@dataclass(frozen=True, slots=True)
class FoundThen:
    """Hits best first, and their memories by position as they stood.

    The score of a hit is a cosine similarity where vectors were searched, BM25 where words were; higher is better.
    """

    hits: Sequence[Hit | LexicalHit]
    memories: dict[int, Memory]


class PastMemory:
    """Searches one user's memory at ascending positions; without ``vectors`` by words only. To be closed."""

    def __init__(self, reader: LedgerReader, user_id: str, vectors: PastVectors | None) -> None:
        self._reader = reader
        self._user_id = user_id
        self._vectors = vectors
        self._words: PastWords | None = None

    @property
    def space(self) -> EmbeddingSpace | None:
        return self._vectors.space if self._vectors is not None else None

    async def search(
        self, query: str, count: int, *, position: int, mode: RetrievalMode, timeout_s: float
    ) -> FoundThen:
        """Return the ``count`` memories that fit ``query`` best, of those that were there at ``position``.

        ``timeout_s`` is how long the embedding of the query may take. Raises an :class:`EmbeddingError` when it, or a
        memory without a vector, cannot be embedded, and :class:`InvalidInput` for a mode that is not to be had.
        """
        hits: Sequence[Hit | LexicalHit]
        if mode == "dense" and self._vectors is not None:
            await self._vectors.advance(position)
            hits = await self._vectors.search(query, count, timeout_s=timeout_s)
        elif mode == "lexical":
            hits = await asyncio.to_thread(self._by_words, query, count, position)
        else:
            raise InvalidInput("retrieval", mode, f"the past is searched in one of the modes {', '.join(MODES)}")
        positions = [hit.turn_position for hit in hits]
        return FoundThen(hits, self._reader.memories(self._user_id, positions, as_of=position))

    def close(self) -> None:
        if self._words is not None:
            self._words.close()

    def _by_words(self, query: str, count: int, position: int) -> list[LexicalHit]:
        if self._words is None:
            self._words = PastWords(self._reader, self._user_id)
        self._words.advance(position)
        return self._words.search(query, count)

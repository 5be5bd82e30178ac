"""One user's texts as they stood at a position of the ledger, in a full-text index in memory.

Like :class:`projections.search.dense_as_of.DenseAsOf` it only moves forward and writes nothing.
"""

from __future__ import annotations

from domain.ledger_reader import LedgerReader
from projections.lexical.index import LexicalHit, LexicalIndex

_EVENTS_PER_READ = 1024


class LexicalAsOf:
    """Searches one user's memory by words at ascending positions. Close it after use."""

    def __init__(self, reader: LedgerReader, user_id: str) -> None:
        self.position = 0
        self._reader = reader
        self._user_id = user_id
        self._index = LexicalIndex.in_memory()

    def advance(self, position: int) -> None:
        """Apply what the ledger says up to ``position``, which must not be before the last one."""
        assert position >= self.position, "positions only go forward"
        after, read_to = -1, self._index.checkpoint().position
        while read_to != after:
            after = read_to
            changes, read_to = self._reader.facet_texts(self._user_id, after, _EVENTS_PER_READ, as_of=position)
            self._index.apply(changes, after=after, position=read_to)
        self.position = position

    def search(self, query: str, count: int) -> list[LexicalHit]:
        """Return the ``count`` memories that best match the words of ``query``, best first."""
        return self._index.search(query, count).hits

    def close(self) -> None:
        self._index.close()

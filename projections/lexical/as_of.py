"""One user's texts by their words as they stood at a position of the ledger: a full-text index in memory.

Like :class:`projections.search.dense_as_of.DenseAsOf` it only ever moves forward, and nothing is written.
"""

from __future__ import annotations

from domain.ledger_reader import LedgerReader
from domain.memory import FacetText
from projections.lexical.index import LexicalHit, LexicalIndex

_EVENTS_PER_READ = 1024


class LexicalAsOf:
    """Searches the words of one user's memory at ascending positions. To be closed."""

    def __init__(self, reader: LedgerReader, user_id: str) -> None:
        self.position = 0
        self._reader = reader
        self._user_id = user_id
        self._index = LexicalIndex.in_memory()

    def advance(self, position: int) -> None:
        """Take in all that the ledger says up to ``position``, which is not before the last one asked for."""
        assert position >= self.position, "the past is searched forward"
        read_to = self._index.checkpoint().position
        while True:
            after = read_to
            changes, read_to = self._read(after, position)
            if read_to == after:
                break
            self._index.apply(changes, after=after, position=read_to)
        self.position = position

    def search(self, query: str, count: int) -> list[LexicalHit]:
        """Return the ``count`` memories that share the most telling words with ``query``, best first."""
        return self._index.search(query, count)

    def close(self) -> None:
        self._index.close()

    def _read(self, after: int, position: int) -> tuple[list[FacetText], int]:
        return self._reader.facet_texts(self._user_id, after, _EVENTS_PER_READ, as_of=position)

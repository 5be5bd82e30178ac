"""One user's texts by their words: a full-text index in a SQLite file of the user's own.

A file per user, because BM25 weighs a word by how many texts hold it: in a shared table one user's texts would move
another's ranking. How far the index has read the ledger lies in the same file and moves in the same transaction.

A search looks at a bounded number of texts, whatever the size of the memory: the rarest words of a question are taken
first, and words for which there is no room any more would have said little.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json

from domain.errors import IndexCorrupt, IndexUnavailable
from domain.events import Facet
from domain.memory import FacetText
from domain.sqlite import DRIVER, transaction
from projections.keys import FACETS_MAX, facet_of, key_of
from projections.lexical import analysis

_FORMAT = 1
_POSTINGS_MAX = 2000
"""Texts that a search scores, at some 0.5 µs each."""
_BUSY_TIMEOUT_S = 10.0
_PAGE_CACHE_KIB = 512
"""A quarter of SQLite's default: many users' files are open at once, and the system caches their pages, too."""
_PRIMARY_CODE = 0xFF
_NOT_THE_FILE = frozenset({5, 6, 7, 8, 13, 14})
"""SQLite's codes for a file that is busy, locked, read-only or cannot be opened, a full disk and no memory left."""
_MADE_WITH = f"format {_FORMAT}, words {analysis.VERSION}"
_SCHEMA = (
    "CREATE TABLE checkpoint (position INTEGER NOT NULL, anchor TEXT NOT NULL, format TEXT NOT NULL)",
    # With its own copy of the texts: without one, SQLite goes on counting what was withdrawn in a text's mean length.
    f"CREATE VIRTUAL TABLE entries USING fts5(text, tokenize='{analysis.TOKENIZER}')",
)
# What a search asks comes back as one row each: between two rows the driver gives way to other threads, and a search of
# some hundred rows beside a busy event loop would wait for it as often.
_COUNTS = """
SELECT json_group_array((SELECT count(*) FROM (SELECT 1 FROM entries WHERE entries MATCH asked.value LIMIT ?)))
FROM (SELECT value FROM json_each(?) ORDER BY key) AS asked
"""
_SEARCH = f"""
SELECT json_group_array(json_array(key, score)) FROM (
  SELECT rowid AS key, min(score) AS score FROM (
    SELECT rowid, bm25(entries) AS score FROM entries WHERE entries MATCH ? ORDER BY rowid DESC LIMIT ?
  ) GROUP BY rowid / {FACETS_MAX} ORDER BY score, rowid LIMIT ?
)
"""  # noqa: S608 - the only value put in is the constant of the keys


class LexicalHit(NamedTuple):
    """A memory found: the position of its turn, its best facet's BM25 (higher is better), and which facet that was."""

    turn_position: int
    score: float
    matched: Facet


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far an index has read: the last event's position, and its hash."""

    position: int
    anchor: str


class LexicalIndex:
    """Search and extend one user's words. Safe to call from any thread, one call at a time."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        with transaction(connection):
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT INTO checkpoint VALUES (0, '', ?)", (_MADE_WITH,))
        if connection.execute("SELECT format FROM checkpoint").fetchall() != [(_MADE_WITH,)]:
            raise IndexCorrupt("the lexical index was made by another version")

    @classmethod
    def in_memory(cls) -> LexicalIndex:
        """Return an empty index that lives in memory only."""
        return cls(_connect(":memory:"))

    @classmethod
    def on_disk(cls, path: Path, *, create: bool = True) -> LexicalIndex:
        """Open the index in ``path``, an empty one if there is none and ``create`` allows it.

        Raises :class:`IndexCorrupt` for a file that is no such index or that another version made, and
        :class:`IndexUnavailable` for one that cannot be opened now.
        """
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IndexUnavailable(f"{path.parent.name} cannot be made ({error.strerror})") from None
        with _told_apart(), ExitStack() as on_failure:
            connection = _connect(f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}")
            on_failure.callback(connection.close)
            # A commit reaches the operating system, not the disk: what a power cut takes is read from the ledger again.
            connection.execute("PRAGMA journal_mode=WAL").close()
            connection.execute("PRAGMA synchronous=NORMAL").close()
            connection.execute("PRAGMA wal_autocheckpoint=0").close()
            connection.execute(f"PRAGMA cache_size=-{_PAGE_CACHE_KIB}").close()
            index = cls(connection)
            on_failure.pop_all()
        return index

    def checkpoint(self) -> Checkpoint:
        """Return how far the index has read; position 0 and an empty hash where it is empty."""
        with self._lock, _told_apart():
            return self._checkpoint()

    def apply(self, changes: Sequence[FacetText], *, after: int = 0, position: int = 0, anchor: str = "") -> bool:
        """Take in what the events in (``after``, ``position``] say; ``anchor`` is the hash of the one at ``position``.

        Returns False and changes nothing when the index does not stand at ``after``: somebody else was quicker.
        Raises :class:`IndexCorrupt` when the file cannot be written to as an index.
        """
        newest = {key_of(change.turn_position, change.facet): words_of(change) for change in changes}
        with self._lock, _told_apart(), transaction(self._connection):
            if self._checkpoint().position != after:
                return False
            self._connection.executemany("DELETE FROM entries WHERE rowid = ?", [(key,) for key in newest])
            self._connection.executemany(
                "INSERT INTO entries (rowid, text) VALUES (?, ?)",
                [(key, text) for key, text in newest.items() if text is not None],
            )
            self._connection.execute("UPDATE checkpoint SET position = ?, anchor = ?", (position, anchor))
            return True

    def search(self, query: str, count: int) -> list[LexicalHit]:
        """Return the ``count`` memories that share the most telling words with ``query``, best first.

        A memory counts by its best facet; of equals the older comes first. Raises :class:`IndexCorrupt` when the file
        cannot be read as an index.
        """
        with self._lock, _told_apart():
            chosen = self._telling(analysis.terms(query))
            if not chosen:
                return []
            # Only a lone word that is everywhere reaches the bound: then the newest texts speak for all.
            asked = (" OR ".join(term.as_fts5() for term in chosen), _POSTINGS_MAX, count)
            found = from_json(self._connection.execute(_SEARCH, asked).fetchone()[0])
        return [LexicalHit(position, -score, facet) for key, score in found for position, facet in (facet_of(key),)]

    def _telling(self, asked: Sequence[analysis.Term]) -> list[analysis.Term]:
        """Return the rarest terms whose texts are few enough together, and at least one that occurs at all."""
        counted = (_POSTINGS_MAX + 1, to_json([term.as_fts5() for term in asked]).decode())
        texts = dict(zip(asked, from_json(self._connection.execute(_COUNTS, counted).fetchone()[0]), strict=True))
        chosen: list[analysis.Term] = []
        room = _POSTINGS_MAX
        for term in sorted(filter(texts.__getitem__, asked), key=texts.__getitem__):
            room -= texts[term]
            if chosen and room < 0:
                break
            chosen.append(term)
        return chosen

    def check(self) -> None:
        """Read all of the file; raise :class:`IndexCorrupt` where it does not hold together.

        For the background: a third of a second for 50,000 memories. A search reads little of a file, and may find less
        in a damaged one without a complaint. To be called on a connection of its own: on one that has been reading
        while another wrote, SQLite's check takes a sound file for a broken one.
        """
        with self._lock, _told_apart():
            (first,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if first != "ok":
            raise IndexCorrupt(f"the lexical index is broken ({' '.join(str(first).split())})")

    def content(self) -> tuple[Checkpoint, dict[int, str]]:
        """Return how far the index has read, and all that it holds there: the words indexed, by key.

        Raises :class:`IndexCorrupt` when the file cannot be read as an index, or does not hold together.
        """
        self.check()
        with self._lock, _told_apart(), transaction(self._connection):
            return self._checkpoint(), dict(self._connection.execute("SELECT rowid, text FROM entries"))

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(*self._connection.execute("SELECT position, anchor FROM checkpoint").fetchone())

    def settle(self) -> None:
        """Copy what the write-ahead log holds into the file. For the background: it waits for the disk."""
        with self._lock, _told_apart():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def words_of(change: FacetText) -> str | None:
    """Return what is indexed of a text: its words, and those of its date, for questions about a day or a month."""
    if change.text is None:
        return None
    text = analysis.indexed(change.text)
    return f"{text}\n{analysis.dated(change.said_at)}" if change.said_at is not None else text


def _connect(database: str) -> Any:
    return DRIVER.connect(database, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True)


@contextmanager
def _told_apart() -> Iterator[None]:
    """Say of what SQLite complains of whether the file is to blame, and to be thrown away, or the machine."""
    try:
        yield
    except DRIVER.DatabaseError as error:
        if error.sqlite_errorcode & _PRIMARY_CODE in _NOT_THE_FILE:
            raise IndexUnavailable(f"the lexical index cannot be used now ({error})") from None
        raise IndexCorrupt(f"the lexical index is broken ({error})") from None

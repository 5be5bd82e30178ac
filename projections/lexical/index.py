"""The full-text index of one user, in a SQLite file of its own.

Each user has a file because BM25 weighs a word by how many texts contain it: in a shared table, one user's texts would
change another user's ranking. The checkpoint lies in the same file and moves in the same transaction.

A search scores a bounded number of texts, however large the memory is. It takes the rarest words of the question first
and drops the common ones that no longer fit; those would have changed the ranking little.
"""

from __future__ import annotations

import math
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
from projections.keys import FACETS, FACETS_MAX, key_of
from projections.lexical import analysis

_FORMAT = 1
_POSTINGS_MAX = 2000
"""How many texts a search scores at most."""
_BUSY_TIMEOUT_S = 10.0
_PAGE_CACHE_KIB = 512
"""A quarter of SQLite's default: many files are open at once, and the operating system caches their pages too."""
_PRIMARY_CODE = 0xFF
_NOT_THE_FILE = frozenset({5, 6, 7, 8, 13, 14})
"""SQLite's codes for a file that is busy, locked, read-only or cannot be opened, a full disk, and no memory left."""
_MADE_WITH = f"format {_FORMAT}, words {analysis.VERSION}"
_SCHEMA = (
    "CREATE TABLE checkpoint (position INTEGER NOT NULL, anchor TEXT NOT NULL, format TEXT NOT NULL)",
    # Keeps its own copy of the texts: without it, SQLite would still count removed texts in the average length.
    f'CREATE VIRTUAL TABLE entries USING fts5(text, tokenize="{analysis.TOKENIZER}")',
)
# Both statements return one row of JSON: the driver releases the interpreter at every row and may wait to get it back.
_COUNTS = """
SELECT json_group_array((SELECT count(*) FROM (SELECT 1 FROM entries WHERE entries MATCH term.value LIMIT ?)))
FROM (SELECT value FROM json_each(?) ORDER BY key) AS term
"""
_SEARCH = f"""
SELECT
  (SELECT position FROM checkpoint),
  json_group_array(json_array(key / {FACETS_MAX}, key % {FACETS_MAX}, -score))
FROM (
  SELECT rowid AS key, min(score) AS score FROM (
    SELECT rowid, bm25(entries) AS score FROM entries WHERE entries MATCH ? ORDER BY rowid DESC LIMIT ?
  ) GROUP BY rowid / {FACETS_MAX} ORDER BY score, rowid LIMIT ?
)
"""  # noqa: S608 - the only value put in is a constant


class LexicalHit(NamedTuple):
    """A memory that matches: the position of its turn, its best facet's BM25 (higher is better), and that facet."""

    turn_position: int
    score: float
    matched: Facet


@dataclass(frozen=True, slots=True)
class LexicalResult:
    """Hits, best first, and the ledger position up to which the searched index had read."""

    hits: list[LexicalHit]
    position: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far an index has read: the position and the hash of the last event."""

    position: int
    anchor: str


class LexicalIndex:
    """Searches and extends one user's index. Safe to call from any thread; calls run one at a time."""

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
        """Return an empty index in memory."""
        return cls(_connect(":memory:"))

    @classmethod
    def on_disk(cls, path: Path, *, create: bool = True) -> LexicalIndex:
        """Open the index at ``path``; make an empty one there if there is none and ``create`` allows it.

        Raises :class:`IndexCorrupt` when the file is not such an index or another version made it, and
        :class:`IndexUnavailable` when it cannot be opened now.
        """
        try:
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IndexUnavailable(f"{path.parent.name} cannot be made ({error.strerror})") from None
        with _as_index_errors(), ExitStack() as on_failure:
            connection = _connect(f"{path.absolute().as_uri()}?mode={'rwc' if create else 'rw'}")
            on_failure.callback(connection.close)
            # A commit reaches the operating system, not the disk: what a power cut takes is read from the ledger again.
            connection.execute("PRAGMA synchronous=NORMAL").close()
            connection.execute("PRAGMA journal_mode=WAL").close()
            connection.execute("PRAGMA wal_autocheckpoint=0").close()
            connection.execute(f"PRAGMA cache_size=-{_PAGE_CACHE_KIB}").close()
            index = cls(connection)
            on_failure.pop_all()
        return index

    def checkpoint(self) -> Checkpoint:
        """Return how far the index has read; position 0 and an empty hash where it is empty."""
        with self._lock, _as_index_errors():
            return self._checkpoint()

    def apply(self, changes: Sequence[FacetText], *, after: int = 0, position: int = 0, anchor: str = "") -> bool:
        """Apply what the events in (``after``, ``position``] say; ``anchor`` is the hash of the event at ``position``.

        Returns False and changes nothing when the checkpoint is not ``after``: another thread or process was faster.
        Raises :class:`IndexCorrupt` when the file cannot be written as an index.
        """
        newest = {key_of(change.turn_position, change.facet): entry_text(change) for change in changes}
        with self._lock, _as_index_errors(), transaction(self._connection):
            if self._checkpoint().position != after:
                return False
            self._connection.executemany("DELETE FROM entries WHERE rowid = ?", [(key,) for key in newest])
            self._connection.executemany(
                "INSERT INTO entries (rowid, text) VALUES (?, ?)",
                [(key, text) for key, text in newest.items() if text is not None],
            )
            self._connection.execute("UPDATE checkpoint SET position = ?, anchor = ?", (position, anchor))
            return True

    def search(self, query: str, count: int) -> LexicalResult:
        """Return the ``count`` memories that best match the words of ``query``.

        The best facet of a memory counts; of equal memories the older comes first. Raises :class:`IndexCorrupt` when
        the file cannot be read as an index.
        """
        with self._lock, _as_index_errors():
            rarest = self._rarest(analysis.terms(query))
            if not rarest:
                return LexicalResult([], self._checkpoint().position)
            # The limit cuts only a single word that is everywhere: then the newest texts stand for all.
            given = (" OR ".join(rarest), _POSTINGS_MAX, count)
            position, found = self._connection.execute(_SEARCH, given).fetchone()
            hits = [LexicalHit(turn, score, FACETS[facet]) for turn, facet, score in from_json(found)]
            if not isinstance(position, int) or not all(_is_hit(hit) for hit in hits):
                raise IndexCorrupt("the lexical index is broken (it finds what it cannot hold)")
        return LexicalResult(hits, position)

    def _rarest(self, terms: Sequence[analysis.Term]) -> list[str]:
        """Return, in FTS5's syntax, the rarest terms that together match few enough texts; at least one if any does."""
        if not terms:
            return []
        asked = [term.as_fts5() for term in terms]
        (counts,) = self._connection.execute(_COUNTS, (_POSTINGS_MAX + 1, to_json(asked).decode())).fetchone()
        chosen: list[str] = []
        room = _POSTINGS_MAX
        for texts, term in sorted(zip(from_json(counts), asked, strict=True), key=lambda counted: counted[0]):
            room -= texts
            if chosen and room < 0:
                break
            if texts:
                chosen.append(term)
        return chosen

    def check(self) -> None:
        """Read the whole file; raise :class:`IndexCorrupt` when it is damaged.

        A search reads little of a file and may silently find less in a damaged one. This takes long: call it in the
        background, and on a connection of its own. SQLite's check reports a sound file as broken on a connection that
        has been reading while another one wrote.
        """
        with self._lock, _as_index_errors():
            (first,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if first != "ok":
            raise IndexCorrupt(f"the lexical index is broken ({' '.join(str(first).split())})")

    def content(self) -> tuple[Checkpoint, dict[int, str]]:
        """Check the file and return its checkpoint and all indexed texts by key.

        Raises :class:`IndexCorrupt` when the file cannot be read as an index or is damaged.
        """
        self.check()
        with self._lock, _as_index_errors():
            self._connection.execute("BEGIN")  # one snapshot for both reads, and nobody who writes has to wait
            try:
                return self._checkpoint(), dict(self._connection.execute("SELECT rowid, text FROM entries"))
            finally:
                self._connection.execute("ROLLBACK")

    def _checkpoint(self) -> Checkpoint:
        read = Checkpoint(*self._connection.execute("SELECT position, anchor FROM checkpoint").fetchone())
        if not isinstance(read.position, int) or not isinstance(read.anchor, str):
            raise IndexCorrupt("the lexical index is broken (its checkpoint)")
        return read

    def settle(self) -> None:
        """Copy the write-ahead log into the file. Call it in the background: it waits for the disk."""
        with self._lock, _as_index_errors():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def entry_text(change: FacetText) -> str | None:
    """Return the text that is indexed: the words, and the date of an exchange, for questions about a day or a month."""
    if change.text is None:
        return None
    text = analysis.indexed(change.text)
    return f"{text}\n{analysis.dated(change.said_at)}" if change.said_at is not None else text


def _is_hit(hit: LexicalHit) -> bool:
    return isinstance(hit.turn_position, int) and isinstance(hit.score, float | int) and math.isfinite(hit.score)


def _connect(database: str) -> Any:
    return DRIVER.connect(database, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True)


@contextmanager
def _as_index_errors() -> Iterator[None]:
    """Turn an error of SQLite into :class:`IndexCorrupt` when the file is to blame, else :class:`IndexUnavailable`."""
    try:
        yield
    except DRIVER.DatabaseError as error:
        # The driver's own errors, such as that of a text that is not UTF-8, have no code and quote the text.
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            raise IndexCorrupt(f"the lexical index is broken ({type(error).__name__})") from None
        if code & _PRIMARY_CODE in _NOT_THE_FILE:
            raise IndexUnavailable(f"the lexical index cannot be used now ({error})") from None
        raise IndexCorrupt(f"the lexical index is broken ({error})") from None
    except MemoryError:
        raise IndexUnavailable("the lexical index cannot be used now (no memory is left)") from None
    except (TypeError, ValueError, LookupError) as error:
        # A row is missing, or holds a value of another type than was written.
        raise IndexCorrupt(f"the lexical index is broken ({type(error).__name__})") from None

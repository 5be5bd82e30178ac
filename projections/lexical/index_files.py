"""Every user's lexical index: opened when it is asked for, checked against the ledger, brought up to it, closed again.

A file that is broken, was made by another version, or is not of this ledger and user is thrown away and made anew from
the ledger. A file that is deleted, by whomever, is made anew at the next question.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from domain.errors import IndexCatchingUp, IndexCorrupt, IndexUnavailable
from domain.identity import file_name
from domain.ledger_reader import LedgerReader
from domain.sqlite import wal_bytes
from projections.lexical.index import LexicalHit, LexicalIndex

log = logging.getLogger(__name__)

LEXICAL_NAME = "lexical.sqlite3"
_EVENTS_PER_READ = 512
_READS_PER_SEARCH_MAX = 4
_OPEN_MAX = 64
"""Files open at a time, at three descriptors each; one more for each search that is under way."""
_SETTLE_BYTES = 1024 * 1024
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LexicalResult:
    """Hits, best first, and the ledger position up to which the index had read."""

    hits: list[LexicalHit]
    position: int


@dataclass
class _Open:
    """An open file: how many are using it, and whether it is to be closed once nobody does."""

    index: LexicalIndex
    inode: int
    users: int = 0
    dropped: bool = False


class LexicalFiles:
    """Search and maintain the lexical indices below ``users_dir``. Safe to call from any thread."""

    def __init__(self, reader: LedgerReader, users_dir: Path, *, open_max: int = _OPEN_MAX) -> None:
        self._reader = reader
        self._users_dir = users_dir
        self._open_max = open_max
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, user_id: str) -> Path:
        """Return where a user's index lies."""
        return self._users_dir / file_name(user_id) / LEXICAL_NAME

    def search(self, user_id: str, query: str, count: int) -> LexicalResult:
        """Return the ``count`` memories of a user that share the most telling words with ``query``.

        Takes in what was recorded since the last search. Raises :class:`IndexCatchingUp` when that is too much to wait
        for (then :meth:`catch_up` is due) and :class:`IndexUnavailable` when the file cannot be used.
        """

        def searched(index: LexicalIndex) -> LexicalResult:
            facets_at = self._reader.facets_at(user_id)
            for _ in range(_READS_PER_SEARCH_MAX):
                position = index.checkpoint().position
                if facets_at <= position or not self._take_in(user_id, index):
                    return LexicalResult(index.search(query, count), index.checkpoint().position)
            raise IndexCatchingUp("the words of this user's memories are being indexed: try again in a moment")

        return self._with_index(user_id, searched)

    def catch_up(self, user_id: str, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Bring a user's index up to the ledger, however far behind it is, or until ``stop`` says so.

        Raises :class:`IndexUnavailable`.
        """

        def caught_up(index: LexicalIndex) -> None:
            while not stop() and self._take_in(user_id, index):
                pass
            if wal_bytes(self.path(user_id)) >= _SETTLE_BYTES:
                index.settle()

        self._with_index(user_id, caught_up)

    def check(self, user_id: str) -> None:
        """Read all of a user's index; one that does not hold together is thrown away, and made anew when asked for.

        It is read beside the searches of that user, which do not wait for it.
        """
        for last in (False, True):
            inode = inode_of(self.path(user_id))
            try:
                with closing(LexicalIndex.on_disk(self.path(user_id), create=False)) as index:
                    index.check()
            except IndexUnavailable:
                return  # gone, or not to be opened now: whoever asks next is told why
            except IndexCorrupt as error:
                if last:
                    log.warning(
                        "a lexical index is built again from the ledger: users/%s: %s", file_name(user_id), error
                    )
                    self._discard(user_id, inode)
            else:
                return

    def discard(self, user_id: str) -> None:
        """Delete a user's index; the next question makes it anew from what the ledger then says."""
        self._discard(user_id, None)

    def _discard(self, user_id: str, inode: int | None) -> None:
        """Delete a user's index, of a given inode only where one is given: it may have been made anew meanwhile."""
        with self._lock:
            if inode is not None and inode_of(self.path(user_id)) != inode:
                return
            self._drop(user_id)
            for part in ("", "-wal", "-shm"):
                path = self.path(user_id)
                path.with_name(path.name + part).unlink(missing_ok=True)

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            for user_id in list(self._open):
                self._drop(user_id)

    def _take_in(self, user_id: str, index: LexicalIndex) -> bool:
        """Take in a bounded batch of what the ledger says of a user; False when there was nothing."""
        after = index.checkpoint().position
        changes, read_to = self._reader.facet_texts(user_id, after, _EVENTS_PER_READ)
        if read_to == after:
            return False
        # Somebody else may have been quicker: the next round looks again from wherever that left the index.
        index.apply(changes, after=after, position=read_to, anchor=self._reader.hash_at(read_to))
        return True

    def _with_index(self, user_id: str, work: Callable[[LexicalIndex], T]) -> T:
        """Do ``work`` with a user's index; where its file turns out to be broken, once more with a new one."""
        try:
            with self._leased(user_id) as index:
                return work(index)
        except IndexCorrupt as error:
            log.warning("a lexical index is built again from the ledger: users/%s: %s", file_name(user_id), error)
            self.discard(user_id)
        try:
            with self._leased(user_id) as index:
                return work(index)
        except IndexCorrupt as error:
            raise IndexUnavailable(str(error)) from None

    @contextmanager
    def _leased(self, user_id: str) -> Iterator[LexicalIndex]:
        """Open a user's index, or take the open one, and keep it from being closed meanwhile."""
        with self._lock:
            self._drop_removed()
            held = self._held(user_id)
            held.users += 1
        try:
            yield held.index
        finally:
            with self._lock:
                held.users -= 1
                if held.dropped and not held.users:
                    held.index.close()

    def _held(self, user_id: str) -> _Open:
        held = self._open.get(user_id)
        if held is not None:
            self._open.move_to_end(user_id)
            return held
        held = self._open[user_id] = self._load(user_id)
        while len(self._open) > self._open_max:
            self._drop(next(iter(self._open)))
        return held

    def _load(self, user_id: str) -> _Open:
        path = self.path(user_id)
        index = LexicalIndex.on_disk(path)
        read = index.checkpoint()
        if read.position and not self._reader.is_anchor(user_id, read.position, read.anchor):
            index.close()
            raise IndexCorrupt("it is not of this ledger and user")
        return _Open(index, inode_of(path))

    def _drop_removed(self) -> None:
        """Close what was removed from the disk: an erased user asks no more, and an open file keeps its bytes there."""
        for user_id in [user_id for user_id, held in self._open.items() if held.inode != inode_of(self.path(user_id))]:
            self._drop(user_id)

    def _drop(self, user_id: str) -> None:
        """Forget an open index, and close it as soon as nobody uses it."""
        held = self._open.pop(user_id, None)
        if held is not None:
            held.dropped = True
            if not held.users:
                held.index.close()


def inode_of(path: Path) -> int:
    """Return what tells a file from one that took its place, 0 where there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0

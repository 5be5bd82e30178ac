"""Opens users' lexical indices on demand, checks them against the ledger, brings them up to it, and closes them again.

A file that is broken, from another version, or of another ledger or user is deleted and built again from the ledger. A
file that somebody deletes is built again by the next search.
"""

from __future__ import annotations

import logging
import shutil
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
from projections.lexical.index import LexicalIndex, LexicalResult

log = logging.getLogger(__name__)

LEXICAL_NAME = "lexical.sqlite3"
_EVENTS_PER_READ = 512
_READS_PER_SEARCH_MAX = 4
_OPEN_MAX = 64
"""Files open at a time, at three descriptors each; a search in progress may keep one more open."""
_SETTLE_BYTES = 1024 * 1024
T = TypeVar("T")


@dataclass
class _Open:
    """An open file, how many calls use it, and whether to close it when none does."""

    index: LexicalIndex
    path: Path
    inode: int
    users: int = 0
    dropped: bool = False


class LexicalFiles:
    """Searches and maintains the lexical indices below ``users_dir``. Safe to call from any thread."""

    def __init__(self, reader: LedgerReader, users_dir: Path, *, open_max: int = _OPEN_MAX) -> None:
        self._reader = reader
        self._users_dir = users_dir
        self._open_max = open_max
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, user_id: str) -> Path:
        """Return the path of a user's index."""
        return self._users_dir / file_name(user_id) / LEXICAL_NAME

    def search(self, user_id: str, query: str, count: int) -> LexicalResult:
        """Return the ``count`` memories of a user that best match the words of ``query``.

        Applies what was recorded since the last search. Raises :class:`IndexCatchingUp` when that is too much to wait
        for (then call :meth:`catch_up`) and :class:`IndexUnavailable` when the file cannot be used.
        """

        def searched(index: LexicalIndex) -> LexicalResult:
            head = self._reader.facets_at(user_id)
            if not any(self._apply_batch(user_id, index, head) for _ in range(_READS_PER_SEARCH_MAX)):
                raise IndexCatchingUp("the words of this user's memories are being indexed: try again in a moment")
            return index.search(query, count)

        return self._with_index(user_id, searched)

    def catch_up(self, user_id: str, *, stop: Callable[[], bool] = lambda: False) -> None:
        """Bring a user's index up to the ledger, however far behind it is, or until ``stop`` returns True.

        Raises :class:`IndexUnavailable`.
        """

        def caught_up(index: LexicalIndex) -> None:
            head = self._reader.facets_at(user_id)
            while not stop() and not self._apply_batch(user_id, index, head):
                pass
            if wal_bytes(self.path(user_id)) >= _SETTLE_BYTES:
                index.settle()

        self._with_index(user_id, caught_up)

    def check(self, user_id: str) -> None:
        """Read a user's whole index; delete it when it is damaged, so that the next search builds it again.

        Searches of that user go on meanwhile.
        """
        for last in (False, True):
            inode = inode_of(self.path(user_id))
            try:
                with closing(LexicalIndex.on_disk(self.path(user_id), create=False)) as index:
                    index.check()
            except IndexUnavailable:
                return  # gone, or it cannot be opened now: the next search says why
            except IndexCorrupt as error:
                if last:
                    _log_rebuild(user_id, error)
                    self._discard(user_id, inode)
            else:
                return

    def discard(self, user_id: str) -> None:
        """Delete a user's index; the next search builds it again from the ledger."""
        self._discard(user_id, None)

    def _discard(self, user_id: str, inode: int | None) -> None:
        """Delete a user's index; with ``inode`` only if it is still that file and was not built again meanwhile."""
        with self._lock:
            if inode is not None and inode_of(self.path(user_id)) != inode:
                return
            self._drop(user_id)
            for part in ("", "-wal", "-shm"):
                path = self.path(user_id)
                _remove(path.with_name(path.name + part))

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            for user_id in list(self._open):
                self._drop(user_id)

    def _apply_batch(self, user_id: str, index: LexicalIndex, head: int) -> bool:
        """Apply a bounded batch of the events of a user; True when the index has all of them up to ``head``."""
        after = index.checkpoint().position
        if after >= head:
            return True
        changes, position = self._reader.facet_texts(user_id, after, _EVENTS_PER_READ)
        if position == after:
            return True
        applied = index.apply(changes, after=after, position=position, anchor=self._reader.hash_at(position))
        return applied and position >= head

    def _with_index(self, user_id: str, work: Callable[[LexicalIndex], T]) -> T:
        """Do ``work`` with a user's index; if its file turns out to be broken, do it again with a new one."""
        try:
            with self._leased(user_id) as index:
                return work(index)
        except IndexCorrupt as error:
            _log_rebuild(user_id, error)
            self.discard(user_id)
        try:
            with self._leased(user_id) as index:
                return work(index)
        except IndexCorrupt as error:
            raise IndexUnavailable(str(error)) from None

    @contextmanager
    def _leased(self, user_id: str) -> Iterator[LexicalIndex]:
        """Open a user's index, or take the open one, and keep it open meanwhile."""
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
        if path.is_dir():
            raise IndexCorrupt("it is a folder")
        index = LexicalIndex.on_disk(path)
        read = index.checkpoint()
        if read.position and not self._reader.is_anchor(user_id, read.position, read.anchor):
            index.close()
            raise IndexCorrupt("it is not of this ledger and user")
        return _Open(index, path, inode_of(path))

    def _drop_removed(self) -> None:
        """Close files that were removed: an erased user never asks again, and an open file keeps its bytes on disk."""
        for user_id in [user_id for user_id, held in self._open.items() if held.inode != inode_of(held.path)]:
            self._drop(user_id)

    def _drop(self, user_id: str) -> None:
        """Forget an open index, and close it as soon as no call uses it."""
        held = self._open.pop(user_id, None)
        if held is not None:
            held.dropped = True
            if not held.users:
                held.index.close()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def inode_of(path: Path) -> int:
    """Return what tells a file from one that replaced it, 0 if there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0


def _log_rebuild(user_id: str, error: IndexCorrupt) -> None:
    log.warning("a lexical index is built again from the ledger: users/%s: %s", file_name(user_id), error)

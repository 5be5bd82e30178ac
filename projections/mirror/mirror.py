"""The ledger as plain files: one JSONL file for each conversation, to read, search and copy.

There is no checkpoint beside the files: the last line of a file says how far it goes
(:mod:`projections.mirror.event_file`). The first call notes the head of the ledger. The next calls go through all
conversations and complete every file that is not at the head of its conversation. From then on the mirror appends what
the ledger gains. A file that is missing, cut at either end, or of another ledger is repaired by the next event of its
conversation or at the next start. A line changed in the middle is not noticed, since a start does not read whole files.

The first start after the machine's own looks for holes too. Of an append that a power cut interrupted, a later part may
be on the disk and an earlier one not: there are zeros then, which no line of JSON holds.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain as joined
from pathlib import Path

from domain.identity import SYSTEM_ID, StreamId, file_name
from domain.ledger_reader import LedgerReader
from domain.reader import StoredEvent
from projections.durable import boot_id, fsync_path, write_durably
from projections.mirror import event_file
from projections.mirror.event_file import MirrorLineCorrupt, Tail
from projections.threads import in_background

_BOOT_FILE = "mirror.boot"
_BATCH_EVENTS = 200
_PAGE_CONVERSATIONS = 200
_PAGE_EVENTS = 100


def mirror_path(storage_dir: Path, stream: StreamId) -> Path:
    """Return the file of a conversation, of a user's own stream, or of the system stream."""
    if stream.user_id == SYSTEM_ID:
        folder, own = storage_dir / "system", "events.jsonl"
    else:
        folder, own = storage_dir / "users" / file_name(stream.user_id), "user.jsonl"
    if stream.conversation_id == SYSTEM_ID:
        return folder / own
    return folder / "conversations" / f"{file_name(stream.conversation_id)}.jsonl"


def mirror_files(storage_dir: Path) -> Iterator[Path]:
    """Yield every file in the places of the mirror, user by user."""
    yield from sorted((storage_dir / "system").glob("*"))
    for user in sorted((storage_dir / "users").glob("*")):
        yield from sorted(user.glob("*.jsonl*"))
        yield from sorted((user / "conversations").glob("*"))


class Mirror:
    """Keeps the files under ``storage_dir`` equal to the ledger; see :class:`projections.follower.Projection`.

    Its calls may be cancelled at any point. A lock file keeps two writers apart: two processes, or a cancelled call
    that still finishes its batch.
    """

    name = "mirror"

    def __init__(self, reader: LedgerReader, storage_dir: Path) -> None:
        self._reader = reader
        self._storage_dir = storage_dir
        self._position: int | None = None
        self._reconciled: StreamId | None = None
        self._reconciling = True
        self._boot = boot_id()
        self._after_power_cut = self._boot is None or self._boot != self._boot_before()

    @property
    def checkpoint(self) -> int:
        """The position up to which every conversation is mirrored; 0 until the first pass over them has ended."""
        return self._position if self._position is not None and not self._reconciling else 0

    def path(self, stream: StreamId) -> Path:
        """Return the file of a conversation, of a user's own stream, or of the system stream."""
        return mirror_path(self._storage_dir, stream)

    def files_of(self, user_id: str) -> list[Path]:
        """Return all files of a user's folder, including the indices."""
        return [path for path in self.folder(user_id).rglob("*") if path.is_file()]

    def replace_user(self, user_id: str, pseudonym: str, name: str) -> int:
        """Remove a user's whole folder and mirror what the ledger has now; return how many files were removed.

        For an erasure, which ``name`` identifies: what an interrupted call left behind is removed too.
        """
        with self._locked():
            folder, removed = self.folder(user_id), self._storage_dir / "users" / f"~{name}"
            files = len(self.files_of(user_id))
            if removed.exists():
                shutil.rmtree(removed)
            if folder.exists():
                # Moved away first: a thread that is about to write an index there finds no folder.
                folder.replace(removed)
                shutil.rmtree(removed)
                fsync_path(folder.parent)
            for stream in (*self._reader.streams_of(pseudonym), *self._reader.streams_of(user_id)):
                self._rewrite(stream)
        return files

    def rewrite(self, streams: Iterable[StreamId]) -> None:
        """Write the files of some conversations anew, because an erasure changed what the ledger has of them."""
        with self._locked():
            for stream in streams:
                self._rewrite(stream)

    def folder(self, user_id: str) -> Path:
        """Return the folder of a user, which also holds the indices."""
        return self._storage_dir / "users" / file_name(user_id)

    async def advance(self) -> bool:
        """Mirror one page of conversations or one batch of events; True when there may be more."""
        if self._position is None:
            # Noted before the pass: what is appended during it is looked at twice rather than never.
            self._position = await in_background(self._reader.head_position)
        if self._reconciling:
            self._reconciled, more = await in_background(self._reconcile, self._reconciled)
            if not more:
                await in_background(self._note_boot)
            self._reconciling = more
            return True
        position = await in_background(self._follow, self._position)
        moved, self._position = position > self._position, position
        return moved

    async def finish(self, patience_s: float) -> None:
        """Mirror what was committed since the last call, for at most ``patience_s``, because the service ends.

        Where the first pass has not ended, the next start has to go through all conversations anyway.
        """
        give_up_s = time.monotonic() + patience_s
        while not self._reconciling and time.monotonic() < give_up_s:
            if not await self.advance():
                return

    def complete(self) -> None:
        """Bring the file of every conversation up to the ledger; for a command, where no follower runs."""
        after, more = None, True
        while more:
            after, more = self._reconcile(after)
        self._note_boot()

    def _reconcile(self, after: StreamId | None) -> tuple[StreamId | None, bool]:
        """Complete a page of conversations after ``after``; return the last one and whether there may be more."""
        with self._locked():
            heads = self._reader.heads_after(after, _PAGE_CONVERSATIONS)
            for head in heads:
                stream = StreamId(head.user_id, head.conversation_id)
                path = self.path(stream)
                try:
                    tail = event_file.read_tail(path)
                except MirrorLineCorrupt:
                    self._rewrite(stream)
                    continue
                broken = tail is not None and (
                    not event_file.begins_at_the_beginning(path)
                    or (self._after_power_cut and event_file.has_hole(path))
                )
                if broken:
                    self._rewrite(stream)
                elif tail != Tail(head.version, head.hash):
                    self._catch_up(stream, tail)
        if not heads:
            return after, False
        return StreamId(heads[-1].user_id, heads[-1].conversation_id), len(heads) == _PAGE_CONVERSATIONS

    def _boot_before(self) -> str | None:
        """Return the start of the machine in which the files were last looked through."""
        with contextlib.suppress(FileNotFoundError):
            return (self._storage_dir / _BOOT_FILE).read_text(encoding="ascii", errors="replace")
        return None

    def _note_boot(self) -> None:
        if self._after_power_cut and self._boot is not None:
            write_durably(self._storage_dir / _BOOT_FILE, self._boot.encode("ascii"))
        self._after_power_cut = False

    def _follow(self, position: int) -> int:
        """Mirror a batch of events after ``position``; return the position of the last one."""
        with self._locked():
            batch = self._reader.stored_after(position, _BATCH_EVENTS)
            by_stream: dict[StreamId, list[StoredEvent]] = {}
            for stored in batch:
                by_stream.setdefault(StreamId(stored.user_id, stored.conversation_id), []).append(stored)
            for stream, events in by_stream.items():
                self._continue(stream, events)
        return batch[-1].position if batch else position

    def _continue(self, stream: StreamId, events: Sequence[StoredEvent]) -> None:
        """Append ``events`` if they follow the last line of the file; otherwise complete the file from the ledger."""
        path = self.path(stream)
        try:
            tail = event_file.read_tail(path)
        except MirrorLineCorrupt:
            self._rewrite(stream)
            return
        if events[0].version == (tail.version if tail is not None else 0) + 1:
            event_file.append(path, events)
        else:
            self._catch_up(stream, tail)

    def _catch_up(self, stream: StreamId, tail: Tail | None) -> None:
        """Continue a file from the ledger, or write it again where it differs from the ledger."""
        if tail is None:
            event_file.append(self.path(stream), self._events(stream, 0))
            return
        events = self._events(stream, tail.version - 1)
        last = next(events, None)
        if last is None or (last.version, last.hash) != (tail.version, tail.hash):
            self._rewrite(stream)
            return
        following = next(events, None)
        if following is not None:
            event_file.append(self.path(stream), joined([following], events))

    def _rewrite(self, stream: StreamId) -> None:
        event_file.replace(self.path(stream), self._events(stream, 0))

    def _events(self, stream: StreamId, after_version: int) -> Iterator[StoredEvent]:
        while page := self._reader.stored_in_stream(stream, after_version, _PAGE_EVENTS):
            yield from page
            after_version = page[-1].version

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._storage_dir / "mirror.lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

"""Compares every line of the mirror with its event in the ledger.

Lines are read before their events, and events are committed before they are mirrored. So a mirror that is written
meanwhile never shows more than the ledger, but may show less. While a service runs, what a file lacks is looked for
again: a mirror that follows brings it, and events newer than all that is mirrored count as a lag.

Where a line and its event differ, their own hashes tell which of the two is what was written. Nobody is told to delete
a file that may be the only good copy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import BinaryIO

from domain.identity import StreamId
from domain.ledger_reader import LedgerReader
from domain.reader import StoredEvent
from domain.verification import Finding, is_sound
from projections.mirror.event_file import MirrorLineCorrupt, event_of, is_line_of
from projections.mirror.mirror import mirror_files, mirror_path

_PAGE_CONVERSATIONS = 200
_PAGE_LINES = 200
_POLL_S = 0.2
_PATIENCE_S = 3.0
"""How long nothing may arrive in any file that lacks events before that is more than a lag."""
_WAIT_S_MAX = 60.0


@dataclass
class MirrorState:
    """What was compared: files and lines, the last position seen in any, and events not mirrored yet.

    ``damaged`` counts the files that are not what was written, or lack events that others have passed.
    """

    files: int = 0
    lines: int = 0
    position: int = 0
    behind: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class _Missing:
    """Events after the last line of a file: how many, and the position of the first."""

    stream: StreamId
    path: Path
    line: int
    events: int
    position: int


def verified_mirror(
    reader: LedgerReader, storage_dir: Path, state: MirrorState, *, head: int, running: Callable[[], bool]
) -> Iterator[Finding]:
    """Yield what is wrong with the mirror, file by file, and count in ``state`` what was compared.

    Events after position ``head`` are not missed. ``running`` tells whether a service is mirroring now. Keeps one path
    per conversation in memory.
    """
    if next(mirror_files(storage_dir), None) is None and not running():
        if head:
            yield Finding(
                "mirror",
                f"there is no mirror, so none of the {head} events is in a second place: the next start of the service "
                "makes it; to check a copy of a ledger alone, run `opm verify FILE`",
            )
        return
    check = _Check(reader, storage_dir, state, head, running())
    known: set[Path] = set()
    for stream in _streams(reader):
        path = mirror_path(storage_dir, stream)
        known.add(path)
        yield from check.compared(stream, path)
    for path in mirror_files(storage_dir):
        # A conversation that began after the heads were read may have a file by now.
        if path not in known and not (running() and _is_written_now(reader, storage_dir, path)):
            yield Finding("mirror", _of_no_conversation(storage_dir, path), path=check.shown(path))
    yield from check.missing(running)


class _Check:
    """Compares files with their conversations, and keeps what is missing at their ends until all were compared."""

    def __init__(self, reader: LedgerReader, storage_dir: Path, state: MirrorState, head: int, running: bool) -> None:
        self._reader = reader
        self._storage_dir = storage_dir
        self._state = state
        self._head = head
        self._running = running
        self._missing: list[_Missing] = []

    def shown(self, path: Path) -> str:
        return str(path.relative_to(self._storage_dir))

    def compared(self, stream: StreamId, path: Path) -> Iterator[Finding]:
        """Yield the first line of a file that does not match its event: all later ones may be shifted."""
        version = lines_read = 0
        try:
            with path.open("rb") as file:
                for lines in _pages(file, whole_only=self._running):
                    events = self._reader.stored_in_stream(stream, version, len(lines))
                    for line, event in zip_longest(lines, events):
                        differs = _difference(self._storage_dir, path, line, event)
                        if differs is not None:
                            what, damaged = differs
                            self._state.damaged += damaged
                            position = event.position if event is not None else None
                            yield Finding("mirror", what, position, self.shown(path), version + 1)
                            return
                        version += 1
                        lines_read += 1
                        self._state.position = max(self._state.position, event.position)
                self._state.files += 1
                self._state.lines += lines_read
        except FileNotFoundError:
            pass
        except OSError as error:
            self._state.damaged += 1
            yield Finding("mirror", f"the file cannot be read ({error.strerror})", path=self.shown(path))
            return
        self._note_missing(stream, path, version)

    def _note_missing(self, stream: StreamId, path: Path, version: int) -> None:
        events, first = 0, 0
        after = version
        while page := self._reader.stored_in_stream(stream, after, _PAGE_LINES):
            within = [event.position for event in page if event.position <= self._head]
            first = first or (within[0] if within else 0)
            events += len(within)
            after = page[-1].version
        if events:
            self._missing.append(_Missing(stream, path, version + 1, events, first))

    def missing(self, running: Callable[[], bool]) -> Iterator[Finding]:
        """Yield what is missing at the ends of files, except what a running service has yet to mirror."""
        passed = self._state.position
        if running():
            yield from self._waited(passed, running)
        for gap in self._missing:
            if self._running and gap.position > passed:
                self._state.behind += gap.events
            else:
                self._state.damaged += 1
                some = f"{gap.events} event{'s' * (gap.events > 1)} of the ledger, from position {gap.position} on"
                what = f"{some}: missing here, the next start of the service adds them"
                yield Finding("mirror", what, gap.position, self.shown(gap.path), gap.line)

    def _waited(self, passed: int, running: Callable[[], bool]) -> Iterator[Finding]:
        """Compare files that lack events up to ``passed`` again, as long as some of these still arrive."""
        begun = progress = time.monotonic()
        while running() and any(gap.position <= passed for gap in self._missing):
            if time.monotonic() - progress > _PATIENCE_S or time.monotonic() - begun > _WAIT_S_MAX:
                return
            time.sleep(_POLL_S)
            before, self._missing = self._missing, []
            for gap in before:
                if gap.position > passed:
                    self._missing.append(gap)
                    continue
                self._state.files, self._state.lines = self._without(gap)
                yield from self.compared(gap.stream, gap.path)
            if self._missing != before:
                progress = time.monotonic()

    def _without(self, gap: _Missing) -> tuple[int, int]:
        """Return the counts of files and lines as if this file had not been compared."""
        lines = gap.line - 1
        return self._state.files - (lines > 0), self._state.lines - lines


def _difference(
    storage_dir: Path, path: Path, line: bytes | None, event: StoredEvent | None
) -> tuple[str, bool] | None:
    """Return how a line differs from its event, and whether the line is at fault; None where it does not differ."""
    assert line is not None, "no more events are read than there are lines"
    if event is not None and _is_line_of(event, line):
        return None
    if not line.endswith(b"\n"):
        return "the file ends within this line: the next start of the service mends it", True
    if _is_sound_line(storage_dir, path, line):
        if event is None:
            return (
                "the line is as it was written, and the ledger does not have its event: keep the file, and do not start"
                " the service, which would cut it"
            ), False
        if not is_sound(event):
            return "the line is as it was written, and its event in the ledger is not: keep the file", False
        return (
            "the line and its event differ, and each is sound by itself: keep both until it is clear which is true"
        ), True
    if event is None:
        return "the line is no event of this conversation", True
    if not is_sound(event):
        return "neither the line nor its event in the ledger is as it was written: keep both", True
    return "the line is not what its event says: delete the file, and the service writes it anew", True


def _is_line_of(event: StoredEvent, line: bytes) -> bool:
    try:
        return is_line_of(event, line)
    except (ValueError, TypeError, AssertionError, AttributeError, RecursionError):
        return False  # the payload is damaged: there is no line of it


def _is_sound_line(storage_dir: Path, path: Path, line: bytes) -> bool:
    """Tell whether a line gives back an event of this file that agrees with its own hashes."""
    try:
        event = event_of(line.decode())
    except (MirrorLineCorrupt, UnicodeDecodeError):
        return False
    return is_sound(event) and mirror_path(storage_dir, StreamId(event.user_id, event.conversation_id)) == path


def _of_no_conversation(storage_dir: Path, path: Path) -> str:
    try:
        with path.open("rb") as file:
            sound = _is_sound_line(storage_dir, path, file.readline())
    except OSError:
        sound = False
    if sound:
        return "the ledger has no event of this conversation, whose file is as it was written: keep the file"
    return "no conversation of the ledger has this file: delete it"


def _pages(file: BinaryIO, *, whole_only: bool) -> Iterator[list[bytes]]:
    """Yield the lines of a file, some at a time; with ``whole_only`` up to the first that is not complete yet."""
    while lines := list(islice(file, _PAGE_LINES)):
        cut = [number for number, line in enumerate(lines) if not line.endswith(b"\n")]
        if cut and whole_only:
            # A mirror is about to complete this line, or cuts it off at its next start. What follows in a later read
            # would be the rest of it.
            if lines[: cut[0]]:
                yield lines[: cut[0]]
            return
        yield lines


def _streams(reader: LedgerReader) -> Iterator[StreamId]:
    stream: StreamId | None = None
    while heads := reader.heads_after(stream, _PAGE_CONVERSATIONS):
        for head in heads:
            stream = StreamId(head.user_id, head.conversation_id)
            yield stream


def _is_written_now(reader: LedgerReader, storage_dir: Path, path: Path) -> bool:
    written = path.with_suffix("") if path.suffix == ".new" else path
    return any(mirror_path(storage_dir, stream) == written for stream in _streams(reader))

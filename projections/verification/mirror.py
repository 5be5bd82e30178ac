"""Compares every line of the mirror with its event in the ledger.

Lines are read before their events, and events are committed before they are mirrored. So a mirror that is written
meanwhile never shows more than the ledger, but may show less: while a service runs, events after the last one that any
file holds count as not mirrored yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path
from typing import BinaryIO

from domain.identity import StreamId
from domain.ledger_reader import LedgerReader
from domain.reader import StoredEvent
from domain.verification import Finding
from projections.mirror.event_file import line_of
from projections.mirror.mirror import mirror_files, mirror_path

_PAGE_CONVERSATIONS = 200
_PAGE_LINES = 200


@dataclass
class MirrorState:
    """How far the mirror goes: files and lines compared, the last position seen, and events not mirrored yet."""

    files: int = 0
    lines: int = 0
    position: int = 0
    behind: int = 0


@dataclass(frozen=True, slots=True)
class _Missing:
    """Events after the last line of a file: how many, and the position of the first."""

    path: str
    line: int
    events: int
    position: int


def verified_mirror(reader: LedgerReader, storage_dir: Path, state: MirrorState, *, running: bool) -> Iterator[Finding]:
    """Yield what is wrong with the mirror, file by file, and count in ``state`` what was compared.

    ``running`` says that a service is mirroring now. Keeps one path per conversation in memory.
    """
    check = _Check(reader, storage_dir, state, running)
    known: set[Path] = set()
    for stream in _streams(reader):
        path = mirror_path(storage_dir, stream)
        known.add(path)
        yield from check.compared(stream, path)
    for path in mirror_files(storage_dir):
        # A conversation that began after the heads were read may have a file by now.
        if path not in known and not (running and _is_written_now(reader, storage_dir, path)):
            what = "no conversation of the ledger has this file: delete it"
            yield Finding("mirror", what, path=check.shown(path))
    yield from check.missing()


class _Check:
    """Compares files with their conversations, and keeps what is missing at their ends until all were compared."""

    def __init__(self, reader: LedgerReader, storage_dir: Path, state: MirrorState, running: bool) -> None:
        self._reader = reader
        self._storage_dir = storage_dir
        self._state = state
        self._running = running
        self._missing: list[_Missing] = []

    def shown(self, path: Path) -> str:
        return str(path.relative_to(self._storage_dir))

    def compared(self, stream: StreamId, path: Path) -> Iterator[Finding]:
        """Yield the first line of a file that does not match its event: all later ones may be shifted."""
        version = 0
        try:
            with path.open("rb") as file:
                self._state.files += 1
                for lines in _pages(file):
                    events = self._reader.stored_in_stream(stream, version, len(lines))
                    for line, event in zip_longest(lines, events):
                        what = _difference(line, event)
                        if what is not None and self._running and not line.endswith(b"\n"):
                            break  # the mirror is about to complete this line, or cuts it off at its next start
                        if what is not None:
                            position = event.position if event is not None else None
                            yield Finding("mirror", what, position, self.shown(path), version + 1)
                            return
                        version += 1
                        self._state.lines += 1
                        self._state.position = max(self._state.position, event.position)
        except FileNotFoundError:
            pass
        except OSError as error:
            yield Finding("mirror", f"the file cannot be read ({error.strerror})", path=self.shown(path))
            return
        self._note_missing(stream, path, version)

    def _note_missing(self, stream: StreamId, path: Path, version: int) -> None:
        events, first = 0, 0
        while page := self._reader.stored_in_stream(stream, version + events, _PAGE_LINES):
            first = first or page[0].position
            events += len(page)
        if events:
            self._missing.append(_Missing(self.shown(path), version + 1, events, first))

    def missing(self) -> Iterator[Finding]:
        """Yield what is missing at the ends of files, except what a running service has yet to mirror."""
        for gap in self._missing:
            if self._running and gap.position > self._state.position:
                self._state.behind += gap.events
            else:
                some = f"{gap.events} event{'s' * (gap.events > 1)} of the ledger, from position {gap.position} on"
                what = f"{some}: missing here, the next start of the service adds them"
                yield Finding("mirror", what, gap.position, gap.path, gap.line)


def _difference(line: bytes, event: StoredEvent | None) -> str | None:
    if event is None:
        return "the line is no event of this conversation"
    if line == f"{line_of(event)}\n".encode():
        return None
    if not line.endswith(b"\n"):
        return "the file ends within this line: the next start of the service mends it"
    return "the line is not what its event says: delete the file, and the service writes it anew"


def _pages(file: BinaryIO) -> Iterator[list[bytes]]:
    while lines := list(islice(file, _PAGE_LINES)):
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

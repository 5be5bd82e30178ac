"""One conversation's events as a JSONL file: a line per event, only ever continued, never patched.

The file is its own checkpoint: the version in its last complete line says how far it goes. What a crash tore is cut
off before anything else, and a file that does not go on where the ledger does is written anew beside the old one and
put in its place by a rename. A line gives back the stored event exactly, hashes included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from domain import chain
from domain.errors import OpmError, shown
from domain.reader import StoredEvent
from domain.verification import is_blanked

_TAIL_BLOCK_BYTES = 8 * 1024


class MirrorLineCorrupt(OpmError):
    """A line of the mirror does not give back the event it was written from."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The last event of a file: what the next one has to follow."""

    version: int
    hash: str


def line_of(stored: StoredEvent) -> str:
    """Return ``{"event": every column but payload, "ts": ..., **payload}`` as one line of JSON, without its newline.

    ``ts`` is the payload's own where it has one, else the time of recording.
    """
    columns = asdict(stored)
    payload = json.loads(columns.pop("payload"))
    assert "event" not in payload, f"{stored.type} has a field 'event', which a mirror line keeps for the envelope"
    return json.dumps({"event": columns, "ts": stored.recorded_at, **payload}, ensure_ascii=False, allow_nan=False)


def event_of(line: str) -> StoredEvent:
    """Return the event a line was written from, its payload in the very text that was hashed.

    Raises :class:`MirrorLineCorrupt` when the line is none, or was changed.
    """
    try:
        fields = json.loads(line)
        columns = fields.pop("event")
        stored = StoredEvent(**columns, payload=chain.canonical(fields))
        if "ts" in fields and stored.payload_hash == chain.payload_hash(stored.salt, stored.payload):
            return stored
        # The time of recording stands in for a ``ts`` that the payload does not have; the hash tells which it is.
        stand_in = fields.pop("ts")
        stored = StoredEvent(**columns, payload=chain.canonical(fields))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise MirrorLineCorrupt(f"not a line of the mirror ({len(line)} characters): delete the file") from None
    # Of a blanked event the salt is gone too: that nothing but its envelope is left is all that can be checked.
    intact = is_blanked(stored) or stored.payload_hash == chain.payload_hash(stored.salt, stored.payload)
    if not intact or stand_in != stored.recorded_at:
        raise MirrorLineCorrupt(f"event {shown(columns.get('event_id'))} was changed in the mirror: delete the file")
    return stored


def begins_at_the_beginning(path: Path) -> bool:
    """Tell whether the first line of a file is a conversation's first event."""
    with path.open("rb") as file:
        try:
            return bool(json.loads(file.readline())["event"]["version"] == 1)
        except (ValueError, KeyError, TypeError):
            return False


def read_tail(path: Path) -> Tail | None:
    """Return the last event of a file, cutting off a line that a crash tore; None when there is none.

    Reads the last line alone, however long the file. Raises :class:`MirrorLineCorrupt` when that is not one of ours.
    """
    try:
        file = path.open("r+b")
    except FileNotFoundError:
        return None
    with file:
        size = file.seek(0, os.SEEK_END)
        end = _last_newline(file, size) + 1
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
        if end == 0:
            return None
        start = _last_newline(file, end - 1) + 1
        file.seek(start)
        line = file.read(end - start)
    try:
        columns = json.loads(line)["event"]
        return Tail(version=int(columns["version"]), hash=str(columns["hash"]))
    except (ValueError, KeyError, TypeError):
        raise MirrorLineCorrupt(f"{shown(path.name)} ends in a line that is none of the mirror's") from None


def append(path: Path, events: Iterable[StoredEvent]) -> None:
    """Write events behind what is there, creating the file if need be; on the disk when this returns."""
    created = not path.exists()
    if created:
        make_folder(path.parent)
    with path.open("ab") as file:
        _write(file, events)
    if created:
        _sync_folder(path.parent)


def replace(path: Path, events: Iterable[StoredEvent]) -> None:
    """Put a file with these events in the place of whatever is there; on the disk when this returns."""
    make_folder(path.parent)
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        _write(file, events)
    new.replace(path)
    _sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Create a folder and those above it, each entered durably in its parent."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _sync_folder(path.parent)


def _write(file: BinaryIO, events: Iterable[StoredEvent]) -> None:
    file.writelines(f"{line_of(event)}\n".encode() for event in events)
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    with _folder(path) as descriptor:
        os.fsync(descriptor)


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _last_newline(file: BinaryIO, before: int) -> int:
    """Return the offset of the last newline in front of ``before``, -1 when there is none."""
    while before > 0:
        start = max(0, before - _TAIL_BLOCK_BYTES)
        file.seek(start)
        found = file.read(before - start).rfind(b"\n")
        if found >= 0:
            return start + found
        before = start
    return -1

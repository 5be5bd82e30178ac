"""One conversation's events as a JSONL file with a line for each event.

Lines are only appended. The file is its own checkpoint: the version in the last complete line says how far it goes. A
line that a crash left incomplete is cut off first. A file that does not match the ledger is written again beside the
old one, which a rename then replaces. A line gives back the stored event exactly, hashes included.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO

import msgspec

from domain import chain
from domain.errors import OpmError, shown
from domain.reader import StoredEvent, odd_column
from domain.verification import is_blanked
from projections.durable import fsync_path

_HOLE_BLOCK_BYTES = 1 << 20
_TAIL_BLOCK_BYTES = 8 * 1024
_ENVELOPE = tuple(field.name for field in fields(StoredEvent) if field.name != "payload")
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


class MirrorLineCorrupt(OpmError):
    """A line of the mirror does not give back the event from which it was written; ``why`` says so in a few words."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"{why}: delete the file")


@dataclass(frozen=True, slots=True)
class Tail:
    """The last event of a file, which the next one must follow."""

    version: int
    hash: str


def line_of(stored: StoredEvent) -> str:
    """Return ``{"event": every column but payload, "ts": ..., **payload}`` as one line of JSON, without a newline.

    ``ts`` is the payload's own if it has one, else the time of recording. A payload that is damaged stands as it is
    under ``damaged``, and the line gives back no event.
    """
    envelope = {name: getattr(stored, name) for name in _ENVELOPE}
    try:
        payload = json.loads(stored.payload)
        payload = payload if isinstance(payload, dict) and "event" not in payload else {"damaged": stored.payload}
    except (ValueError, RecursionError):
        payload = {"damaged": stored.payload}
    return _ENCODER.encode({"event": envelope, "ts": stored.recorded_at, **payload})


def is_line_of(stored: StoredEvent, line: bytes) -> bool:
    """Tell whether ``line`` is, byte for byte, the line of an event. Raises as :func:`line_of` does.

    Of most events the payload's stored text only needs its blanks, which is far quicker than to decode and encode it.
    """
    payload = msgspec.json.format(stored.payload, indent=0).encode()
    if payload != b"{}" and b'"ts": ' not in payload:
        envelope = _ENCODER.encode({name: getattr(stored, name) for name in _ENVELOPE}).encode()
        quick = b"".join(
            (b'{"event": ', envelope, b', "ts": "', stored.recorded_at.encode(), b'", ', payload[1:], b"\n")
        )
        if line == quick:
            return True
    return line == f"{line_of(stored)}\n".encode()


def event_of(line: str) -> StoredEvent:
    """Return the event from which a line was written, its payload in exactly the text that was hashed.

    Raises :class:`MirrorLineCorrupt` when the line is not one of the mirror's or was changed.
    """
    try:
        payload = json.loads(line)
        envelope = payload.pop("event")
        stored = StoredEvent(**envelope, payload=chain.canonical(payload))
        if (odd := odd_column(stored)) is not None:
            raise MirrorLineCorrupt(f"the event's {odd} is {shown(getattr(stored, odd))}, which no event has there")
        if "ts" in payload and stored.payload_hash == chain.payload_hash(stored.salt, stored.payload):
            return stored
        # A payload without ``ts`` was given the time of recording; its hash tells.
        added_ts = payload.pop("ts")
        stored = StoredEvent(**envelope, payload=chain.canonical(payload))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise MirrorLineCorrupt(f"not a line of the mirror ({len(line)} characters)") from None
    # A blanked event has lost its salt too: all that can be checked is that only its envelope is left.
    intact = is_blanked(stored) or stored.payload_hash == chain.payload_hash(stored.salt, stored.payload)
    if not intact or added_ts != stored.recorded_at:
        raise MirrorLineCorrupt(f"event {shown(envelope.get('event_id'))} was changed in the mirror")
    return stored


def begins_at_the_beginning(path: Path) -> bool:
    """Tell whether the first line of a file is the first event of a conversation."""
    with path.open("rb") as file:
        try:
            return bool(json.loads(file.readline())["event"]["version"] == 1)
        except (ValueError, KeyError, TypeError, RecursionError):
            return False


def has_hole(path: Path) -> bool:
    """Tell whether there are zeros in a file, which stand where something was written and did not reach the disk."""
    with path.open("rb") as file:
        return any(b"\0" in block for block in iter(lambda: file.read(_HOLE_BLOCK_BYTES), b""))


def read_tail(path: Path) -> Tail | None:
    """Cut off an incomplete last line and return the last event of a file, None when there is none.

    Reads only the last line, however long the file. Raises :class:`MirrorLineCorrupt` when that is not a mirror line.
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
        envelope = json.loads(line)["event"]
        return Tail(version=int(envelope["version"]), hash=str(envelope["hash"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise MirrorLineCorrupt(f"{shown(path.name)} ends in a line that the mirror did not write") from None


def append(path: Path, events: Iterable[StoredEvent]) -> None:
    """Append events, creating the file if need be; they are on the disk when this returns.

    Where that fails, the file is as it was: lines that can be read but never reached the disk would pass for done.
    """
    before = path.stat().st_size if path.exists() else 0
    make_folder(path.parent)
    try:
        with path.open("ab") as file:
            _write(file, events)
        if not before:
            fsync_path(path.parent)
    except OSError:
        with suppress(OSError):
            os.truncate(path, before)
        raise


def replace(path: Path, events: Iterable[StoredEvent]) -> None:
    """Replace whatever is there by a file with these events, which is on the disk when this returns."""
    make_folder(path.parent)
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        _write(file, events)
    new.replace(path)
    fsync_path(path.parent)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, each durably entered in its own parent."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    fsync_path(path.parent)


def _write(file: BinaryIO, events: Iterable[StoredEvent]) -> None:
    file.writelines(f"{line_of(event)}\n".encode() for event in events)
    file.flush()
    os.fsync(file.fileno())


def _last_newline(file: BinaryIO, before: int) -> int:
    """Return the offset of the last newline before ``before``, -1 when there is none."""
    while before > 0:
        start = max(0, before - _TAIL_BLOCK_BYTES)
        file.seek(start)
        found = file.read(before - start).rfind(b"\n")
        if found >= 0:
            return start + found
        before = start
    return -1

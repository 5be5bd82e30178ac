"""Is the ledger still what was written? Recompute every hash from the columns, row by row, in order.

The check of a row needs only the row before it, the head of its conversation, and who was erased. So a ledger of any
length is verified in bounded memory, but for one number per conversation. The chain alone cannot reveal a tail that was
cut off, or a ledger rewritten with new hashes: for that, a head noted earlier (``position:hash``) is looked up in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError, create_model
from pydantic_core import from_json

from domain import chain
from domain.errors import InvalidInput, LedgerReadFailed, UnknownEvent
from domain.events import (
    BLANK,
    CATALOGUE,
    JsonObject,
    MemoriesErased,
    UserErased,
    blanked_by,
    decode_origin,
    decode_payload,
)
from domain.identity import ERASED_PREFIX, SYSTEM_ID
from domain.ledger_reader import LedgerReader
from domain.origin import Origin
from domain.reader import StoredEvent, odd_column

_PAGE_EVENTS = 500
_BELOW_ALL = -(2**63)
"""Smaller than any position a row can have, so that a row forged below the first is checked too."""
_UNFINISHED = "the erasure that it began is not finished: the next start of the service goes on with it"

Part = Literal["ledger", "schema", "file", "mirror", "index"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it was written: what, in which part of the storage, at which event or line."""

    part: Part
    what: str
    position: int | None = None
    path: str | None = None
    line: int | None = None


def damage_among(findings: Iterable[Finding]) -> list[Finding]:
    """Return the findings without unfinished erasures, with which a ledger is as it was written all the same."""
    return [finding for finding in findings if finding.what != _UNFINISHED]


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """A position and the hash of the event there, which together vouch for everything before."""

    position: int
    hash: str

    def __str__(self) -> str:
        return f"{self.position}:{self.hash}"


GENESIS_HEAD = LedgerHead(0, chain.GENESIS)
"""The head of a ledger without events."""


def parse_head(text: str, field: str = "--since") -> LedgerHead:
    """Read ``POSITION:HASH`` as :class:`LedgerHead` prints it; raise :class:`InvalidInput`."""
    position, _, digest = text.partition(":")
    algorithm, _, hexadecimal = digest.partition(":")
    if not (position.isascii() and position.isdigit() and algorithm == chain.ALGORITHM and len(hexadecimal) == 64):
        raise InvalidInput(field, text, f"give POSITION:HASH as --head prints it, e.g. 17:{chain.ALGORITHM}:0123...")
    return LedgerHead(int(position), digest)


def is_blanked(row: StoredEvent) -> bool:
    """Tell whether a row is as an erasure leaves it: no salt and no text, and of an erased person no ids."""
    return row.salt == "" and (_of_erased_person(row) if row.payload == BLANK else _erased_by(row) is not None)


def _of_erased_person(row: StoredEvent) -> bool:
    return row.user_id.startswith(ERASED_PREFIX) and (
        row.conversation_id.startswith(ERASED_PREFIX) or row.conversation_id == SYSTEM_ID
    )


def _erased_by(row: StoredEvent) -> str | None:
    """Return the ``MemoriesErased`` event that a blanked row names, of a person who was not erased."""
    if row.user_id.startswith(ERASED_PREFIX) or row.conversation_id == SYSTEM_ID:
        return None
    return blanked_by(row.payload)


def is_sound(row: StoredEvent) -> bool:
    """Tell whether an event agrees with its own hashes; whether it follows the one before is another question."""
    if odd_column(row) is not None or hash_of(row) != row.hash:
        return False
    if is_blanked(row):
        return True
    return row.identity_hash == chain.identity_hash(
        row.salt, row.user_id, row.conversation_id
    ) and row.payload_hash == chain.payload_hash(row.salt, row.payload)


UNREADABLE = (LedgerReadFailed, UnknownEvent, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What reading an event may raise whose columns are not what was written."""


def unread(error: BaseException) -> str:
    """Say that an event could not be read, without a word of what is in it."""
    if isinstance(error, LedgerReadFailed):
        return str(error)
    return f"an event that it was made of cannot be read ({type(error).__name__})"


class _Part:
    """What was blanked in the name of one ``MemoriesErased`` event, to be compared with what that event lists."""

    def __init__(self, user_id: str, position: int) -> None:
        self.user_id = user_id
        self._first = position
        self._blanked: list[list[int]] = []
        self._begun: StoredEvent | None = None
        self._strange: int | None = None

    def add(self, row: StoredEvent) -> None:
        if row.user_id != self.user_id or self._begun is not None:
            self._strange = row.position
        if self._blanked and self._blanked[-1][1] == row.position - 1:
            self._blanked[-1][1] = row.position
        else:
            self._blanked.append([row.position, row.position])

    def begun_by(self, row: StoredEvent) -> None:
        if row.user_id != self.user_id or row.conversation_id != SYSTEM_ID:
            self._strange = self._first
        self._begun = row

    def finish(self) -> Iterator[Finding]:
        if self._begun is None:
            what = f"it is blanked, and no {MemoriesErased.type} event of its user says why"
            yield Finding("ledger", what, self._first)
            return
        try:
            listed = [list(part) for part in MemoriesErased.model_validate_json(self._begun.payload).positions]
        except ValidationError:
            return  # named where its row was read
        outside = [
            first for first, last in self._blanked if not any(low <= first and last <= high for low, high in listed)
        ]
        if self._blanked and (self._strange is not None or outside):
            what = f"it is blanked, and the {MemoriesErased.type} event that it names is not about it"
            yield Finding("ledger", what, self._strange if self._strange is not None else outside[0])
        elif self._blanked != listed:
            yield Finding("ledger", _UNFINISHED, self._begun.position)


class ChainCheck:
    """Takes the rows of a ledger in the order of their positions and reports what is wrong with each.

    ``head`` is the last row taken, as the row itself has it. It holds one number per conversation and per erased user.
    """

    def __init__(self) -> None:
        self.head = GENESIS_HEAD
        self._versions: dict[tuple[str, str], int] = {}
        self._begins_late: dict[tuple[str, str], tuple[int, int]] = {}
        self._blanked: dict[str, int] = {}
        self._erased: set[str] = set()
        self._erasing: dict[str, int] = {}
        self._parts: dict[str, _Part] = {}

    def check(self, row: StoredEvent) -> Iterator[Finding]:
        """Yield what is wrong with the next row, the most telling first."""
        expected = self.head.position + 1
        try:
            yield from (Finding("ledger", what, row.position) for what in self._checked(row, expected))
        except (TypeError, ValueError, AttributeError):
            # A column has a number for a text, a blob, or bytes that are not UTF-8. No event was written so.
            yield Finding("ledger", f"{odd_column(row) or 'a column'} holds what no event has there", expected)
        if isinstance(row.position, int):
            self.head = LedgerHead(row.position, row.hash)

    def _checked(self, row: StoredEvent, expected: int) -> Iterator[str]:
        if row.position < expected:
            yield "no event stands below position 1"
        elif row.position > expected:
            missing = f"{expected} to {row.position - 1} are" if row.position > expected + 1 else f"{expected} is"
            yield f"event {missing} missing: this is the first one behind the gap"
        elif row.prev_hash != self.head.hash:
            yield "it does not follow the event before it (prev_hash)" if expected > 1 else "prev_hash of a first event"
        if is_blanked(row) and row.payload != BLANK:
            self._parts.setdefault(blanked_by(row.payload) or "", _Part(row.user_id, row.position)).add(row)
        elif is_blanked(row):
            self._blanked.setdefault(row.user_id, row.position)
            if row.type == UserErased.type:
                self._erased.add(row.user_id)
        else:
            if row.type == UserErased.type:
                # It is blanked last of all, so this erasure is not done, or was not when the row was read.
                self._erased.add(f"{ERASED_PREFIX}{row.event_id}")
                self._erasing[row.user_id] = row.position
            yield from _what_it_says(row)
            if row.type == MemoriesErased.type:
                self._parts.setdefault(row.event_id, _Part(row.user_id, row.position)).begun_by(row)
        if row.hash != hash_of(row):
            yield "its hash is not that of its columns: the event was changed"
        stream = (row.user_id, row.conversation_id)
        version = self._versions.get(stream, 0) + 1
        if row.version > version == 1:
            self._begins_late[stream] = (row.position, row.version)
        elif row.version != version:
            yield _wrong_version(row.version, version)
        self._versions[stream] = row.version

    def finish(self, since: LedgerHead | None = None) -> Iterator[Finding]:
        """Yield what shows only after the last row: unfinished erasures, blanking without an erasure, and a cut tail.

        ``since`` is a head noted earlier, which the ledger must reach.
        """
        if since is not None and since.position > self.head.position:
            what = f"the ledger ends here, and the head noted earlier, {since}, is not in it: its tail was cut off"
            yield Finding("ledger", what, self.head.position)
        for (user_id, _), (position, version) in self._begins_late.items():
            if user_id not in self._erasing:  # the versions before are blanked already
                yield Finding("ledger", _wrong_version(version, 1), position)
        for user_id, position in self._blanked.items():
            if user_id not in self._erased:
                yield Finding("ledger", f"it is blanked, and no {UserErased.type} event of its user says why", position)
        for part in self._parts.values():
            if part.user_id not in self._erasing:  # else it is being blanked altogether
                yield from part.finish()
        for position in self._erasing.values():
            yield Finding("ledger", _UNFINISHED, position)


def verified_events(reader: LedgerReader, since: LedgerHead | None = None) -> Iterator[Finding | LedgerHead]:
    """Check a ledger up to its present head, page by page; yield findings and, last, the head that was reached.

    ``since`` is a head noted earlier; it is a finding when the ledger no longer contains it. An event that cannot be
    read is named and ends the check. Raises :class:`LedgerReadFailed` when nothing can be read.
    """
    check = ChainCheck()
    end, after, readable = reader.head_position(), _BELOW_ALL, True
    while readable and after < end:
        try:
            page = reader.stored_after(after, _PAGE_EVENTS)
        except LedgerReadFailed:
            page, readable = _up_to_the_unreadable(reader, after), False
        for row in page:
            after = row.position
            if after > end:
                break
            yield from verified_since(check, row, since)
        if not readable:
            yield Finding("ledger", "it cannot be read: what follows was not checked", check.head.position + 1)
        elif not page:
            break
    yield from check.finish(since if readable else None)
    yield check.head


def verified_since(check: ChainCheck, row: StoredEvent, since: LedgerHead | None) -> Iterator[Finding]:
    """Yield what is wrong with the next row, and whether it differs from a head noted earlier."""
    yield from check.check(row)
    if since is not None and row.position == since.position and row.hash != since.hash:
        yield Finding("ledger", f"it is not the one of the head noted earlier, {since}", row.position)


def _up_to_the_unreadable(reader: LedgerReader, after: int) -> list[StoredEvent]:
    rows: list[StoredEvent] = []
    for _ in range(_PAGE_EVENTS):
        try:
            found = reader.stored_after(rows[-1].position if rows else after, 1)
        except LedgerReadFailed:
            break
        if not found:
            break
        rows += found
    return rows


def _what_it_says(row: StoredEvent) -> Iterator[str]:
    if row.salt == "" or row.user_id.startswith(ERASED_PREFIX):
        yield "it was blanked in part, which no erasure does"
        return
    if row.identity_hash != chain.identity_hash(row.salt, row.user_id, row.conversation_id):
        yield "its user or conversation was changed"
    if row.payload_hash != chain.payload_hash(row.salt, row.payload):
        yield "its payload was changed"
        return
    if _has_newest_shape(row):
        return
    try:
        stored = _parsed(row.payload)
        decode_payload(row.type, row.schema_version, stored)
        decode_origin(stored)
    except UnknownEvent as error:
        yield str(error)
    except (LookupError, TypeError, ValueError, RecursionError):
        yield f"its payload does not have the shape of {row.type}, schema version {row.schema_version}"


def _parsed(payload: str) -> JsonObject:
    parsed: JsonObject
    try:
        parsed = from_json(payload)
    except ValueError:
        # Earlier versions recorded more levels than the quick parser reads.
        parsed = json.loads(payload)
    return parsed


_STORED = {
    name: create_model(f"Stored{name}", __base__=model, origin=(Origin | None, None))
    for name, model in CATALOGUE.items()
}
"""The models of payloads as they are stored: with the origin beside their fields."""


def _has_newest_shape(row: StoredEvent) -> bool:
    """Tell whether a payload's text fits its model as it is, which is most of what a large ledger holds.

    It is read once, without a dict in between. What does not fit may be older, or say more than the model knows.
    """
    model = _STORED.get(row.type)
    if model is None or row.schema_version != model.schema_version:
        return False
    try:
        model.model_validate_json(row.payload)
    except ValidationError:
        return False
    return True


def _wrong_version(found: int, expected: int) -> str:
    return f"its conversation has version {found} here where {expected} follows"


def hash_of(row: StoredEvent) -> str:
    """Recompute the hash of an event from its columns."""
    return chain.event_hash(
        prev_hash=row.prev_hash,
        position=row.position,
        event_id=row.event_id,
        version=row.version,
        event_type=row.type,
        schema_version=row.schema_version,
        recorded_at=row.recorded_at,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        identity_hash=row.identity_hash,
        payload_hash=row.payload_hash,
    )

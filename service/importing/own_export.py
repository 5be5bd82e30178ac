"""The output of ``opm export``, or a user's folder of the mirror: events, each checked against its hash.

Anybody can write such a line with hashes that fit, so a line is an event only after every field of it has been checked:
what is taken into a ledger stays there for ever. A conversation with a line that cannot be read is left out whole.

Turns, what is about them, and what hides them or brings them back keep their ids: a memory stays the same memory.
Decisions come along too, see :mod:`service.importing.own_decisions`.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput, UnknownEvent, Unrecordable
from domain.events import (
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    MessagesSent,
    NewEvent,
    Payload,
    RetrievalRecorded,
    SummaryFailed,
    SummaryRecorded,
    ToolsCalled,
    ToolsOffered,
    TurnFailed,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
    decode_payload,
)
from domain.identity import check_id
from domain.origin import Origin
from domain.reader import StoredEvent
from domain.verification import is_blanked
from projections.mirror.event_file import MirrorLineCorrupt, event_of
from service.importing.exchanges import FIRST_YEAR, LAST_YEAR, Conversation, Exchange, ParsedImport, text_lines
from service.importing.own_decisions import DECISIONS, Places, not_in_it

SOURCE = "export"
STATES = (MemoryForgotten, MemoryRestored, TurnSuperseded, TurnRestored)
"""What hides a memory, and what brings it back."""
SENT = (ToolsCalled, MessagesSent, ToolsOffered)
TAKEN = (TurnRecorded, TurnFailed, SummaryRecorded, SummaryFailed, MemoryEdited, *STATES, *DECISIONS, *SENT)


_ID = re.compile(r"[!-~]{1,200}")
"""What an event's own id, and those of the events that it refers to, are made of: visible ASCII."""
_INTEGER_MAX = 2**63 - 1


@dataclass
class Export:
    """Events by conversation, in ledger order.

    ``skipped`` counts the others by type, ``unread`` names the lines that cannot be read. ``places`` holds the
    positions of all its events in the ledger that they come from, by their ids.
    """

    conversations: dict[str, list[NewEvent]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)

    @property
    def event_ids(self) -> list[str]:
        return [event.event_id for events in self.conversations.values() for event in events]

    @property
    def in_order(self) -> list[tuple[str, NewEvent]]:
        """All events with their conversations, in the order of the ledger that they come from."""
        events = [(name, event) for name, events in self.conversations.items() for event in events]
        return sorted(events, key=lambda item: self.places[item[1].event_id])


@dataclass(frozen=True, slots=True)
class _Line:
    """An event of the file, as it stood in its ledger; ``event`` is what is taken of it, None for nothing."""

    stored: StoredEvent
    conversation: str
    event: NewEvent | None


def read_export(path: Path) -> Export:
    """Parse a file or folder of event lines.

    A line that cannot be read is named in ``unread``, and its conversation left out; where none can be read, its
    :class:`InvalidInput` is raised. So is one for the events of several users.
    """
    files = sorted(file for file in path.rglob("*.jsonl") if file.is_file()) if path.is_dir() else [path]
    export = Export()
    lines: dict[str, _Line] = {}
    errors: list[InvalidInput] = []
    broken: set[str] = set()
    for file in files:
        for where, line in text_lines(file):
            try:
                taken = _line(where, line, lines)
                lines[taken.stored.event_id] = taken
            except InvalidInput as error:
                errors.append(error)
                export.unread.append(str(error))
                broken |= _conversation_of(line)
    if not lines:
        raise errors[0] if errors else InvalidInput("PATH", path.name, "give a file with events in it")
    users = {line.stored.user_id for line in lines.values() if not is_blanked(line.stored)}
    if len(users) > 1:
        raise InvalidInput("PATH", str(path), f"give the export of one user, this one is of {len(users)}")
    for taken in sorted(lines.values(), key=lambda taken: taken.stored.position):
        export.places[taken.stored.event_id] = taken.stored.position
        if taken.conversation in broken:
            export.skipped["events of a conversation with a line that could not be read"] += 1
        elif taken.event is None:
            export.skipped["erased events" if is_blanked(taken.stored) else f"{taken.stored.type} events"] += 1
        else:
            export.conversations.setdefault(taken.conversation, []).append(taken.event)
    export.skipped["positions of memories that are not in it, in searches"] += not_in_it(
        export.places, [event for _, event in export.in_order]
    )
    return export


def _line(where: str, line: str, before: Mapping[str, _Line]) -> _Line:
    """Return the event of a line; raise :class:`InvalidInput` that names the field which no event of ours has so.

    ``before`` are the events of the lines before it, by their ids.
    """
    try:
        stored = event_of(line)
        if is_blanked(stored):
            return _Line(stored, stored.conversation_id, None)
        payload = decode_payload(stored.type, stored.schema_version, json.loads(stored.payload))
    except MirrorLineCorrupt as error:
        raise InvalidInput(where, line, f"give a line of `opm export` as it was written ({error.why})") from None
    except UnknownEvent as error:
        raise InvalidInput(f"{where}: type", stored.type, str(error)) from None
    if (known := before.get(stored.event_id)) is not None and known.stored != stored:
        raise InvalidInput(f"{where}: event_id", stored.event_id, "give each event once")
    if not isinstance(payload, TAKEN):
        return _Line(stored, stored.conversation_id, None)
    conversation = check_id(f"{where}: conversation id", stored.conversation_id, _kept_there)
    for name in ("event_id", "correlation_id", "causation_id"):
        value = getattr(stored, name)
        if value is not None and not _ID.fullmatch(value):
            raise InvalidInput(f"{where}: {name}", value, "give an id as it was written: visible ASCII characters")
    _check_values(where, payload.model_dump())
    payload = recorded_first(payload, _recorded_at(where, stored))
    try:
        event = NewEvent(stored.event_id, payload, stored.correlation_id, stored.causation_id)
    except Unrecordable as error:
        raise InvalidInput(where, line, str(error)) from None
    return _Line(stored, conversation, event)


def _recorded_at(where: str, stored: StoredEvent) -> datetime:
    try:
        recorded_at = datetime.fromisoformat(stored.recorded_at)
    except (TypeError, ValueError):
        fix = "give a time as `opm export` wrote it"
        raise InvalidInput(f"{where}: recorded_at", stored.recorded_at, fix) from None
    _check_values(where, {"recorded_at": recorded_at})
    return recorded_at


def _check_values(where: str, fields: dict[str, Any]) -> None:
    """Refuse times and integers that a reader of the ledger cannot calculate with."""
    waiting: list[tuple[str, Any]] = list(fields.items())
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list | tuple):
            waiting += [(name, item) for item in value]
        elif isinstance(value, int) and abs(value) > _INTEGER_MAX:
            raise InvalidInput(f"{where}: {name}", value, "give an integer of 64 bits")
        elif isinstance(value, datetime) and not (value.tzinfo and FIRST_YEAR <= value.year <= LAST_YEAR):
            raise InvalidInput(
                f"{where}: {name}", str(value), f"give a time of {FIRST_YEAR} to {LAST_YEAR} with an offset"
            )


def _conversation_of(line: str) -> set[str]:
    """Return the conversation that a line which cannot be read names, if it does."""
    try:
        named = json.loads(line)["event"]["conversation_id"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return set()
    return {named} if isinstance(named, str) else set()


def _kept_there(_spelling: str) -> bool:
    """Tell that the ledger an export comes from held an id in this spelling: it stays reachable by it."""
    return True


def recorded_first(payload: Payload, recorded_at: datetime) -> Payload:
    """Return a turn with the time when a ledger first recorded it, which the time of the import would hide."""
    if not isinstance(payload, TurnRecorded) or payload.first_recorded_at is not None:
        return payload
    return payload.model_copy(update={"first_recorded_at": recorded_at})


def as_exchanges(export: Export) -> ParsedImport:
    """Return an export as plain exchanges, for a ledger in which its ids are taken."""
    parsed = ParsedImport(SOURCE, skipped=Counter(export.skipped), unread=list(export.unread))
    for name, events in export.conversations.items():
        withdrawn = _about(events, MemoryForgotten, MemoryRestored)
        left = _about(events, TurnSuperseded, TurnRestored)
        summaries = {**_about(events, SummaryRecorded), **_about(events, MemoryEdited)}
        exchanges = []
        for event in events:
            if isinstance(event.payload, DECISIONS):
                parsed.skipped[f"{event.payload.type} events"] += 1
            if not isinstance(event.payload, TurnRecorded):
                continue
            if isinstance(withdrawn.get(event.event_id), MemoryForgotten):
                parsed.skipped["forgotten memories"] += 1
                continue
            if isinstance(left.get(event.event_id), TurnSuperseded):
                parsed.skipped["superseded turns"] += 1
                continue
            newest = summaries.get(event.event_id)
            summary = newest.summary if isinstance(newest, SummaryRecorded | MemoryEdited) else None
            exchanges.append(Exchange(event.payload.user, event.payload.assistant, event.payload.ts, summary))
        if exchanges:
            parsed.conversations.append(Conversation(name, exchanges))
    return parsed


def renumbered(
    events: Sequence[NewEvent], last_turn_id: int, places: Places, origin: Origin | None = None
) -> list[NewEvent]:
    """Return events to append after turn ``last_turn_id``, with each turn marked as imported.

    Adds the new number of each turn to ``places``, for events about it in a later batch.
    """
    taken, numbers = [], places.numbers
    for event in events:
        payload = event.payload
        if isinstance(payload, TurnRecorded):
            last_turn_id += 1
            numbers[event.event_id] = last_turn_id
            source = payload.imported_from or SOURCE
            payload = payload.model_copy(update={"turn_id": last_turn_id, "imported_from": source})
        elif isinstance(payload, (SummaryRecorded, SummaryFailed, MemoryEdited, *STATES)):
            number = numbers.get(payload.memory_id, payload.turn_id)
            payload = payload.model_copy(update={"turn_id": number})
        elif isinstance(payload, RetrievalRecorded):
            payload = places.of_search(payload)
        taken.append(NewEvent(event.event_id, payload, event.correlation_id, event.causation_id, origin))
    return taken


def _about(events: Iterable[NewEvent], *kinds: type[Payload]) -> dict[str, Payload]:
    """Return the newest payload of some kinds for each memory."""
    about: dict[str, Payload] = {}
    for event in events:
        if isinstance(event.payload, kinds) and event.causation_id is not None:
            about[event.causation_id] = event.payload
    return about

"""The output of ``opm export``, or a user's folder of the mirror: events, each checked against its hash.

Turns, summaries, edits and forgets keep their ids, so a memory stays the same memory. Decisions come along too, see
:mod:`service.importing.own_decisions`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domain.errors import InvalidInput, UnknownEvent
from domain.events import (
    MemoryEdited,
    MemoryForgotten,
    NewEvent,
    Payload,
    RetrievalRecorded,
    SummaryFailed,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
    decode_payload,
)
from domain.identity import check_id
from domain.origin import Origin
from projections.mirror.event_file import MirrorLineCorrupt, event_of
from service.importing.exchanges import Conversation, Exchange, ParsedImport, text_of
from service.importing.own_decisions import DECISIONS, Places, not_in_it

SOURCE = "export"
TAKEN = (TurnRecorded, TurnFailed, SummaryRecorded, SummaryFailed, MemoryEdited, MemoryForgotten, *DECISIONS)


@dataclass
class Export:
    """Events by conversation, in ledger order; ``skipped`` counts the others by type.

    ``places`` holds the positions of all its events in the ledger that they come from, by their ids.
    """

    conversations: dict[str, list[NewEvent]] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def event_ids(self) -> list[str]:
        return [event.event_id for events in self.conversations.values() for event in events]

    @property
    def in_order(self) -> list[tuple[str, NewEvent]]:
        """All events with their conversations, in the order of the ledger that they come from."""
        events = [(name, event) for name, events in self.conversations.items() for event in events]
        return sorted(events, key=lambda item: self.places[item[1].event_id])


def read_export(path: Path) -> Export:
    """Parse a file or folder of event lines; raise :class:`InvalidInput` that names file and line of a bad one."""
    files = sorted(path.rglob("*.jsonl")) if path.is_dir() else [path]
    found: list[tuple[int, str, NewEvent]] = []
    export = Export()
    users: set[str] = set()
    for file in files:
        for number, line in enumerate(text_of(file).split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{file.name}, line {number}"
            try:
                stored = event_of(line)
                payload = decode_payload(stored.type, stored.schema_version, json.loads(stored.payload))
            except MirrorLineCorrupt:
                raise InvalidInput(where, line, "give a line of `opm export` as it was written") from None
            except UnknownEvent as error:
                raise InvalidInput(where, stored.type, str(error)) from None
            users.add(stored.user_id)
            export.places[stored.event_id] = stored.position
            if isinstance(payload, TAKEN):
                event = NewEvent(stored.event_id, payload, stored.correlation_id, stored.causation_id)
                found.append(
                    (stored.position, check_id(f"{where}: conversation id", stored.conversation_id, _kept_there), event)
                )
            else:
                export.skipped[f"{stored.type} events"] += 1
    if len(users) > 1:
        raise InvalidInput("PATH", str(path), f"give the export of one user, this one is of {len(users)}")
    for _, conversation, event in sorted(found, key=lambda item: item[0]):
        export.conversations.setdefault(conversation, []).append(event)
    export.skipped["positions of memories that are not in it, in searches"] += not_in_it(
        export.places, [event for _, event in export.in_order]
    )
    return export


def _kept_there(_spelling: str) -> bool:
    """Tell that the ledger an export comes from held an id in this spelling: it stays reachable by it."""
    return True


def as_exchanges(export: Export) -> ParsedImport:
    """Return an export as plain exchanges, for a ledger in which its ids are taken."""
    parsed = ParsedImport(SOURCE, skipped=Counter(export.skipped))
    for name, events in export.conversations.items():
        forgotten = set(_about(events, MemoryForgotten))
        summaries = {**_about(events, SummaryRecorded), **_about(events, MemoryEdited)}
        exchanges = []
        for event in events:
            if isinstance(event.payload, DECISIONS):
                parsed.skipped[f"{event.payload.type} events"] += 1
            if not isinstance(event.payload, TurnRecorded):
                continue
            if event.event_id in forgotten:
                parsed.skipped["forgotten memories"] += 1
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
        elif isinstance(payload, SummaryRecorded | SummaryFailed | MemoryEdited | MemoryForgotten):
            number = numbers.get(payload.memory_id, payload.turn_id)
            payload = payload.model_copy(update={"turn_id": number})
        elif isinstance(payload, RetrievalRecorded):
            payload = places.of_search(payload)
        taken.append(NewEvent(event.event_id, payload, event.correlation_id, event.causation_id, origin))
    return taken


def _about(events: Iterable[NewEvent], kind: type[Payload]) -> dict[str, Payload]:
    """Return the newest payload of a kind for each memory."""
    about: dict[str, Payload] = {}
    for event in events:
        if isinstance(event.payload, kind) and event.causation_id is not None:
            about[event.causation_id] = event.payload
    return about

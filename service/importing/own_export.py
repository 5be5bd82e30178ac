"""What ``opm export`` wrote, or a user's folder of the mirror: events, each checked against its own hash.

Turns, summaries, corrections and withdrawals are taken over under the ids they had, so that a memory stays the one it
was. Decisions (retrieval, gate, rerank) speak of positions in the ledger they were made in, and stay in the export.
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
    SummaryFailed,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
    decode_payload,
)
from projections.mirror.event_file import MirrorLineCorrupt, event_of
from service.importing.exchanges import Conversation, Exchange, Reading, conversation_id, text_of

SOURCE = "export"
TAKEN = (TurnRecorded, TurnFailed, SummaryRecorded, SummaryFailed, MemoryEdited, MemoryForgotten)


@dataclass
class Export:
    """Events by conversation, in the order of their ledger; ``skipped`` counts the others by type."""

    conversations: dict[str, list[NewEvent]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    @property
    def event_ids(self) -> list[str]:
        return [event.event_id for events in self.conversations.values() for event in events]


def read_export(path: Path) -> Export:
    """Read a file or a folder of event lines; raise :class:`InvalidInput` that names file and line of a bad one."""
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
            if isinstance(payload, TAKEN):
                event = NewEvent(stored.event_id, payload, stored.correlation_id, stored.causation_id)
                found.append((stored.position, conversation_id(where, stored.conversation_id), event))
            else:
                export.skipped[f"{stored.type} events"] += 1
    if len(users) > 1:
        raise InvalidInput("PATH", str(path), f"give the export of one user, this one is of {len(users)}")
    for _, conversation, event in sorted(found, key=lambda item: item[0]):
        export.conversations.setdefault(conversation, []).append(event)
    return export


def as_exchanges(export: Export) -> Reading:
    """Return what an export says as plain exchanges, for a ledger in which its ids are taken."""
    reading = Reading(SOURCE, skipped=Counter(export.skipped))
    for name, events in export.conversations.items():
        forgotten = set(_about(events, MemoryForgotten))
        summaries = {**_about(events, SummaryRecorded), **_about(events, MemoryEdited)}
        exchanges = []
        for event in events:
            if not isinstance(event.payload, TurnRecorded):
                continue
            if event.event_id in forgotten:
                reading.skipped["forgotten memories"] += 1
                continue
            told = summaries.get(event.event_id)
            summary = told.summary if isinstance(told, SummaryRecorded | MemoryEdited) else None
            exchanges.append(Exchange(event.payload.user, event.payload.assistant, event.payload.ts, summary))
        if exchanges:
            reading.conversations.append(Conversation(name, exchanges))
    return reading


def renumbered(events: Sequence[NewEvent], last_turn_id: int, numbers: dict[str, int]) -> list[NewEvent]:
    """Return events to be appended behind turn ``last_turn_id``, each turn marked as imported.

    ``numbers`` is given the new number of each turn by its id, for what is said of it in a later batch.
    """
    taken = []
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
        taken.append(NewEvent(event.event_id, payload, event.correlation_id, event.causation_id))
    return taken


def _about(events: Iterable[NewEvent], kind: type[Payload]) -> dict[str, Payload]:
    """Return the newest payload of a kind for each memory it speaks of."""
    about: dict[str, Payload] = {}
    for event in events:
        if isinstance(event.payload, kind) and event.causation_id is not None:
            about[event.causation_id] = event.payload
    return about

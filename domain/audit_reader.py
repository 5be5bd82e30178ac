"""Questions about what was: how one answer came about, and what memory looked like at a position of the ledger.

People ask these at a command line; no turn does. What :class:`LedgerReader` answers is answered here too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from domain.clock import iso
from domain.events import (
    EmbeddingModelActivated,
    Erased,
    Event,
    MemoriesErased,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    Payload,
    PromptsActivated,
    TurnFailed,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
)
from domain.ledger_reader import LedgerReader
from domain.reader import json_list
from domain.rows import event_of
from domain.statements import LATEST

_EVENTS_PER_READ = 500
_CHANGES: Mapping[type[Payload], str] = {
    MemoryEdited: "edited",
    MemoryForgotten: "forgotten",
    MemoryRestored: "restored",
    TurnSuperseded: "superseded",
    TurnRestored: "returned to",
}


@dataclass(frozen=True, slots=True)
class Erasure:
    """The event by which something was erased; ``reason`` is None where none was given, or it was erased itself."""

    event_id: str
    position: int
    recorded_at: datetime
    type: str
    reason: str | None = None

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"erased by {self.type} {self.event_id}, {iso(self.recorded_at)}{why}"


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a memory at a position: in a word, and the summary that a person gave it then."""

    position: int
    recorded_at: datetime
    what: str
    summary: str | None = None
    erasure: Erasure | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """A row of the access log about a person's memory."""

    at: str
    actor: str | None
    client: str | None
    route: str
    status: int
    refused: bool
    request_id: str


class AuditReader(LedgerReader):
    """A :class:`LedgerReader` that can also be asked about the past."""

    def last_question(self, user_id: str) -> Event | None:
        """Return the event with which a user's newest turn ended, answered or not."""
        rows = self._rows("last_question", user_id=user_id)
        return event_of(rows[0]) if rows else None

    def changes_since(self, user_id: str, memory_ids: Collection[str], position: int) -> dict[str, Change]:
        """Return the last thing that became of these memories after ``position``, by the memory's id."""
        rows = self._rows("changes_after", user_id=user_id, memory_ids=json_list(memory_ids), position=position)
        changes: dict[str, Change] = {}
        for event in map(event_of, rows):
            what = _CHANGES.get(type(event.payload))
            if event.causation_id is not None and what is not None:
                summary = event.payload.summary if isinstance(event.payload, MemoryEdited) else None
                changes[event.causation_id] = Change(event.position, event.recorded_at, what, summary)
        memories = [event for event in self.events_named(memory_ids).values() if event.user_id == user_id]
        for memory_id, by in self.erasures_of(memories).items():
            changes[memory_id] = Change(by.position, by.recorded_at, "erased", erasure=by)
        return changes

    def erasures_of(self, events: Iterable[Event]) -> dict[str, Erasure]:
        """Return by which erasure each of these events was blanked, by the event's id; the others are missing."""
        named = {event.event_id: event.payload.erased_by for event in events if isinstance(event.payload, Erased)}
        begun = self.events_named(set(named.values()))
        return {event_id: _erasure(begun[by]) for event_id, by in named.items() if by in begun}

    def summaries_about(self, user_id: str, memory_id: str) -> list[Event]:
        """Return the summaries of a turn and the failed attempts at one, in order."""
        return [event_of(row) for row in self._rows("summaries_about", user_id=user_id, memory_id=memory_id)]

    def prompt_text(self, name: str, version: str) -> str | None:
        """Return the text that a version of a prompt stood for, in any language; None where it was never activated."""
        for row in self._rows("prompts_newest_first"):
            activated = event_of(row).payload
            if not isinstance(activated, PromptsActivated):
                continue
            for named, text in activated.texts.items():
                if named.partition(".")[0] == name and activated.versions.get(named) == version:
                    return text
        return None

    def position_before(self, moment: datetime) -> int:
        """Return the position of the last event recorded before ``moment``, 0 when there is none."""
        rows = self._rows("position_before", moment=iso(moment))
        return rows[0].position if rows else 0

    def recorded_at(self, position: int) -> datetime | None:
        """Return when the event at ``position`` was recorded."""
        rows = self._rows("recorded_at", position=position)
        return datetime.fromisoformat(rows[0].recorded_at) if rows else None

    def model_active_at(self, user_id: str, position: int) -> EmbeddingModelActivated | None:
        """Return the embedding model that a user's memory was searched with at ``position``."""
        return self.active_embedding_model(user_id, as_of=position)

    def retrievals(self, user_id: str, after: int, until: int = LATEST, limit: int | None = None) -> Iterator[Event]:
        """Yield the searches of a user's memory in (``after``, ``until``], in order, ``limit`` of them at most."""
        left = limit
        while left is None or left > 0:
            count = _EVENTS_PER_READ if left is None else min(left, _EVENTS_PER_READ)
            rows = self._rows("retrievals", user_id=user_id, position=after, until=until, count=count)
            if not rows:
                return
            events = [event_of(row) for row in rows]
            yield from events
            after = events[-1].position
            left = None if left is None else left - len(events)

    def count_retrievals(self, user_id: str, after: int, until: int = LATEST) -> int:
        """Count what :meth:`retrievals` would yield."""
        return int(self._rows("count_retrievals", user_id=user_id, position=after, until=until)[0][0])

    def events_of_user(self, user_id: str, after: int, until: int = LATEST) -> Iterator[Event]:
        """Yield all events of a user in (``after``, ``until``], in order."""
        values = {"user_id": user_id, "until": until, "count": _EVENTS_PER_READ}
        while events := [event_of(row) for row in self._rows("events_of_user", position=after, **values)]:
            yield from events
            after = events[-1].position

    def count_blanked(self, until: int = LATEST) -> int:
        """Count the events up to a position that erasures have blanked."""
        return int(self._rows("count_blanked", until=until)[0][0])

    def activations(self, user_id: str, until: int) -> list[Event]:
        """Return what came into use for everybody or for this user up to a position, in order."""
        return [event_of(row) for row in self._rows("activations_until", user_id=user_id, until=until)]

    def access_to(self, user_id: str, since: datetime, until: datetime) -> list[Access]:
        """Return who read this user's memory or was refused it in [``since``, ``until``), as far as it is logged."""
        rows = self._rows("access_to", user_id=user_id, since=iso(since), until=iso(until))
        return [Access(**{**row._asdict(), "refused": bool(row.refused)}) for row in rows]


def _erasure(begun: Event) -> Erasure:
    reason = begun.payload.reason if isinstance(begun.payload, MemoriesErased) else None
    return Erasure(begun.event_id, begun.position, begun.recorded_at, begun.type, reason)


def turn_of(events: Sequence[Event]) -> Event | None:
    """Return the event among those of one answer with which the turn ended, None where it is not there or erased."""
    return next((event for event in events if isinstance(event.payload, TurnRecorded | TurnFailed)), None)

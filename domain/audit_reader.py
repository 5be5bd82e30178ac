"""Questions about what was: how one answer came about, and what memory looked like at a position of the ledger.

These are asked by people at a command line, never by a turn. They are apart from :class:`LedgerReader` for that reason
only: what it answers is answered here too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from domain.clock import iso
from domain.events import (
    EmbeddingModelActivated,
    Event,
    MemoryEdited,
    MemoryForgotten,
    PromptsActivated,
    RetrievalRecorded,
    TurnFailed,
    TurnRecorded,
)
from domain.identity import SYSTEM_ID
from domain.ledger_reader import LedgerReader
from domain.reader import IDS_PER_READ
from domain.schema import EVENTS
from domain.statements import ACTIVE_MODEL, LATEST, event_of


@dataclass(frozen=True, slots=True)
class Change:
    """What a person did to a memory at a position: gave it a new summary, or, where that is None, withdrew it."""

    position: int
    recorded_at: datetime
    summary: str | None

    @property
    def what(self) -> str:
        return "forgotten" if self.summary is None else "edited"


class AuditReader(LedgerReader):
    """A :class:`LedgerReader` that can also be asked about the past."""

    def events_named(self, event_ids: Collection[str]) -> dict[str, Event]:
        """Return events by their ids; an id that no event has is missing."""
        wanted = list(dict.fromkeys(event_ids))
        found: dict[str, Event] = {}
        for start in range(0, len(wanted), IDS_PER_READ):
            query = select(EVENTS).where(EVENTS.c.event_id.in_(wanted[start : start + IDS_PER_READ]))
            found |= {event.event_id: event for event in map(event_of, self._all(query))}
        return found

    def events_at(self, positions: Collection[int]) -> dict[int, Event]:
        """Return events by their positions; a position that the ledger has not reached is missing."""
        wanted = list(dict.fromkeys(positions))
        found: dict[int, Event] = {}
        for start in range(0, len(wanted), IDS_PER_READ):
            query = select(EVENTS).where(EVENTS.c.position.in_(wanted[start : start + IDS_PER_READ]))
            found |= {event.position: event for event in map(event_of, self._all(query))}
        return found

    def last_question(self, user_id: str) -> Event | None:
        """Return the event with which a user's newest turn ended, answered or not."""
        query = (
            select(EVENTS)
            .where(EVENTS.c.user_id == user_id, EVENTS.c.type.in_((TurnRecorded.type, TurnFailed.type)))
            .order_by(EVENTS.c.position.desc())
            .limit(1)
        )
        rows = self._all(query)
        return event_of(rows[0]) if rows else None

    def changes_since(self, user_id: str, memory_ids: Collection[str], position: int) -> dict[str, Change]:
        """Return the last thing that people did to these memories behind ``position``, by the memory's id."""
        wanted = list(dict.fromkeys(memory_ids))
        events: list[Event] = []
        for start in range(0, len(wanted), IDS_PER_READ):
            query = select(EVENTS).where(
                EVENTS.c.causation_id.in_(wanted[start : start + IDS_PER_READ]),
                EVENTS.c.type.in_((MemoryEdited.type, MemoryForgotten.type)),
                EVENTS.c.user_id == user_id,
                EVENTS.c.position > position,
            )
            events += map(event_of, self._all(query))
        return {
            event.causation_id: Change(
                event.position,
                event.recorded_at,
                event.payload.summary if isinstance(event.payload, MemoryEdited) else None,
            )
            for event in sorted(events, key=lambda event: event.position)
            if event.causation_id is not None
        }

    def prompt_text(self, name: str, version: str) -> str | None:
        """Return the text that a version of a prompt stood for, None where it was never activated."""
        query = (
            select(EVENTS)
            .where(
                EVENTS.c.user_id == SYSTEM_ID,
                EVENTS.c.conversation_id == SYSTEM_ID,
                EVENTS.c.type == PromptsActivated.type,
            )
            .order_by(EVENTS.c.version.desc())
        )
        for row in self._all(query):
            activated = event_of(row).payload
            if isinstance(activated, PromptsActivated) and activated.versions.get(name) == version:
                return activated.texts.get(name)
        return None

    def position_before(self, moment: datetime) -> int:
        """Return the position of the last event recorded before ``moment``, 0 when there is none."""
        query = (
            select(EVENTS.c.position)
            .where(EVENTS.c.recorded_at < iso(moment))
            .order_by(EVENTS.c.position.desc())
            .limit(1)
        )
        rows = self._all(query)
        return rows[0].position if rows else 0

    def recorded_at(self, position: int) -> datetime | None:
        """Return when the event at ``position`` was recorded."""
        rows = self._all(select(EVENTS.c.recorded_at).where(EVENTS.c.position == position))
        return datetime.fromisoformat(rows[0].recorded_at) if rows else None

    def model_active_at(self, user_id: str, position: int) -> EmbeddingModelActivated | None:
        """Return the embedding model that a user's memory was searched with at ``position``."""
        query = ACTIVE_MODEL.where(EVENTS.c.position <= position)
        rows = self._all(query, user_id=user_id)
        payload = event_of(rows[0]).payload if rows else None
        return payload if isinstance(payload, EmbeddingModelActivated) else None

    def has_events(self, user_id: str) -> bool:
        """Tell whether anything was ever recorded of a user."""
        return bool(self._all(select(EVENTS.c.position).where(EVENTS.c.user_id == user_id).limit(1)))

    def retrievals(self, user_id: str, after: int, until: int = LATEST, limit: int | None = None) -> Iterator[Event]:
        """Yield what was asked of a user's memory in (``after``, ``until``], in order, ``limit`` questions at most."""
        left = limit
        while left is None or left > 0:
            query = (
                select(EVENTS)
                .where(
                    EVENTS.c.user_id == user_id,
                    EVENTS.c.type == RetrievalRecorded.type,
                    EVENTS.c.position > after,
                    EVENTS.c.position <= until,
                    EVENTS.c.salt != "",
                )
                .order_by(EVENTS.c.position)
                .limit(IDS_PER_READ if left is None else min(left, IDS_PER_READ))
            )
            events = [event_of(row) for row in self._all(query)]
            if not events:
                return
            yield from events
            after = events[-1].position
            left = None if left is None else left - len(events)

    def count_retrievals(self, user_id: str, after: int, until: int = LATEST) -> int:
        """Count what :meth:`retrievals` would yield."""
        query = select(func.count()).where(
            EVENTS.c.user_id == user_id,
            EVENTS.c.type == RetrievalRecorded.type,
            EVENTS.c.position > after,
            EVENTS.c.position <= until,
            EVENTS.c.salt != "",
        )
        return int(self._all(query)[0][0])


def turn_of(events: Sequence[Event]) -> Event | None:
    """Return the event among those of one answer with which the turn ended, None where it is not there or erased."""
    return next((event for event in events if isinstance(event.payload, TurnRecorded | TurnFailed)), None)

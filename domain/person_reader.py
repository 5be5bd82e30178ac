"""What people ask of their own memory, or have asked for them: one by one, where it stands, all of it, its erasure.

None of this is on the way of a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, case, func, select
from sqlalchemy.sql import Select

from domain.events import TurnRecorded, UserErased
from domain.identity import SYSTEM_ID, StreamId
from domain.memory import Memory
from domain.reader import IDS_PER_READ, Reader, StoredEvent, of_stream
from domain.schema import EVENTS
from domain.statements import REMEMBERED, TURN, memory_of

_MEMORY: Select[Any] = REMEMBERED.where(
    TURN.c.user_id == bindparam("user_id"), TURN.c.event_id == bindparam("memory_id")
)
_MEMORIES_BEFORE: Select[Any] = (
    REMEMBERED.where(TURN.c.user_id == bindparam("user_id"), TURN.c.position < bindparam("before"))
    .order_by(TURN.c.position.desc())
    .limit(bindparam("count"))
)


@dataclass(frozen=True, slots=True)
class TurnPlace:
    """Where a turn stands: its conversation and that one's last version, its position, its number."""

    stream: StreamId
    position: int
    turn_id: int
    head_version: int


class PersonReader(Reader):
    """What concerns one person's memories, their export, import and erasure."""

    def memory(self, user_id: str, memory_id: str) -> Memory | None:
        """Return this user's memory of an id, None where there is none or it was forgotten."""
        rows = self._all(_MEMORY, user_id=user_id, memory_id=memory_id)
        return memory_of(rows[0]) if rows else None

    def memories_before(self, user_id: str, position: int, limit: int) -> list[Memory]:
        """Return at most ``limit`` memories of this user in front of a position, newest first."""
        return [memory_of(row) for row in self._all(_MEMORIES_BEFORE, user_id=user_id, before=position, count=limit)]

    def place_of(self, user_id: str, memory_id: str) -> TurnPlace | None:
        """Return where this user's turn of an id stands, forgotten or not; None where there is none."""
        turn, last = EVENTS.alias("turn"), EVENTS.alias("last")
        version = (
            select(func.max(last.c.version))
            .where(last.c.user_id == turn.c.user_id, last.c.conversation_id == turn.c.conversation_id)
            .scalar_subquery()
        )
        query = select(
            turn.c.position,
            turn.c.conversation_id,
            func.json_extract(turn.c.payload, "$.turn_id").label("turn_id"),
            version.label("version"),
        ).where(
            turn.c.user_id == user_id,
            turn.c.event_id == memory_id,
            turn.c.type == TurnRecorded.type,
            turn.c.salt != "",
        )
        rows = self._all(query)
        if not rows:
            return None
        row = rows[0]
        return TurnPlace(StreamId(user_id, row.conversation_id), row.position, row.turn_id, row.version)

    def owner_of(self, memory_id: str) -> str | None:
        """Return whose memory has this id, None where nobody's has."""
        query = select(EVENTS.c.user_id).where(
            EVENTS.c.event_id == memory_id, EVENTS.c.type == TurnRecorded.type, EVENTS.c.salt != ""
        )
        rows = self._all(query)
        return str(rows[0].user_id) if rows else None

    def owners_of_events(self, event_ids: Sequence[str]) -> dict[str, str]:
        """Return whose each of these events is; those that are not in the ledger are missing."""
        found: dict[str, str] = {}
        query = select(EVENTS.c.event_id, EVENTS.c.user_id).where(
            EVENTS.c.event_id.in_(bindparam("ids", expanding=True))
        )
        for start in range(0, len(event_ids), IDS_PER_READ):
            rows = self._all(query, ids=list(event_ids[start : start + IDS_PER_READ]))
            found.update({row.event_id: row.user_id for row in rows})
        return found

    def has_event(self, event_id: str) -> bool:
        """Tell whether an event of this id stands in the ledger."""
        return bool(self._all(select(EVENTS.c.position).where(EVENTS.c.event_id == event_id)))

    def extent_of(self, user_id: str) -> tuple[int, int]:
        """Count the events of a user and the conversations they are in."""
        of_user = EVENTS.c.user_id == user_id
        named = case((EVENTS.c.conversation_id != SYSTEM_ID, EVENTS.c.conversation_id))
        events = self._all(select(func.count()).where(of_user))[0][0]
        conversations = self._all(select(func.count(named.distinct())).where(of_user))[0][0]
        return int(events), int(conversations)

    def version_of(self, stream: StreamId) -> int:
        """Return the last version of a conversation, 0 where it has no event."""
        return int(self._all(select(func.coalesce(func.max(EVENTS.c.version), 0)).where(of_stream(stream)))[0][0])

    def stored_of_user(self, user_id: str, after: int, limit: int) -> list[StoredEvent]:
        """Return at most ``limit`` rows of one user behind position ``after``, in order, as they are stored."""
        query = select(EVENTS).where(EVENTS.c.user_id == user_id, EVENTS.c.position > after)
        return [StoredEvent(**row._asdict()) for row in self._all(query.order_by(EVENTS.c.position).limit(limit))]

    def imported_texts(self, stream: StreamId, source: str) -> list[tuple[str, str]]:
        """Return question and answer of each turn of a conversation that was imported from a source."""
        query = select(
            func.json_extract(EVENTS.c.payload, "$.user").label("user"),
            func.json_extract(EVENTS.c.payload, "$.assistant").label("assistant"),
        ).where(
            of_stream(stream),
            EVENTS.c.type == TurnRecorded.type,
            func.json_extract(EVENTS.c.payload, "$.imported_from") == source,
        )
        return [(row.user, row.assistant) for row in self._all(query)]

    def erasures_begun(self) -> list[tuple[str, str]]:
        """Return user and event id of each ``UserErased`` event whose user's ids still stand in the ledger."""
        query = select(EVENTS.c.user_id, EVENTS.c.event_id).where(EVENTS.c.type == UserErased.type, EVENTS.c.salt != "")
        return [(row.user_id, row.event_id) for row in self._all(query.order_by(EVENTS.c.position))]

"""What people ask of their own memory, or have asked for them: single memories, all of it, import and erasure.

No turn asks any of this.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from domain.clock import iso
from domain.events import Event
from domain.identity import StreamId
from domain.memory import Memory
from domain.reader import Reader, StoredEvent, json_list, stored_of
from domain.rows import event_of, memories_of

_PAGE = 500


@dataclass(frozen=True, slots=True)
class TurnPlace:
    """Where a turn stands: its conversation with its last version, its position, its number, and what hides it."""

    stream: StreamId
    position: int
    turn_id: int
    head_version: int
    forgotten: bool = False
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class ImportedTurn:
    """A turn that was imported: its texts, the source's ids of its messages, and whether it was forgotten."""

    user: str
    assistant: str
    source_ids: frozenset[str]
    forgotten: bool


@dataclass(frozen=True, slots=True)
class Hiding:
    """An event that hides a memory now, and in which way: ``forgotten`` or ``superseded``."""

    memory_id: str
    hidden_by: str
    event_id: str


class PersonReader(Reader):
    """What concerns one person's memories, their export, import and erasure."""

    def memory(self, user_id: str, memory_id: str) -> Memory | None:
        """Return this user's memory by its id, None where there is none or it is hidden."""
        rows = self._rows("memory", user_id=user_id, memory_id=memory_id)
        return next(iter(memories_of(rows)), None)

    def memories_before(self, user_id: str, position: int, limit: int) -> list[Memory]:
        """Return at most ``limit`` memories of this user before a position, newest first, without hidden ones."""
        return memories_of(self._rows("memories_before", user_id=user_id, position=position, count=limit))

    def place_of(self, user_id: str, memory_id: str) -> TurnPlace | None:
        """Return where this user's turn stands, hidden or not; None where there is no such turn."""
        rows = self._rows("place_of", user_id=user_id, memory_id=memory_id)
        if not rows:
            return None
        row = rows[0]
        return TurnPlace(
            StreamId(user_id, row.conversation_id),
            row.position,
            row.turn_id,
            row.head_version,
            forgotten=bool(row.forgotten),
            superseded=bool(row.superseded),
        )

    def owner_of(self, memory_id: str) -> str | None:
        """Return whose memory has this id, None where nobody's has."""
        rows = self._rows("owner_of", memory_id=memory_id)
        return str(rows[0].user_id) if rows else None

    def owners_of_events(self, event_ids: Sequence[str]) -> dict[str, str]:
        """Return whose each of these events is; those that are not in the ledger are missing."""
        return {row.event_id: row.user_id for row in self._rows("owners_of_events", event_ids=json_list(event_ids))}

    def positions_of_events(self, event_ids: Sequence[str]) -> dict[str, int]:
        """Return where each of these events stands; those that are not in the ledger are missing."""
        rows = self._rows("positions_of_events", event_ids=json_list(event_ids))
        return {row.event_id: row.position for row in rows}

    def has_event(self, event_id: str) -> bool:
        """Tell whether an event of this id stands in the ledger."""
        return bool(self._rows("has_event", event_id=event_id))

    def extent_of(self, user_id: str) -> tuple[int, int]:
        """Count the events of a user and the conversations they are in."""
        row = self._rows("extent_of", user_id=user_id)[0]
        return row.events, row.conversations

    def version_of(self, stream: StreamId) -> int:
        """Return the last version of a conversation, 0 where it has no event."""
        rows = self._rows("version_of", user_id=stream.user_id, conversation_id=stream.conversation_id)
        return int(rows[0].version)

    def stored_of_user(self, user_id: str, after: int, limit: int) -> list[StoredEvent]:
        """Return at most ``limit`` rows of one user after position ``after``, in order, as they are stored."""
        return [stored_of(row) for row in self._rows("stored_of_user", user_id=user_id, position=after, count=limit)]

    def imported_turns(self, stream: StreamId, source: str) -> list[ImportedTurn]:
        """Return each turn of a conversation that was imported from a source, forgotten or not."""
        rows = self._rows(
            "imported_turns", user_id=stream.user_id, conversation_id=stream.conversation_id, source=source
        )
        return [
            ImportedTurn(row.user, row.assistant, frozenset(json.loads(row.source_ids)), bool(row.forgotten))
            for row in rows
        ]

    def hidings_of(self, user_id: str, memory_ids: Collection[str]) -> list[Hiding]:
        """Return what hides some of this user's memories now."""
        rows = self._rows("hidings_of", user_id=user_id, memory_ids=json_list(memory_ids))
        return [Hiding(row.memory_id, row.hidden_by, row.event_id) for row in rows]

    def erasures_begun(self) -> list[tuple[str, str]]:
        """Return user and event id of each ``UserErased`` event whose user's ids still stand in the ledger."""
        return [(row.user_id, row.event_id) for row in self._rows("erasures_begun")]

    def positions_of_memories(self, user_id: str, memory_ids: Collection[str]) -> list[int]:
        """Return where everything stands that belongs to these turns of a user and is not blanked, in order."""
        rows = self._rows("positions_of_memories", user_id=user_id, memory_ids=json_list(memory_ids))
        return [row.position for row in rows]

    def positions_of_conversation(self, stream: StreamId) -> list[int]:
        """Return where the events of a conversation stand that are not blanked, in order."""
        keys = {"user_id": stream.user_id, "conversation_id": stream.conversation_id}
        return [row.position for row in self._rows("positions_of_conversation", **keys)]

    def positions_before(self, user_id: str, moment: datetime) -> list[int]:
        """Return where everything of a user's conversations stands that is older than ``moment``, in order."""
        return [row.position for row in self._rows("positions_before", user_id=user_id, moment=iso(moment))]

    def conversations_at(self, user_id: str, positions: Sequence[int]) -> list[str]:
        """Return the conversations of a user that have an event at one of these positions, in order."""
        rows = self._rows("conversations_at", user_id=user_id, positions=json_list(positions))
        return [row.conversation_id for row in rows]

    def events_of_user(self, user_id: str, types: Sequence[str]) -> Iterator[Event]:
        """Yield a user's events of these types that are not blanked, in order."""
        after = 0
        wanted = json_list(types)
        while rows := self._rows("events_of_user_after", user_id=user_id, types=wanted, position=after, count=_PAGE):
            yield from (event_of(row) for row in rows if row.salt)
            after = rows[-1].position

    def all_users(self) -> Iterator[str]:
        """Yield every user of whom anything is kept, in the order of their ids."""
        last = ""
        while rows := self._rows("all_users_after", user_id=last, count=_PAGE):
            yield from (row.user_id for row in rows)
            last = rows[-1].user_id

    def is_completed(self, erasure_id: str) -> bool:
        """Tell whether an erasure is done in every file."""
        return bool(self._rows("is_completed", event_id=erasure_id))

    def parts_begun(self) -> list[Event]:
        """Return each ``MemoriesErased`` event that no ``ErasureCompleted`` follows, in order."""
        return [event_of(row) for row in self._rows("parts_begun")]

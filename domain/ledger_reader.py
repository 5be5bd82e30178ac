"""What a turn asks the ledger, and what those who follow or check it ask: one method per question.

What people do with their own memory is asked of :mod:`domain.person_reader`, what they are shown again of their
conversations of :mod:`domain.history_reader`, what was at an earlier time of :mod:`domain.audit_reader`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Row, and_, func, select, tuple_

from domain.chain import GENESIS
from domain.events import (
    EmbeddingModelActivated,
    Event,
    MemoryEdited,
    MemoryForgotten,
    PromptsActivated,
    SummaryRecorded,
    TurnRecorded,
    UserErased,
)
from domain.identity import StreamId
from domain.memory import FacetText, Memory
from domain.prepared import as_list
from domain.reader import Reader, StoredEvent, of_stream
from domain.schema import EVENTS
from domain.statements import (
    ACTIVE_MODEL,
    BESIDE_REACH,
    FACET_TYPES,
    FACETS,
    FACETS_AT,
    FACETS_OF_USER,
    LATEST,
    MEMORIES,
    NEIGHBOURS,
    POSITIONS_BESIDE,
    RECENT_TURNS,
    RECENT_TURNS_BEFORE,
    STANDING,
    event_of,
    facet_changes,
    memory_of,
)

_USERS_PER_READ = 1000


@dataclass(frozen=True, slots=True)
class ConversationHead:
    """A conversation, and the version and hash of its last event."""

    user_id: str
    conversation_id: str
    version: int
    hash: str


@dataclass(frozen=True, slots=True)
class Erasures:
    """How many erasures were begun so far, and how many of them have yet to blank their own event, the last one."""

    begun: int
    unfinished: int


@dataclass(frozen=True, slots=True)
class MemoryState:
    """What whoever holds something made of a user's events has to look at again, each by the position of its event.

    ``facets_at`` is that of the newest event that changes by which texts this user's memories are found,
    ``activated_at`` that of the activation of their embedding model; 0 where there is none.
    """

    facets_at: int
    activated_at: int
    erasures: Erasures


class LedgerReader(Reader):
    """What a turn, the followers of the ledger and the checks of it ask."""

    def head(self) -> tuple[int, str]:
        """Return the last event's position (0 for an empty ledger) and hash."""
        query = select(EVENTS.c.position, EVENTS.c.hash).order_by(EVENTS.c.position.desc()).limit(1)
        rows = self._all(query)
        return (rows[0].position, rows[0].hash) if rows else (0, GENESIS)

    def head_position(self) -> int:
        """Return the position of the last event, 0 when there is none."""
        return self.head()[0]

    def erasures(self) -> Erasures:
        """Return how many erasures were begun, and how many of them are not finished."""
        rows = self._all(select(EVENTS.c.salt).where(EVENTS.c.type == UserErased.type))
        return Erasures(begun=len(rows), unfinished=sum(row.salt != "" for row in rows))

    def erasure_ids(self) -> set[str]:
        """Return the ids of the events by which people were erased."""
        return {row.event_id for row in self._all(select(EVENTS.c.event_id).where(EVENTS.c.type == UserErased.type))}

    def hash_at(self, position: int) -> str:
        """Return the hash of the event at ``position``; the genesis hash for 0, where the ledger has no event yet."""
        rows = self._all(select(EVENTS.c.hash).where(EVENTS.c.position == position))
        return str(rows[0].hash) if rows else GENESIS

    def is_anchor(self, user_id: str, position: int, anchor: str) -> bool:
        """Tell whether this user's event at ``position`` has the hash ``anchor``."""
        query = select(EVENTS.c.position).where(
            EVENTS.c.position == position, EVENTS.c.user_id == user_id, EVENTS.c.hash == anchor
        )
        return bool(self._all(query))

    def events_after(self, position: int, limit: int, types: Sequence[str] | None = None) -> list[Event]:
        """Return at most ``limit`` events behind ``position``, in order, of the given types or all."""
        query = select(EVENTS).where(EVENTS.c.position > position)
        if types is not None:
            query = query.where(EVENTS.c.type.in_(types))
        return [event_of(row) for row in self._all(query.order_by(EVENTS.c.position).limit(limit))]

    def stored_after(self, position: int, limit: int) -> list[StoredEvent]:
        """Return at most ``limit`` rows behind ``position``, in order, as they are stored."""
        query = select(EVENTS).where(EVENTS.c.position > position).order_by(EVENTS.c.position).limit(limit)
        return [StoredEvent(*tuple(row)) for row in self._all(query)]

    def stored_in_stream(self, stream: StreamId, after_version: int, limit: int) -> list[StoredEvent]:
        """Return at most ``limit`` rows of one conversation behind ``after_version``, in order."""
        query = (
            select(EVENTS)
            .where(of_stream(stream), EVENTS.c.version > after_version)
            .order_by(EVENTS.c.version)
            .limit(limit)
        )
        return [StoredEvent(*tuple(row)) for row in self._all(query)]

    def heads_after(self, stream: StreamId | None, limit: int) -> list[ConversationHead]:
        """Return at most ``limit`` conversations in the order of their ids, behind ``stream``."""
        heads = (
            select(EVENTS.c.user_id, EVENTS.c.conversation_id, func.max(EVENTS.c.version).label("version"))
            .group_by(EVENTS.c.user_id, EVENTS.c.conversation_id)
            .order_by(EVENTS.c.user_id, EVENTS.c.conversation_id)
            .limit(limit)
        )
        if stream is not None:
            heads = heads.where(
                tuple_(EVENTS.c.user_id, EVENTS.c.conversation_id) > (stream.user_id, stream.conversation_id)
            )
        head = heads.subquery()
        query = (
            select(head, EVENTS.c.hash)
            .join(
                EVENTS,
                and_(
                    EVENTS.c.user_id == head.c.user_id,
                    EVENTS.c.conversation_id == head.c.conversation_id,
                    EVENTS.c.version == head.c.version,
                ),
            )
            .order_by(head.c.user_id, head.c.conversation_id)
        )
        return [ConversationHead(**row._asdict()) for row in self._all(query)]

    def users_after(self, user_id: str, limit: int) -> list[str]:
        """Return at most ``limit`` user ids that have memories, in order, behind ``user_id``."""
        query = (
            select(EVENTS.c.user_id)
            .where(EVENTS.c.user_id > user_id, EVENTS.c.type == TurnRecorded.type, EVENTS.c.salt != "")
            .distinct()
            .order_by(EVENTS.c.user_id)
            .limit(limit)
        )
        return [row.user_id for row in self._all(query)]

    def all_users(self) -> Iterator[str]:
        """Yield every user that has memories, in the order of their ids; the erased have none."""
        last = ""
        while users := self.users_after(last, _USERS_PER_READ):
            yield from users
            last = users[-1]

    def recent_turns(
        self, stream: StreamId, limit: int, before_turn: int | None = None, *, as_of: int = LATEST
    ) -> list[Memory]:
        """Return the newest ``limit`` turns of a conversation, oldest first, without the forgotten ones.

        ``before_turn`` leaves out later turns, ``as_of`` asks what would have been answered at that position.
        """
        if limit == 0:
            return []
        asked: dict[str, object] = {
            "user_id": stream.user_id,
            "conversation_id": stream.conversation_id,
            "count": limit,
            "as_of": as_of,
        }
        if before_turn is None:
            rows = self._run(RECENT_TURNS, **asked)
        else:
            rows = self._run(RECENT_TURNS_BEFORE, **asked, before_turn=before_turn)
        return [memory_of(row) for row in reversed(rows)]

    def memories(self, user_id: str, positions: Sequence[int], *, as_of: int = LATEST) -> dict[int, Memory]:
        """Return this user's memories by the positions of their turns, as they stood ``as_of`` a ledger position.

        What is not this user's turn, or was forgotten, is missing.
        """
        if not positions:
            return {}
        rows = self._run(MEMORIES, user_id=user_id, positions=as_list(positions), as_of=as_of)
        return {row.position: memory_of(row) for row in rows}

    def neighbors(self, user_id: str, positions: Sequence[int], reach: int, *, as_of: int = LATEST) -> list[Memory]:
        """Return the turns at most ``reach`` before or after this user's turns at ``positions``, oldest first.

        Each in its own conversation. The turns asked about may be among them; forgotten ones are not, and no further
        turn takes their place.
        """
        if not positions or reach == 0:
            return []
        rows = self._run(NEIGHBOURS, user_id=user_id, positions=as_list(positions), reach=reach, as_of=as_of)
        # Here, and not by SQLite, which would copy every text for it.
        return [memory_of(row) for row in sorted(rows, key=attrgetter("position"))]

    def belongs(self, user_id: str, position: int) -> bool:
        """Tell whether the event at a position is this user's: it is not any more after an erasure."""
        query = select(EVENTS.c.position).where(EVENTS.c.position == position, EVENTS.c.user_id == user_id)
        return bool(self._all(query))

    def streams_of(self, user_id: str) -> list[StreamId]:
        """Return all conversations of a user, their own stream among them, in the order of their ids."""
        query = select(EVENTS.c.conversation_id).where(EVENTS.c.user_id == user_id).distinct()
        rows = self._all(query.order_by(EVENTS.c.conversation_id))
        return [StreamId(user_id, row.conversation_id) for row in rows]

    def positions_beside(
        self, user_id: str, positions: Sequence[int], *, as_of: int = LATEST
    ) -> dict[int, tuple[tuple[int, ...], ...]]:
        """Return for this user's turns at ``positions`` where the turns beside them stand, by their distance.

        First those one turn before and after in the same conversation, then those two turns away. Forgotten ones count.
        """
        if not positions:
            return {}
        rows = self._run(POSITIONS_BESIDE, positions=as_list(positions), as_of=as_of)
        return {row.position: _rings(row) for row in rows if row.user_id == user_id}

    def facet_texts(
        self, user_id: str | None, after: int, limit: int, *, as_of: int = LATEST
    ) -> tuple[list[FacetText], int]:
        """Return what at most ``limit`` events behind ``after`` say of how memories are found, and the last position.

        ``user_id`` None means all users. A turn gives the text of its exchange, a summary or an edit its own, a
        forgotten memory withdraws both. The position returned equals ``after`` when there was nothing more to read.
        """
        changes: list[FacetText] = []
        if user_id is None:
            rows = self._run(FACETS, after=after, count=limit, as_of=as_of)
        else:
            rows = self._run(FACETS_OF_USER, after=after, count=limit, user_id=user_id, as_of=as_of)
        for row in rows:
            changes += facet_changes(row)
        return changes, (rows[-1].position if rows else after)

    def facets_at(self, user_id: str) -> int:
        """Return the position of the newest event that :meth:`facet_texts` has of this user, 0 where it has none."""
        return int(self._run(FACETS_AT, user_id=user_id)[0].facets_at)

    def memory_state(self, user_id: str) -> MemoryState:
        """Return how far this user's memory and what it depends on have gone, in one look."""
        row = self._run(STANDING, user_id=user_id)[0]
        return MemoryState(row.facets_at, row.activated_at, Erasures(row.begun, row.unfinished))

    def count_facets(self, user_id: str | None, after: int = 0) -> int:
        """Count the events behind ``after`` that change by which texts memories are found, of one user or of all."""
        return self._count(FACET_TYPES, user_id, after)

    def count_turns(self, user_id: str | None) -> int:
        """Count the memories of one user or of all."""
        return self._count((TurnRecorded.type,), user_id)

    def _count(self, types: Sequence[str], user_id: str | None, after: int = 0) -> int:
        query = select(func.count()).where(EVENTS.c.type.in_(types), EVENTS.c.salt != "", EVENTS.c.position > after)
        if user_id is not None:
            query = query.where(EVENTS.c.user_id == user_id)
        return int(self._all(query)[0][0])

    def turns_without_summary(self, after: int, limit: int) -> list[Event]:
        """Return at most ``limit`` turns behind ``after`` that have no summary yet, in order."""
        about = EVENTS.alias("about")
        needs_none = (
            select(about.c.position)
            .where(
                about.c.causation_id == EVENTS.c.event_id,
                about.c.type.in_((SummaryRecorded.type, MemoryEdited.type, MemoryForgotten.type)),
                about.c.user_id == EVENTS.c.user_id,
            )
            .exists()
        )
        query = (
            select(EVENTS)
            .where(EVENTS.c.type == TurnRecorded.type, EVENTS.c.position > after, EVENTS.c.salt != "", ~needs_none)
            .order_by(EVENTS.c.position)
            .limit(limit)
        )
        return [event_of(row) for row in self._all(query)]

    def events_of_answer(self, correlation_id: str) -> list[Event]:
        """Return the events of one chat completion, in order."""
        query = select(EVENTS).where(EVENTS.c.correlation_id == correlation_id).order_by(EVENTS.c.position)
        return [event_of(row) for row in self._all(query)]

    def active_embedding_model(self, user_id: str) -> EmbeddingModelActivated | None:
        """Return what was activated last for this user or for everybody, None when nothing ever was."""
        return _activation(self._all(ACTIVE_MODEL, user_id=user_id))

    def activation_at(self, position: int) -> EmbeddingModelActivated | None:
        """Return what the event at a position activated, None where it is no such event."""
        return _activation(self._all(select(EVENTS).where(EVENTS.c.position == position)))

    def active_prompts(self) -> PromptsActivated | None:
        """Return the prompts activated last, None when none ever were."""
        query = select(EVENTS).where(EVENTS.c.type == PromptsActivated.type).order_by(EVENTS.c.position.desc()).limit(1)
        rows = self._all(query)
        payload = event_of(rows[0]).payload if rows else None
        return payload if isinstance(payload, PromptsActivated) else None


_POSITIONS = msgspec.json.Decoder(list[int])


def _rings(row: Row[Any]) -> tuple[tuple[int, ...], ...]:
    """Return the positions that a row of :data:`POSITIONS_BESIDE` holds by their distance."""
    # Turns of a conversation stand in the ledger in their order.
    before, after = sorted(_POSITIONS.decode(row.before), reverse=True), sorted(_POSITIONS.decode(row.after))
    return tuple((*before[at : at + 1], *after[at : at + 1]) for at in range(BESIDE_REACH))


def _activation(rows: Sequence[Row[Any]]) -> EmbeddingModelActivated | None:
    payload = event_of(rows[0]).payload if rows else None
    return payload if isinstance(payload, EmbeddingModelActivated) else None

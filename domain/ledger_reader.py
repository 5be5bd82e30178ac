"""What turns ask the ledger, and what its followers and checks ask: one method per question.

What people ask of their own memory is in :mod:`domain.person_reader`, what they are shown of their conversations in
:mod:`domain.history_reader`, and what was at an earlier time in :mod:`domain.audit_reader`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import msgspec
from sqlalchemy import Row

from domain.branches import TurnState
from domain.chain import GENESIS
from domain.errors import LedgerReadFailed
from domain.events import Damaged, EmbeddingModelActivated, Event, PromptsActivated, SettingsActivated, TurnRecorded
from domain.identity import SYSTEM_STREAM, StreamId
from domain.memory import FacetText, Memory
from domain.reader import Reader, StoredEvent, json_list, stored_of
from domain.rows import event_of, facet_changes, memories_of
from domain.statements import FACET_TYPES, LATEST

WHOLE = LATEST
"""``chars_max`` for whole texts."""
_CHARS_TOGETHER = 8_000_000
_CHARS_LEAST, _CHARS_MOST = 20_000, 400_000
_POSITION, _PAYLOAD = 0, 4
"""Places in the rows of the statements that read many turns. SQLite would copy every text to sort these."""
_USERS_PER_READ = 1000
_TURN_STATES = msgspec.json.Decoder(list[TurnState])
_BESIDE_REACH = 2
"""How many turns before and after a turn :meth:`LedgerReader.positions_beside` looks at."""


@dataclass(frozen=True, slots=True)
class ConversationHead:
    """A conversation, and the version and hash of its last event."""

    user_id: str
    conversation_id: str
    version: int
    hash: str


@dataclass(frozen=True, slots=True)
class Erasures:
    """How many users' erasures have begun, and how many of those still have events to blank.

    ``parts_at`` is the position at which the erasure of a part of anybody's memory last began or ended.
    """

    begun: int
    unfinished: int
    parts_at: int = 0


@dataclass(frozen=True, slots=True)
class MemoryState:
    """Tells whether what was made of a user's memory, an index above all, is still up to date.

    An index holds every text up to a position, searched with one embedding model. It lacks something when
    ``facets_at`` is behind that position: the newest event that changes by which texts this user's memories are found.
    It is of another model when ``activated_at`` has moved: the newest activation for this user or for everybody. Both
    are positions in the ledger, 0 where there is no such event.

    An erasure blanks events without adding any, so neither position shows it: ``erasures`` does. When it has changed,
    what was made of events may hold what an erased person said, and its events must be looked at again.
    """

    facets_at: int
    activated_at: int
    erasures: Erasures


class LedgerReader(Reader):
    """What turns, followers and checks ask."""

    def head(self) -> tuple[int, str]:
        """Return the last event's position (0 for an empty ledger) and hash."""
        rows = self._rows("head")
        return (rows[0].position, rows[0].hash) if rows else (0, GENESIS)

    def head_position(self) -> int:
        """Return the position of the last event, 0 when there is none."""
        return self.head()[0]

    def erasures(self) -> Erasures:
        """Return how many erasures have begun, and how many of them are not finished."""
        rows = self._rows("erasures")
        parts_at = self._rows("parts_at")[0].position
        return Erasures(begun=len(rows), unfinished=sum(row.salt != "" for row in rows), parts_at=parts_at)

    def erasure_ids(self) -> set[str]:
        """Return the ids of the events by which people, or parts of their memory, were erased."""
        return {row.event_id for row in self._rows("erasure_ids")}

    def hash_at(self, position: int) -> str:
        """Return the hash of the event at ``position``; the genesis hash where the ledger has no event."""
        rows = self._rows("hash_at", position=position)
        return str(rows[0].hash) if rows else GENESIS

    def is_anchor(self, user_id: str, position: int, anchor: str) -> bool:
        """Tell whether this user's event at ``position`` has the hash ``anchor``."""
        return bool(self._rows("is_anchor", position=position, user_id=user_id, hash=anchor))

    def events_after(self, position: int, limit: int, types: Sequence[str] | None = None) -> list[Event]:
        """Return at most ``limit`` events after ``position``, in order, of the given types or all."""
        wanted = None if types is None else json_list(types)
        return [event_of(row) for row in self._rows("events_after", position=position, types=wanted, count=limit)]

    def stored_after(self, position: int, limit: int) -> list[StoredEvent]:
        """Return at most ``limit`` rows after ``position``, in order, as they are stored."""
        return [stored_of(row) for row in self._rows("stored_after", position=position, count=limit)]

    def stored_in_stream(self, stream: StreamId, after_version: int, limit: int) -> list[StoredEvent]:
        """Return at most ``limit`` rows of one conversation after ``after_version``, in order."""
        rows = self._rows(
            "stored_in_stream",
            user_id=stream.user_id,
            conversation_id=stream.conversation_id,
            version=after_version,
            count=limit,
        )
        return [stored_of(row) for row in rows]

    def heads_after(self, stream: StreamId | None, limit: int) -> list[ConversationHead]:
        """Return at most ``limit`` conversations in the order of their ids, after ``stream`` or from the first."""
        last, version = (SYSTEM_STREAM, 0) if stream is None else (stream, LATEST)
        rows = self._rows(
            "heads_after", user_id=last.user_id, conversation_id=last.conversation_id, version=version, count=limit
        )
        return [ConversationHead(**row._asdict()) for row in rows]

    def users_after(self, user_id: str, limit: int) -> list[str]:
        """Return at most ``limit`` user ids that have memories, in order, after ``user_id``."""
        return [row.user_id for row in self._rows("users_after", user_id=user_id, count=limit)]

    def all_users(self) -> Iterator[str]:
        """Yield every user that has memories, in the order of their ids; the erased have none."""
        last = ""
        while users := self.users_after(last, _USERS_PER_READ):
            yield from users
            last = users[-1]

    def recent_turns(
        self,
        stream: StreamId,
        limit: int,
        before_turn: int | None = None,
        *,
        as_of: int = LATEST,
        chars_max: int = WHOLE,
    ) -> list[Memory]:
        """Return the newest ``limit`` turns of a conversation, oldest first, without the hidden ones.

        ``before_turn`` leaves out that turn and later ones, ``as_of`` asks what the answer was at that position.
        ``chars_max`` shortens longer questions and answers, see :func:`turn_chars_max`.
        """
        if limit == 0:
            return []
        rows = self._gathered(
            "recent_turns",
            user_id=stream.user_id,
            conversation_id=stream.conversation_id,
            count=limit,
            before_turn=before_turn,
            as_of=as_of,
            chars_max=chars_max,
        )
        return sorted(self._memories_of(rows, chars_max), key=attrgetter("position"))

    def memories(
        self, user_id: str, positions: Sequence[int], *, as_of: int = LATEST, chars_max: int = WHOLE
    ) -> dict[int, Memory]:
        """Return this user's memories by the positions of their turns, as they stood ``as_of`` a ledger position.

        What is not this user's turn, or is hidden, is missing. ``chars_max`` is that of :meth:`recent_turns`.
        """
        if not positions:
            return {}
        rows = self._gathered(
            "memories", user_id=user_id, positions=json_list(positions), as_of=as_of, chars_max=chars_max
        )
        return {memory.position: memory for memory in self._memories_of(rows, chars_max)}

    def neighbors(
        self, user_id: str, positions: Sequence[int], reach: int, *, as_of: int = LATEST, chars_max: int = WHOLE
    ) -> list[Memory]:
        """Return the turns at most ``reach`` before or after this user's turns at ``positions``, oldest first.

        Each in its own conversation. The turns asked about may be among them; hidden ones are not, and no further
        turn takes their place.
        """
        if not positions or reach == 0:
            return []
        rows = self._gathered(
            "neighbors",
            user_id=user_id,
            positions=json_list(positions),
            reach=reach,
            as_of=as_of,
            chars_max=chars_max,
        )
        return sorted(self._memories_of(rows, chars_max), key=attrgetter("position"))

    def branch(self, stream: StreamId) -> list[TurnState]:
        """Return every turn of a conversation, hidden or not, in order, without its texts."""
        row = self._rows("branch", user_id=stream.user_id, conversation_id=stream.conversation_id)[0]
        turns = _TURN_STATES.decode(row.turns)
        hidden = [tuple(each) for each in json.loads(row.hidden)]
        if not hidden:
            return turns
        forgotten = {memory_id for memory_id, by in hidden if by == "forgotten"}
        superseded = {memory_id for memory_id, by in hidden if by == "superseded"}
        return [
            msgspec.structs.replace(
                turn, forgotten=turn.memory_id in forgotten, superseded=turn.memory_id in superseded
            )
            if turn.memory_id in forgotten or turn.memory_id in superseded
            else turn
            for turn in turns
        ]

    def _memories_of(self, rows: Sequence[list[Any]], chars_max: int) -> list[Memory]:
        """Return the memories in rows, reading those too long for ``chars_max`` with shortened texts."""
        long = [row[_POSITION] for row in rows if row[_PAYLOAD] is None]
        if not long:
            return memories_of(rows)
        found = self._gathered("long_turns", positions=json_list(long), chars_max=chars_max)
        payloads = {position: payload for position, payload, _ in found}
        cut = {position for position, _, is_cut in found if is_cut}
        for row in rows:
            if row[_PAYLOAD] is None:
                row[_PAYLOAD] = payloads.get(row[_POSITION], "")  # one that is damaged has none
        memories = memories_of(rows)
        return [replace(memory, cut_chars=chars_max) if memory.position in cut else memory for memory in memories]

    def belongs(self, user_id: str, position: int) -> bool:
        """Tell whether the event at a position is this user's. After an erasure it no longer is."""
        return bool(self._rows("belongs", position=position, user_id=user_id))

    def streams_of(self, user_id: str) -> list[StreamId]:
        """Return all conversations of a user, their own stream among them, in the order of their ids."""
        return [StreamId(user_id, row.conversation_id) for row in self._rows("streams_of", user_id=user_id)]

    def positions_beside(
        self, user_id: str, positions: Sequence[int], *, as_of: int = LATEST
    ) -> dict[int, tuple[tuple[int, ...], ...]]:
        """Return for this user's turns at ``positions`` where the turns beside them stand, by their distance.

        First those one turn before and after in the same conversation, then those two turns away. Hidden ones count.
        """
        if not positions:
            return {}
        rows = self._gathered("positions_beside", positions=json_list(positions), reach=_BESIDE_REACH, as_of=as_of)
        return {position: _by_distance(before, after) for position, owner, before, after in rows if owner == user_id}

    def facet_texts(
        self, user_id: str | None, after: int, limit: int, *, as_of: int = LATEST
    ) -> tuple[list[FacetText], int]:
        """Return what at most ``limit`` events after ``after`` say of how memories are found, and the last position.

        ``user_id`` None means all users. A turn gives the text of its exchange, a summary or an edit its own; what
        hides a memory withdraws both, and what brings it back gives both again. The position returned equals ``after``
        when there was nothing more to read.
        """
        if user_id is None:
            rows = self._rows("facet_texts", position=after, count=limit, as_of=as_of)
        else:
            rows = self._rows("facet_texts_of_user", user_id=user_id, position=after, count=limit, as_of=as_of)
        return [change for row in rows for change in facet_changes(row)], (rows[-1].position if rows else after)

    def facets_at(self, user_id: str) -> int:
        """Return the position of the newest event that :meth:`facet_texts` has of this user, 0 where it has none."""
        return self.memory_state(user_id).facets_at

    def memory_state(self, user_id: str) -> MemoryState:
        """Return up to where this user's memory has changed, and how many erasures there were."""
        row = self._rows("memory_state", user_id=user_id)[0]
        return MemoryState(row.facets_at, row.activated_at, Erasures(row.begun, row.unfinished, row.parts_at))

    def count_facets(self, user_id: str | None, after: int = 0) -> int:
        """Count the events after ``after`` that change by which texts memories are found, of one user or of all."""
        return self._count(FACET_TYPES, user_id, after)

    def count_turns(self, user_id: str | None) -> int:
        """Count the turns of one user or of all, hidden ones included."""
        return self._count((TurnRecorded.type,), user_id)

    def count_memories(self, user_id: str | None) -> int:
        """Count the memories of one user or of all: the turns that are not hidden."""
        return self.count_turns(user_id) - int(self._rows("count_hidden_turns", user_id=user_id)[0][0])

    def _count(self, types: Sequence[str], user_id: str | None, after: int = 0) -> int:
        if user_id is None:
            rows = self._rows("count_events", types=json_list(types), position=after)
        else:
            rows = self._rows("count_events_of_user", user_id=user_id, types=json_list(types), position=after)
        return int(rows[0][0])

    def turns_without_summary(self, after: int, limit: int) -> tuple[list[Event], int]:
        """Return at most ``limit`` turns that lack a summary, in order, and the position up to which these are all.

        They were recorded after ``after``, or brought back after it. Hidden ones need no summary. The position returned
        equals ``after`` where there was none.
        """
        rows = self._rows("turns_without_summary", position=after, count=limit)
        return [event_of(row) for row in rows], (rows[-1].since if rows else after)

    def count_turns_without_summary(self, after: int, most: int = 1_000_000) -> int:
        """Return how many turns that leaves, of any ``limit``, counted to at most ``most``."""
        rows = self._rows("count_turns_without_summary", position=after, count=most)
        return int(rows[0].lacking)

    def events_named(self, event_ids: Collection[str]) -> dict[str, Event]:
        """Return events by their ids; an id that no event has is missing."""
        events = map(event_of, self._rows("events_named", event_ids=json_list(event_ids)))
        return {event.event_id: event for event in events}

    def events_at(self, positions: Collection[int]) -> dict[int, Event]:
        """Return events by their positions; a position that the ledger has not reached is missing."""
        events = map(event_of, self._rows("events_at", positions=json_list(positions)))
        return {event.position: event for event in events}

    def events_of_answer(self, correlation_id: str) -> list[Event]:
        """Return the events of one chat completion, in order."""
        return [event_of(row) for row in self._rows("events_of_answer", correlation_id=correlation_id)]

    def active_embedding_model(self, user_id: str, *, as_of: int = LATEST) -> EmbeddingModelActivated | None:
        """Return what was activated last for this user or for everybody, None when nothing ever was."""
        return _activation(self._rows("active_embedding_model", user_id=user_id, as_of=as_of))

    def models_activated(self) -> list[EmbeddingModelActivated]:
        """Return every activation of an embedding model, for anybody, in order."""
        payloads = (event_of(row).payload for row in self._rows("models_activated"))
        return [payload for payload in payloads if isinstance(payload, EmbeddingModelActivated)]

    def activation_at(self, position: int) -> EmbeddingModelActivated | None:
        """Return what the event at a position activated, None where it is no such event."""
        return _activation(self._rows("event_at", position=position))

    def active_prompts(self) -> PromptsActivated | None:
        """Return the prompts activated last, None when none ever were."""
        rows = self._rows("newest_of_type", type=PromptsActivated.type)
        payload = event_of(rows[0]).payload if rows else None
        return payload if isinstance(payload, PromptsActivated) else None

    def active_settings(self) -> SettingsActivated | None:
        """Return the settings activated last, None when none ever were."""
        rows = self._rows("newest_of_type", type=SettingsActivated.type)
        payload = event_of(rows[0]).payload if rows else None
        return payload if isinstance(payload, SettingsActivated) else None


def turn_chars_max(count: int) -> int:
    """Return how many characters of a question or an answer are read where ``count`` turns are read at once.

    However long memories are, a turn then reads a bounded number of bytes. What does not fit a prompt is shown as one
    line anyway; what fits, and is longer than this, is shown shortened, and the prompt's report says so.
    """
    return max(_CHARS_LEAST, min(_CHARS_MOST, _CHARS_TOGETHER // max(count, 1)))


def _by_distance(turns_before: list[int], turns_after: list[int]) -> tuple[tuple[int, ...], ...]:
    """Return positions before and after a turn by their distance from it."""
    # The turns of a conversation stand in the ledger in their order.
    before, after = sorted(turns_before, reverse=True), sorted(turns_after)
    return tuple((*before[at : at + 1], *after[at : at + 1]) for at in range(_BESIDE_REACH))


def _activation(rows: Sequence[Row[Any]]) -> EmbeddingModelActivated | None:
    payload = event_of(rows[0]).payload if rows else None
    if isinstance(payload, Damaged):
        # Without it, memory would be embedded anew with whatever model is configured.
        raise LedgerReadFailed(
            f"event {rows[0].position}, which activated the embedding model, is damaged: `opm verify`"
        )
    return payload if isinstance(payload, EmbeddingModelActivated) else None

"""What a person is shown of their past conversations: the list of them, and the memories behind each answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from domain.events import (
    CandidateFound,
    Damaged,
    GateDecided,
    Payload,
    RerankDecided,
    RetrievalRecorded,
    TurnRecorded,
)
from domain.memory import Memory, Scores
from domain.neighbors import Neighbor, placed
from domain.reader import Reader, json_list
from domain.rows import memories_of, payload_and_origin
from domain.statements import LATEST

_PARTS = (TurnRecorded.type, RetrievalRecorded.type, GateDecided.type, RerankDecided.type)
"""The events of an answer that was given here: an imported turn has no decisions."""


@dataclass(frozen=True, slots=True)
class ConversationSummary:
    """A conversation as a list shows it: how many turns, when the last one was, how it began."""

    conversation_id: str
    turns: int
    last_ts: datetime
    title: str


@dataclass(frozen=True, slots=True)
class UserSummary:
    """A person as a list shows them: how many memories, without hidden ones, and when the last was recorded."""

    user_id: str
    memories: int
    last_recorded_at: datetime


@dataclass(frozen=True, slots=True)
class AnswerMemory:
    """The memories an answer was given with, how well they fitted its question, each best first, and the decisions.

    ``neighbors`` came along with the replayed ones.
    """

    turn: TurnRecorded
    retrieval: RetrievalRecorded
    gate: GateDecided
    rerank: RerankDecided
    replayed: list[tuple[Memory, Scores]]
    summarised: list[tuple[Memory, Scores]]
    neighbors: list[Neighbor]


class HistoryReader(Reader):
    """What a person is shown of their own past conversations."""

    def users(self, limit: int) -> list[UserSummary]:
        """Return the people who have memories, whose last was recorded last first."""
        return [
            UserSummary(row.user_id, row.memories, datetime.fromisoformat(row.last_recorded_at))
            for row in self._rows("users", count=limit)
        ]

    def conversations(self, user_id: str, limit: int) -> list[ConversationSummary]:
        """Return this user's conversations that have a remembered turn, the one used last first."""
        return [
            ConversationSummary(
                row.conversation_id,
                row.turns,
                # Of a damaged turn only the columns are left.
                datetime.fromisoformat(row.last_ts or row.last_recorded_at),
                row.title or "",
            )
            for row in self._rows("conversations", user_id=user_id, count=limit)
        ]

    def answered_with(self, user_id: str, turn_positions: Sequence[int]) -> dict[int, AnswerMemory]:
        """Return by position which memories this user's turns were answered with.

        Missing are imported turns, which were not answered here, answers of which an event is damaged, and memories
        that are hidden since.
        """
        parts: dict[int, dict[str, Payload]] = {}
        for row in self._rows("answers_at", user_id=user_id, positions=json_list(turn_positions)):
            payload, _ = payload_and_origin(row.part_position, row.type, row.schema_version, row.payload)
            if not isinstance(payload, Damaged):
                parts.setdefault(row.position, {})[row.type] = payload
        whole = {position: found for position, found in parts.items() if len(found) == len(_PARTS)}
        memories = self._memories_of(user_id, whole.values())
        return {position: _answer_memory(found, memories) for position, found in whole.items()}

    def _memories_of(self, user_id: str, answers: Collection[Mapping[str, Payload]]) -> dict[str, Memory]:
        """Return by their ids all memories that went into the prompts of some answers."""
        ids: set[str] = set()
        for parts in answers:
            turn = cast(TurnRecorded, parts[TurnRecorded.type])
            ids.update(turn.replayed, turn.summarised, turn.neighbours)
        if not ids:
            return {}
        positions = [row.position for row in self._rows("positions_of", user_id=user_id, event_ids=json_list(ids))]
        rows = self._gathered(
            "memories", user_id=user_id, positions=json_list(positions), as_of=LATEST, chars_max=LATEST
        )
        return {memory.memory_id: memory for memory in memories_of(rows)}


def scores_of(candidate: CandidateFound) -> Scores:
    """Return how well a candidate fitted its question."""
    return Scores(candidate.score, candidate.dense_score, candidate.lexical_score)


def _answer_memory(parts: Mapping[str, Payload], memories: Mapping[str, Memory]) -> AnswerMemory:
    turn = cast(TurnRecorded, parts[TurnRecorded.type])
    retrieval = cast(RetrievalRecorded, parts[RetrievalRecorded.type])
    found = {candidate.memory_id: candidate for candidate in retrieval.candidates}

    def scored(ids: Sequence[str]) -> list[tuple[Memory, Scores]]:
        return [(memories[one], scores_of(found[one])) for one in ids if one in memories and one in found]

    beside, replayed = ([memories[one] for one in ids if one in memories] for ids in (turn.neighbours, turn.replayed))
    return AnswerMemory(
        turn,
        retrieval,
        cast(GateDecided, parts[GateDecided.type]),
        cast(RerankDecided, parts[RerankDecided.type]),
        scored(turn.replayed),
        scored(turn.summarised),
        placed(beside, replayed),
    )

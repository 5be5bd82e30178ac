"""How memories that were used are shown to a client: the same beside an answer and in a conversation's history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from domain.memory import Memory
from domain.neighbours import Neighbour

Scored = tuple[Memory, float]


def timestamp(moment: datetime) -> str:
    """Return a moment as clients read it: ISO 8601, UTC, ``Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def retrieved(
    replayed: Iterable[Scored], summarised: Iterable[Scored], neighbours: Sequence[Neighbour] = ()
) -> dict[str, Any]:
    """Return the ``retrieved`` field: memories with their similarity (cosine) to the question.

    A replayed memory is followed by its neighbours in the order of their turns; these were not searched for, and have
    no score.
    """
    beside = sorted(neighbours, key=lambda neighbour: neighbour.memory.turn_id)
    replay: list[dict[str, Any]] = []
    for memory, score in replayed:
        replay.append(_shown_whole(memory, score, None))
        replay += [_shown_whole(item.memory, None, item.of) for item in beside if item.of == memory.memory_id]
    return {
        "replay": replay,
        "summary_only": [{**_found(memory, score), "summary": memory.note} for memory, score in summarised],
    }


def _shown_whole(memory: Memory, score: float | None, neighbor_of: str | None) -> dict[str, Any]:
    return {
        **_found(memory, score),
        "neighbor_of": neighbor_of,
        "raw_user": memory.user,
        "raw_assistant": memory.assistant,
    }


def _found(memory: Memory, score: float | None) -> dict[str, Any]:
    return {
        "memory_id": memory.memory_id,
        "conv_id": memory.conversation_id,
        "turn_id": memory.turn_id,
        "ts": timestamp(memory.ts),
        "score": round(score, 6) if score is not None else None,
    }

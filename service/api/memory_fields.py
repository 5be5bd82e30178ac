"""How memories that were used are shown to a client: the same beside an answer and in a conversation's history."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from domain.memory import Memory

Scored = tuple[Memory, float]


def timestamp(moment: datetime) -> str:
    """Return a moment as clients read it: ISO 8601, UTC, ``Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def retrieved(replayed: Iterable[Scored], summarised: Iterable[Scored]) -> dict[str, Any]:
    """Return the ``retrieved`` field: memories with their similarity (cosine) to the question."""
    return {
        "replay": [
            {**_found(memory, score), "raw_user": memory.user, "raw_assistant": memory.assistant}
            for memory, score in replayed
        ],
        "summary_only": [{**_found(memory, score), "summary": memory.note} for memory, score in summarised],
    }


def _found(memory: Memory, score: float) -> dict[str, Any]:
    return {
        "memory_id": memory.memory_id,
        "conv_id": memory.conversation_id,
        "turn_id": memory.turn_id,
        "ts": timestamp(memory.ts),
        "score": round(score, 6),
    }

"""How memories that were used are shown to a client: the same beside an answer and in a conversation's history."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from domain.memory import Memory, Scores

Scored = tuple[Memory, Scores]


def timestamp(moment: datetime) -> str:
    """Return a moment as clients read it: ISO 8601, UTC, ``Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def retrieved(replayed: Iterable[Scored], summarised: Iterable[Scored]) -> dict[str, Any]:
    """Return the ``retrieved`` field: memories, and how well they fitted the question.

    ``score`` is the similarity (cosine), which means the same from one question to the next; None where it is not
    known. ``scores`` has it again beside BM25 and the fused score by which candidates were ordered.
    """
    return {
        "replay": [
            {**_found(memory, scores), "raw_user": memory.user, "raw_assistant": memory.assistant}
            for memory, scores in replayed
        ],
        "summary_only": [{**_found(memory, scores), "summary": memory.note} for memory, scores in summarised],
    }


def _found(memory: Memory, scores: Scores) -> dict[str, Any]:
    return {
        "memory_id": memory.memory_id,
        "conv_id": memory.conversation_id,
        "turn_id": memory.turn_id,
        "ts": timestamp(memory.ts),
        "score": _rounded(scores.dense),
        "scores": {
            "fused": _rounded(scores.fused),
            "dense": _rounded(scores.dense),
            "lexical": _rounded(scores.lexical),
        },
    }


def _rounded(score: float | None) -> float | None:
    return round(score, 6) if score is not None else None

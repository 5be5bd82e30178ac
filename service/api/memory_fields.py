"""How memories that were used are shown to a client: the same beside an answer and in a conversation's history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from domain.events import GateDecided, RerankDecided, RetrievalMode, RetrievalRecorded
from domain.memory import Memory, Scores
from domain.neighbors import Neighbor

Scored = tuple[Memory, Scores]
_SEARCHED: dict[RetrievalMode | None, str] = {
    None: "Answered without long-term memory",
    "lexical": "Long-term memory was searched by words only",
    "dense": "Long-term memory was searched by meaning only",
}
"""What is said of a turn whose memory could not be searched as it should, by how it was searched instead."""


def timestamp(moment: datetime) -> str:
    """Return a moment as clients read it: ISO 8601, UTC, ``Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def retrieved(
    replayed: Iterable[Scored], summarised: Iterable[Scored], neighbors: Sequence[Neighbor] = ()
) -> dict[str, Any]:
    """Return the ``retrieved`` field: memories, and how well they fitted the question.

    ``score`` is the similarity (cosine), which means the same from one question to the next; None where it is not
    known. ``scores`` has it again beside BM25 and the fused score by which candidates were ordered. A replayed memory
    is followed by its neighbors in the order of their turns; these were not searched for, and have no scores.
    """
    beside = sorted(neighbors, key=lambda neighbor: neighbor.memory.turn_id)
    replay: list[dict[str, Any]] = []
    for memory, scores in replayed:
        replay.append(_shown_whole(memory, scores, None))
        replay += [_shown_whole(item.memory, None, item.of) for item in beside if item.of == memory.memory_id]
    return {
        "replay": replay,
        "summary_only": [{**_found(memory, scores), "summary": memory.note} for memory, scores in summarised],
    }


def memory_status(
    retrieval: RetrievalRecorded, gate: GateDecided, rerank: RerankDecided, notice: str | None = None
) -> dict[str, Any]:
    """Return the ``memory_status`` field: how memory was searched and judged; ``notice`` is for where all went well."""
    if retrieval.outcome == "degraded":
        notice = f"{_SEARCHED[retrieval.mode]}: {retrieval.degraded_reason}"
    return {
        "retrieval": retrieval.outcome,
        "mode": retrieval.mode,
        "gate": {"strategy": gate.strategy, "outcome": gate.outcome},
        "rerank": {"strategy": rerank.strategy, "outcome": rerank.outcome},
        "code": retrieval.degraded_code,
        "notice": notice,
        "time_range": retrieval.time_range,
    }


def _shown_whole(memory: Memory, scores: Scores | None, neighbor_of: str | None) -> dict[str, Any]:
    return {
        **_found(memory, scores),
        "neighbor_of": neighbor_of,
        "raw_user": memory.user,
        "raw_assistant": memory.assistant,
    }


def _found(memory: Memory, scores: Scores | None) -> dict[str, Any]:
    return {
        "memory_id": memory.memory_id,
        "conv_id": memory.conversation_id,
        "turn_id": memory.turn_id,
        "ts": timestamp(memory.ts),
        "score": _rounded(scores.dense) if scores is not None else None,
        "scores": {
            "fused": _rounded(scores.fused),
            "dense": _rounded(scores.dense),
            "lexical": _rounded(scores.lexical),
        }
        if scores is not None
        else None,
    }


def _rounded(score: float | None) -> float | None:
    return round(score, 6) if score is not None else None

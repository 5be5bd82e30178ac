"""How the memories of an answer are shown: the same beside the answer and in a conversation's history."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from domain import memory
from domain.events import GateDecided, PromptReport, RerankDecided, RetrievalMode, RetrievalRecorded
from domain.memory import Memory
from domain.neighbors import Neighbor
from service.api.responses import (
    FoundMemory,
    MemoryStatus,
    NamedTime,
    ReplayedMemory,
    Retrieved,
    Scores,
    ShownMemories,
    SummarisedMemory,
)

Scored = tuple[Memory, memory.Scores]
_SEARCHED: dict[RetrievalMode | None, str] = {
    None: "Answered without long-term memory",
    "lexical": "Long-term memory was searched by words only",
    "dense": "Long-term memory was searched by meaning only",
}
"""What a person reads when a search was degraded, by what could still be searched."""


def timestamp(moment: datetime) -> str:
    """Return a moment as clients read it: ISO 8601, UTC, ``Z``."""
    return moment.isoformat().replace("+00:00", "Z")


def retrieved(
    replayed: Iterable[Scored], summarised: Iterable[Scored], neighbors: Sequence[Neighbor] = ()
) -> Retrieved:
    """Return the ``retrieved`` field.

    A replayed memory is followed by its neighbors in the order of their turns; no search found these, so they have no
    scores.
    """
    beside = sorted(neighbors, key=lambda neighbor: neighbor.memory.turn_id)
    replay: list[ReplayedMemory] = []
    for found, scores in replayed:
        replay.append(_whole(found, scores, None))
        replay += [_whole(item.memory, None, item.of) for item in beside if item.of == found.memory_id]
    return {"replay": replay, "summary_only": [_summary(found, scores) for found, scores in summarised]}


def shown(
    rerank: RerankDecided,
    replayed: Collection[str],
    summarised: Collection[str],
    beside: Collection[str],
    prompt: PromptReport | None,
) -> ShownMemories:
    """Return what became of the memories that the gate kept; the others are ids of what was shown, and how.

    ``beside`` are the neighbors of replayed memories, and the turns of the recent window.
    """
    kept = set(rerank.order)
    left_out = len(kept.difference(replayed, summarised, beside))
    room = f"its {prompt.budget_tokens} tokens" if prompt is not None else "it"
    return {
        "recalled": len(kept),
        "replayed": len(kept.intersection(replayed)),
        "summarised": len(kept.intersection(summarised)),
        "beside": len(kept.intersection(beside)),
        "left_out": left_out,
        "reason": f"the prompt had no room for them in {room}" if left_out else None,
    }


def memory_status(
    retrieval: RetrievalRecorded,
    gate: GateDecided,
    rerank: RerankDecided,
    shown_memories: ShownMemories,
    notice: str | None = None,
) -> MemoryStatus:
    """Return the ``memory_status`` field; ``notice`` is what to say of a search that was not degraded."""
    if retrieval.outcome == "degraded":
        notice = f"{_SEARCHED[retrieval.mode]}: {retrieval.degraded_reason}"
    named = retrieval.time_range
    return {
        "retrieval": retrieval.outcome,
        "mode": retrieval.mode,
        "gate": {"strategy": gate.strategy, "outcome": gate.outcome},
        "rerank": {"strategy": rerank.strategy, "outcome": rerank.outcome},
        "shown": shown_memories,
        "code": retrieval.degraded_code,
        "notice": notice,
        "time_range": NamedTime(
            phrase=named["phrase"],
            start=named["start"],
            end=named["end"],
            timezone=retrieval.knobs.get("timezone") or "UTC",
        )
        if named is not None
        else None,
    }


def _whole(found: Memory, scores: memory.Scores | None, neighbor_of: str | None) -> ReplayedMemory:
    return {
        **_found(found, scores),
        "neighbor_of": neighbor_of,
        "raw_user": found.user,
        "raw_assistant": found.assistant,
    }


def _summary(found: Memory, scores: memory.Scores | None) -> SummarisedMemory:
    return {**_found(found, scores), "summary": found.line}


def _found(found: Memory, scores: memory.Scores | None) -> FoundMemory:
    return {
        "memory_id": found.memory_id,
        "conv_id": found.conversation_id,
        "turn_id": found.turn_id,
        "ts": timestamp(found.ts),
        "score": _rounded(scores.dense) if scores is not None else None,
        "scores": _scores(scores) if scores is not None else None,
    }


def _scores(scores: memory.Scores) -> Scores:
    return {
        "fused": _rounded(scores.fused),
        "dense": _rounded(scores.dense),
        "lexical": _rounded(scores.lexical),
    }


def _rounded(score: float | None) -> float | None:
    return round(score, 6) if score is not None else None

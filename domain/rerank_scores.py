"""What a rerank endpoint is sent, and how its scores are read. Pure.

vLLM, Jina and Cohere answer ``{"results": [{"index", "relevance_score"}]}``; others say ``data`` or ``rankings`` for
``results``, say ``score``, or return the bare list. Answers are read leniently: unknown and repeated indices and scores
that are not numbers are ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from domain.chain import canonical, digest
from domain.events import JsonObject
from domain.memory import Memory

QUESTION_CHARS_MAX = 1000
LINE_CHARS_MAX = 1000
"""Many cross-encoders take 512 tokens for question and line together, and refuse or cut what is longer."""
_LISTS = ("results", "data", "rankings")
_SCORES = ("relevance_score", "score")


def rerank_request(model: str, question: str, asked_at: datetime, memories: Sequence[Memory]) -> JsonObject:
    """Return the request body that asks for a score for each memory; each is sent as a dated line."""
    return {
        "model": model,
        "query": question[:QUESTION_CHARS_MAX],
        "documents": [f"({memory.dated(asked_at)}) {memory.line[:LINE_CHARS_MAX]}" for memory in memories],
        "top_n": len(memories),
    }


def request_hash(request: JsonObject) -> str:
    """Return the hash of a request's query and documents, by which they are proven to be those that were sent."""
    return digest(canonical([request["query"], request["documents"]]))


def read_scores(raw: str, count: int) -> list[tuple[int, float]] | None:
    """Return (number, score) of the scored documents 1..``count``, best first; equal scores by number.

    Returns None if the answer holds no score.
    """
    try:
        answer: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    items = answer
    if isinstance(answer, dict):
        items = next((answer[name] for name in _LISTS if isinstance(answer.get(name), list)), None)
    scores: dict[int, float] = {}
    for item in items if isinstance(items, list) else []:
        index, score = _read(item)
        if index is not None and score is not None and 0 <= index < count:
            scores.setdefault(index + 1, score)
    return sorted(scores.items(), key=lambda item: (-item[1], item[0])) or None


def _read(item: Any) -> tuple[int | None, float | None]:
    if not isinstance(item, dict):
        return None, None
    index, score = item.get("index"), next((item[name] for name in _SCORES if name in item), None)
    if isinstance(index, bool) or not isinstance(index, int):
        return None, None
    if isinstance(score, bool) or not isinstance(score, int | float):
        return index, None
    try:
        score = float(score)
    except OverflowError:  # an integer of hundreds of digits
        return index, None
    return index, score if math.isfinite(score) else None

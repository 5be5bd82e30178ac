"""The request to a rerank endpoint, and how its scores are read. Pure.

vLLM, Jina and Cohere answer ``{"results": [{"index", "relevance_score"}]}``; others name the list ``data`` or the score
``score``, or send the bare list. Items that make no sense are skipped: an unknown or repeated index, or a score that is
no number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from domain.events import JsonObject
from domain.memory import Memory

QUESTION_CHARS_MAX = 1000
NOTE_CHARS_MAX = 1000
"""Cross-encoders commonly take 512 tokens for question and note together, and refuse or cut what is much longer."""
_LISTS = ("results", "data", "rankings")
_SCORES = ("relevance_score", "score")


def rerank_request(model: str, question: str, memories: Sequence[Memory]) -> JsonObject:
    """Return the body of the request for the scores of all memories, each sent with its date."""
    return {
        "model": model,
        "query": question[:QUESTION_CHARS_MAX],
        "documents": [f"({memory.date}) {memory.note[:NOTE_CHARS_MAX]}" for memory in memories],
        "top_n": len(memories),
    }


def read_scores(raw: str, count: int) -> list[tuple[int, float]] | None:
    """Return (number, score) of the scored documents among 1..``count``, best first; equals stay in their order.

    Returns None when the answer has no score at all.
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
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return index, None
    return index, float(score)

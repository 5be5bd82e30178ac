"""What a rerank endpoint is sent, and how its scores are read. Pure.

The answers of vLLM, Jina and Cohere hold ``{"results": [{"index", "relevance_score"}]}``; others say ``data`` for
``results``, or ``score``, or give the bare list. They are read as far as they can be read: an index that does not exist
or was there before, and a score that is no number, say nothing about any memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from domain.events import JsonObject
from domain.memory import Memory

QUESTION_CHARS_MAX = 1000
LINE_CHARS_MAX = 1000
"""Cross-encoders commonly take 512 tokens, question and note together, and refuse what is much longer or cut it."""
_LISTS = ("results", "data", "rankings")
_SCORES = ("relevance_score", "score")


def rerank_request(model: str, question: str, memories: Sequence[Memory]) -> JsonObject:
    """Return the body that asks for the scores of all memories, each with its date."""
    return {
        "model": model,
        "query": question[:QUESTION_CHARS_MAX],
        "documents": [f"({memory.date}) {memory.line[:LINE_CHARS_MAX]}" for memory in memories],
        "top_n": len(memories),
    }


def read_scores(raw: str, count: int) -> list[tuple[int, float]] | None:
    """Return (number, score) of the documents 1..``count`` that were scored, the best first; of equals, the first.

    Returns None when the answer holds no score at all.
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

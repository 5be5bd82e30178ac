"""Whether a text quotes one of many others, and whether an answer to a machine holds words at all. Pure.

To look for every text in every other would take their product. So each is known by its first characters, and a text is
gone through once, whatever the number of quotes.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict

_HEAD_CHARS = 8
"""Shorter texts, such as "yes", count as quoted only where they are all that is said."""
_FORM = re.compile(r'"(?:keep|top|order|ranking|reasons|n|why|reason)"|\b(?:true|false|null|json)\b')
"""What the forms that gate and rerank are asked to fill in say by themselves."""
_NAMES = frozenset({"id", "object", "model", "version"})
"""What a rerank endpoint says in words of itself."""
_SCORES = frozenset(
    {"results", "data", "rankings", "index", "relevance_score", "score"}
    | {"usage", "total_tokens", "prompt_tokens", "completion_tokens"}
    | {"meta", "api_version", "billed_units", "search_units"}
)
"""What else is in its answer, without words. Other fields, such as ``document``, may repeat what it was sent."""
_WORD = re.compile(r"[^\W\d_]")


class Quotes:
    """Some texts, to be looked for in others."""

    def __init__(self) -> None:
        self._long: defaultdict[str, list[str]] = defaultdict(list)
        self._short: set[str] = set()

    def add(self, text: str) -> None:
        """Look for this text too; blanks around it do not count."""
        text = text.strip()
        if len(text) < _HEAD_CHARS:
            self._short.add(text)
        elif text not in self._long[text[:_HEAD_CHARS]]:
            self._long[text[:_HEAD_CHARS]].append(text)

    def are_in(self, text: str) -> bool:
        """Tell whether ``text`` quotes one of these, or is one of them."""
        text = text.strip()
        if not text:
            return False
        if text in self._short:
            return True
        for start in range(len(text) - _HEAD_CHARS + 1):
            for wanted in self._long.get(text[start : start + _HEAD_CHARS], ()):
                if text.startswith(wanted, start):
                    return True
        return False


def has_words(raw_answer: str | None) -> bool:
    """Tell whether a model's raw answer to gate or rerank says anything beside the numbers it was asked for."""
    return raw_answer is not None and _WORD.search(_FORM.sub("", raw_answer)) is not None


def repeats_documents(raw_answer: str | None) -> bool:
    """Tell whether a rerank endpoint's answer says anything beside its scores; vLLM's repeats every document."""
    if raw_answer is None:
        return False
    try:
        return _beside_scores(json.loads(raw_answer))
    except (ValueError, RecursionError):
        return _WORD.search(raw_answer) is not None


def _beside_scores(value: object) -> bool:
    match value:
        case dict():
            said = [(key, inner) for key, inner in value.items() if not (key in _NAMES and isinstance(inner, str))]
            return any(key not in _SCORES or _beside_scores(inner) for key, inner in said)
        case list():
            return any(map(_beside_scores, value))
        case _:
            return isinstance(value, str)

"""Whether a text quotes one of many others, and whether an answer to a machine holds words at all. Pure.

To look for every text in every other would take their product. So each is known by its first characters, and a text is
gone through once, whatever the number of quotes.
"""

from __future__ import annotations

import re
from collections import defaultdict

_HEAD_CHARS = 8
"""Shorter texts, such as "yes", count as quoted only where they are all that is said."""
_FORM = re.compile(r'"(?:keep|order|ranking|reasons|n|why|reason)"|\b(?:true|false|null|json)\b')
"""What the forms that gate and rerank are asked to fill in say by themselves."""
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

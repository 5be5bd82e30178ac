"""A model's reasoning is not part of its answer: it is shown while it comes, and never stored as memory."""

from __future__ import annotations

import re

_THINKING = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
_REPLACEMENT = "\ufffd"


def visible(text: str) -> str:
    """Return a model's text without ``<think>`` blocks, an unfinished one included, and without blanks around it."""
    if "</think>" in text and "<think>" not in text.split("</think>", maxsplit=1)[0]:
        # Some chat templates put the opening tag into the prompt, so that only the closing one is generated.
        text = text.split("</think>", maxsplit=1)[1]
    return _THINKING.sub("", text).strip()


def storable(text: str) -> str:
    """Return text that UTF-8 can carry: a lone surrogate, which a JSON escape can smuggle in, becomes U+FFFD."""
    return "".join(_REPLACEMENT if "\ud800" <= char <= "\udfff" else char for char in text)

"""A model's reasoning is no part of its answer: it may be shown while it streams, but is never stored as memory."""

from __future__ import annotations

import re

# Only at the start of a line. In the middle of one, the answer is talking about the tag.
_THINKING = re.compile(r"^[ \t]*<think>.*?(</think>|\Z)", re.DOTALL | re.MULTILINE)
# Some chat templates put the opening tag into the prompt, so that the model writes only the closing one.
_OPENED_BY_TEMPLATE = re.compile(r"\A((?!<think>).)*?^[ \t]*</think>[ \t]*$", re.DOTALL | re.MULTILINE)
_REPLACEMENT = "\ufffd"


def visible(text: str) -> str:
    """Return a model's text without its reasoning, finished or not, and without surrounding whitespace."""
    return _OPENED_BY_TEMPLATE.sub("", _THINKING.sub("", text)).strip()


def storable(text: str) -> str:
    """Return text that UTF-8 can encode: a lone surrogate, which a JSON escape can bring in, becomes U+FFFD."""
    return "".join(_REPLACEMENT if "\ud800" <= char <= "\udfff" else char for char in text)

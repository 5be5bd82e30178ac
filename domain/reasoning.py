"""Separate a model's reasoning from its answer: reasoning is streamed, but never stored as memory."""

from __future__ import annotations

import re

# Only at the start of a line: inside a line, the answer is talking about the tag.
_THINKING = re.compile(r"^[ \t]*<think>.*?(</think>|\Z)", re.DOTALL | re.MULTILINE)
# Some chat templates put the opening tag into the prompt, so the model writes only the closing one, on its own line.
_OPENED_BY_TEMPLATE = re.compile(r"\A((?!<think>).)*?^[ \t]*</think>[ \t]*$", re.DOTALL | re.MULTILINE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def visible(text: str) -> str:
    """Return a model's text without its reasoning, finished or not, and without surrounding whitespace."""
    return _OPENED_BY_TEMPLATE.sub("", _THINKING.sub("", text)).strip()


def storable(text: str) -> str:
    """Return text that UTF-8 can encode: a lone surrogate, which a JSON escape may contain, becomes U+FFFD."""
    return _SURROGATE.sub(_REPLACEMENT, text)

"""A model's reasoning is not part of its answer: it is shown while it comes, and never stored as memory."""

from __future__ import annotations

import re

# At the beginning of the text or of a line: in the middle of one, the tag is something the answer speaks of.
_THINKING = re.compile(r"^[ \t]*<think>.*?(</think>|\Z)", re.DOTALL | re.MULTILINE)
# Some chat templates put the opening tag into the prompt: only the closing one is generated, on a line of its own.
_OPENED_BY_TEMPLATE = re.compile(r"\A((?!<think>).)*?^[ \t]*</think>[ \t]*$", re.DOTALL | re.MULTILINE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"


def visible(text: str) -> str:
    """Return a model's text without its reasoning, finished or not, and without blanks around it."""
    return _OPENED_BY_TEMPLATE.sub("", _THINKING.sub("", text)).strip()


def storable(text: str) -> str:
    """Return text that UTF-8 can carry: a lone surrogate, which a JSON escape can smuggle in, becomes U+FFFD."""
    return _SURROGATE.sub(_REPLACEMENT, text)

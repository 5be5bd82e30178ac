"""Let a program print any text on any console, also where that is not UTF-8: cp1252 on Windows, ASCII under ``LANG=C``,
and no text control it.

What the console cannot show is written as JSON escapes: people can still tell it apart, and printed JSON stays valid.
"""

from __future__ import annotations

import codecs
import io
import json
import sys
import unicodedata

_ESCAPES = "opm-json-escapes"
_KEPT = frozenset("\n\t")
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the writing direction: they could make one line look like another."""


def print_any_text() -> None:
    """Set standard output and error so that no text fails to be printed."""
    codecs.register_error(_ESCAPES, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test may have put another object there
            stream.reconfigure(errors=_ESCAPES)


def safe(text: str) -> str:
    """Return ``text`` with a replacement character for everything that could control a terminal."""
    return "".join(
        char
        if char in _KEPT or (unicodedata.category(char) not in {"Cc", "Cs"} and char not in _DIRECTION)
        else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end

"""Let a program print any text on any console, also where that is not UTF-8: cp1252 on Windows, ASCII under ``LANG=C``.

What the console cannot show is written as JSON escapes: people can still tell it apart, and printed JSON stays valid.
"""

from __future__ import annotations

import codecs
import io
import json
import sys

_ESCAPES = "opm-json-escapes"


def print_any_text() -> None:
    """Set standard output and error so that no text fails to be printed."""
    codecs.register_error(_ESCAPES, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a test may have put another object there
            stream.reconfigure(errors=_ESCAPES)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end

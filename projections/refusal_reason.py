"""Read why an endpoint refused, from whatever body it sent. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from domain.reasoning import storable

REASON_CHARS_MAX = 300
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_NAMES = ("error", "message", "detail", "msg", "errors", "error_message", "reason", "title")
_DEPTH_MAX = 5
_SAYS_NOTHING = {
    "bad request",
    "unprocessable entity",
    "invalid request",
    "validation error",
    "error",
    "internal server error",
}


def reason_in(body: bytes) -> str:
    """Return the reason in one line; empty where the body holds none, or one that says nothing.

    Known shapes: ``{"error": {"message": ...}}`` (OpenAI), ``{"error": "..."}`` (Ollama), ``{"detail": ...}`` with a
    text or a list of ``{"loc", "msg"}`` (FastAPI), ``{"message": ...}``, ``{"errors": [...]}``, HTML with a title.
    """
    text = body.decode("utf-8", errors="replace").strip()
    try:
        said = reason_of(json.loads(text))
    except (ValueError, RecursionError):
        title = _TITLE.search(text)
        # A page or a stack trace says nothing to a person; a plain line may.
        said = title[1] if title else "" if "<" in text or "\n" in text else text
    said = " ".join(said.split())
    return "" if said.strip(". ").lower() in _SAYS_NOTHING else said


def tellable(reason: str, key: str) -> str:
    """Return a reason that may be shown: one line without the key, cut to ``REASON_CHARS_MAX``."""
    # The key is hidden before the cut, which may go through it.
    hidden = reason.replace(key, "***") if key else reason
    return storable(" ".join(hidden.split())[:REASON_CHARS_MAX])


def reason_of(value: Any, depth: int = 0) -> str:
    """Return the reason that a decoded JSON value states, empty where it states none."""
    if isinstance(value, str):
        return value
    if depth == _DEPTH_MAX:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (reason_of(item, depth + 1) for item in value[:3])))
    if not isinstance(value, dict):
        return ""
    said = next((reason for name in _NAMES if (reason := reason_of(value.get(name), depth + 1))), "")
    where = value.get("loc")
    if said and isinstance(where, list):
        return f"{'.'.join(map(str, where))}: {said}"
    return said

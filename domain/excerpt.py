"""Shorten a text to its beginning and its end, where people say what they want of it. Pure."""

from __future__ import annotations

GAP = " […] "


def excerpt(text: str, chars_max: int) -> str:
    """Return a text of at most ``chars_max`` characters and a gap: two thirds of them from its beginning."""
    if len(text) <= chars_max:
        return text
    head = chars_max * 2 // 3
    return text[:head] + GAP + text[len(text) - (chars_max - head) :]

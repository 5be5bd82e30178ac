"""What the grammars of the languages share: a time that was found in a text, and how numbers are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from domain.temporal.spans import Span


@dataclass(frozen=True, slots=True)
class Named:
    """A time that a text names: what it means, where it stands, and whether it is a date or counted from now."""

    span: Span
    at: int
    end: int
    dated: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """When and how a text was said: ``looks_back`` where it asks about what was, ``looks_ahead`` about what will be."""

    now: datetime
    looks_back: bool
    looks_ahead: bool


Reading = Callable[[re.Match[str], Moment], Span | None]
"""Turns a match into a span; None, or a :class:`ValueError`, where it names no time after all."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A form in which a time is named. ``dated`` tells dates from what is counted from now."""

    pattern: re.Pattern[str]
    read: Reading
    dated: bool = False


def read_all(text: str, rules: Sequence[Rule], moment: Moment) -> Iterator[Named]:
    """Yield what the rules find. A rule comes before those behind it: no two finds share a character."""
    taken = bytearray(len(text))
    for rule in rules:
        for match in rule.pattern.finditer(text):
            at, end = match.span()
            if any(taken[at:end]):
                continue
            # Taken even where it names no time, so that "next May" does not leave a "May" for a later rule.
            taken[at:end] = b"\1" * (end - at)
            try:
                span = rule.read(match, moment)
            except (ValueError, OverflowError):
                continue  # a day or a year that no calendar has
            if span is not None:
                yield Named(span, at, end, rule.dated)

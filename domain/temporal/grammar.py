"""What the grammars share: rules, the times they find in a text, and the moment of the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from domain.temporal.spans import Span


@dataclass(frozen=True, slots=True)
class NamedTime:
    """A time that a text names: what it means in UTC, where it stands, and whether it is a date or relative to now."""

    span: Span
    at: int
    end: int
    dated: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """When a question is asked, in the zone of the person.

    It ``looks_back`` at what was, ``looks_ahead`` to what will be, both, or neither.
    """

    now: datetime
    looks_back: bool
    looks_ahead: bool

    @property
    def only_looks_back(self) -> bool:
        return self.looks_back and not self.looks_ahead


Reading = Callable[[re.Match[str], Moment], Span | None]
"""Turns a match into a span. Returns None or raises :class:`ValueError` when it names no time after all."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A form in which a time is named. ``dated`` marks dates, as opposed to times relative to now."""

    pattern: re.Pattern[str]
    read: Reading
    dated: bool = False


def no_time(_match: re.Match[str], _moment: Moment) -> None:
    """Read a form that names no time of a memory, so that no later rule reads it."""


def read_all(text: str, rules: Sequence[Rule], moment: Moment) -> Iterator[NamedTime]:
    """Yield the times that the rules find. Earlier rules win: no two times share a character."""
    taken = bytearray(len(text))
    for rule in rules:
        for match in rule.pattern.finditer(text):
            at, end = match.span()
            if any(taken[at:end]):
                continue
            # Taken even if it names no time, so that "next May" leaves no "May" to a later rule.
            taken[at:end] = b"\1" * (end - at)
            try:
                span = _in_utc(rule.read(match, moment))
            except (ValueError, OverflowError):
                continue  # the calendar has no such day or year
            if span is not None and span[0] < span[1]:
                yield NamedTime(span, at, end, rule.dated)


def _in_utc(span: Span | None) -> Span | None:
    # Rules reckon by the person's calendar, where a day can have 23 hours, or be left out: then nothing is left of it.
    return (span[0].astimezone(UTC), span[1].astimezone(UTC)) if span is not None else None

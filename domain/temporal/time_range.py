"""Reads the time that a question names, by rules: "last week", "in May 2023", "上周五". Pure.

A wrong range would push the right memory down, so a doubtful word names no time: "may I", "march on", "2.0.1". A
question about the future names none either, since memories are of the past. Long texts are not read: dates in a pasted
letter are its content, not the time that the question asks about.

"Now" is the time of the question in the zone of the person, and days are counted from it. Where nobody says which zone
that is, it is UTC, and some hours of a day fall on the neighboring one. This is one reason why the preference does not
end at the edge of a range.

The grammars are our own; see ``docs/decisions/0051-read-times-by-grammars-of-our-own.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from domain.clock import iso
from domain.events import JsonObject
from domain.temporal import chinese, english
from domain.temporal.grammar import Moment, NamedTime, read_all

QUESTION_CHARS_MAX = 500
TIMES_MAX = 8
"""A text with more is a list of dates."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From ``start`` until before ``end``, both in UTC; ``phrase`` is the wording of the question."""

    start: datetime
    end: datetime
    phrase: str

    def as_event(self) -> JsonObject:
        """Return what the ledger records of it."""
        return {"phrase": self.phrase, "start": iso(self.start), "end": iso(self.end)}


def time_range(question: str, now: datetime) -> TimeRange | None:
    """Return the time in the past that a question names, None if it names none. ``now`` is in the person's zone.

    Dates outweigh times relative to now ("last week, as I said on 9 June"); several of one kind give the range from the
    first to the last.
    """
    if len(question) > QUESTION_CHARS_MAX:
        return None
    # The same length, so that offsets stay valid.
    simplified = question if chinese.JAPANESE.search(question) else question.translate(chinese.SIMPLIFIED)
    in_english = english.HINT.search(question) is not None
    in_chinese = chinese.HINT.search(simplified) is not None
    if not (in_english or in_chinese):
        return None
    moment = Moment(
        now,
        looks_back=bool(english.LOOKS_BACK.search(question) or chinese.LOOKS_BACK.search(simplified)),
        looks_ahead=bool(english.LOOKS_AHEAD.search(question) or chinese.LOOKS_AHEAD.search(simplified)),
    )
    rules = (*(english.RULES if in_english else ()), *(chinese.RULES if in_chinese else ()))
    named = list(islice(read_all(simplified, rules, moment), TIMES_MAX + 1))
    if len(named) > TIMES_MAX:
        return None
    # A time that has not begun holds no memory.
    past = [found for found in named if found.span[0] <= now]
    return _merged([found for found in past if found.dated] or past, question)


def _merged(named: Sequence[NamedTime], question: str) -> TimeRange | None:
    if not named:
        return None
    in_order = sorted(named, key=lambda found: found.at)
    return TimeRange(
        start=min(found.span[0] for found in named),
        end=max(found.span[1] for found in named),
        phrase=" … ".join(question[found.at : found.end] for found in in_order),
    )

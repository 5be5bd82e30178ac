"""The time that a question names, read by rules: "last week", "in May 2023", "上周五". Pure.

A wrong range would push the right memory back, so a doubtful word names no time: "may I", "march on", "2.0.1". A
question about what will be names none either, since memories are of the past. Long texts are not read: the dates in a
letter that somebody pastes are what it says, not the time it is asked about.

"Now" is the moment of the question as the ledger records it, in UTC, and so are the days that are counted from it.
Nobody tells the service where a person is; whoever is west or east of Greenwich has some hours of a day on the
neighboring one, which is one reason why the preference does not end at the edge of a range.

Dates are found by grammars of our own and computed with dateutil. A parser of dates in free text (dateparser 1.5) was
tried and left aside: it read "may I", "the 15" of "iPhone 15" and "we" as dates, and took 0.5 to 4 ms for a question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from domain.clock import iso
from domain.events import JsonObject
from domain.temporal import chinese, english
from domain.temporal.grammar import Moment, Named, read_all

QUESTION_CHARS_MAX = 500
TIMES_MAX = 8
"""A text with more is a list of dates."""


@dataclass(frozen=True, slots=True)
class TimeRange:
    """From ``start`` on and before ``end``, both aware; ``phrase`` is how the question said it."""

    start: datetime
    end: datetime
    phrase: str

    def as_event(self) -> JsonObject:
        """Return what the ledger keeps of it."""
        return {"phrase": self.phrase, "start": iso(self.start), "end": iso(self.end)}


def time_range(question: str, now: datetime) -> TimeRange | None:
    """Return the time in the past that a question names, None where it names none. ``now`` must be aware.

    Dates outweigh what is counted from now ("last week, as I said on 9 June"); several of one kind give the range from
    the first to the last.
    """
    if len(question) > QUESTION_CHARS_MAX:
        return None
    # As long as it was, so that what is found stands at the same place.
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
    return _together([found for found in past if found.dated] or past, question)


def _together(named: Sequence[Named], question: str) -> TimeRange | None:
    if not named:
        return None
    in_order = sorted(named, key=lambda found: found.at)
    return TimeRange(
        start=min(found.span[0] for found in named),
        end=max(found.span[1] for found in named),
        phrase=" … ".join(question[found.at : found.end] for found in in_order),
    )

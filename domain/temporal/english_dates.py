"""English dates: "7 May 2023", "May 7th", "2023-05-07", "May 2023". Each form, and how it is read. Pure."""

from __future__ import annotations

import re
from datetime import datetime

from domain.temporal.spans import Span, date_begun, day_of, month_of

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

MONTH = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    "sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?"
)
MONTH_WRITTEN_OUT = "january|february|march|april|may|june|july|august|september|october|november|december"
YEAR = r"(?:19[5-9]|20\d)\d"
TH = "(?:st|nd|rd|th)"
_DAY = r"(?:3[01]|[12]\d|0?[1-9])"

_WITH_YEAR = (
    rf"(?P<year>{YEAR})(?P<dash>[-/])(?P<number>0?[1-9]|1[0-2])(?P=dash)(?P<day>{_DAY})",
    rf"(?P<day>{_DAY}){TH}?(?:\ of)?\ (?P<month>{MONTH})\.?,?\ ?(?P<year>{YEAR})",
    rf"(?P<month>{MONTH})\.?\ (?P<day>{_DAY}){TH}?,?\ ?(?P<year>{YEAR})",
    rf"(?P<year>{YEAR})-(?P<number>0[1-9]|1[0-2])",
    rf"(?P<month>{MONTH})\.?,?(?:\ of)?\ (?P<year>{YEAR})",
)
_WITHOUT_YEAR = (
    rf"(?P<day>{_DAY}){TH}(?:\ of)?\ (?P<month>{MONTH})",
    rf"(?P<month>{MONTH})\.?\ (?P<day>{_DAY}){TH}",
    rf"(?P<day>{_DAY})\ (?P<month>{MONTH})",
    rf"(?P<month>{MONTH})\.?\ (?P<day>{_DAY})",
)
_FORMS = (*_WITH_YEAR, *_WITHOUT_YEAR)
_READERS = [re.compile(form, re.IGNORECASE | re.VERBOSE) for form in _FORMS]


def _nameless(form: str) -> str:
    """Return a form without group names, so that a pattern can hold it more than once."""
    return re.sub(r"\(\?P<\w+>", "(?:", form.replace("(?P=dash)", "[-/]"))


DATE = "|".join(map(_nameless, _FORMS))
"""All forms, as part of a pattern with ``re.VERBOSE`` and ``re.IGNORECASE``; it has no groups."""


def month_number(name: str) -> int:
    """Return 1 to 12."""
    return _MONTHS.index(name[:3].lower()) + 1


def year_in(date: str) -> int | None:
    """Return the year in a date, None if it has none."""
    found = re.search(rf"\b{YEAR}(?!\d)", date)
    return int(found.group()) if found else None


def read_date(date: str, now: datetime, year: int | None = None) -> Span:
    """Return the day or month that a text of the form :data:`DATE` means, in the time zone of ``now``.

    A date without a year is in ``year`` or, without that, is the last such day that has begun. Raises
    :class:`ValueError` for a day that the calendar does not have.
    """
    for reader in _READERS:
        match = reader.fullmatch(date)
        if match is None:
            continue
        found = match.groupdict()
        month = int(found["number"]) if found.get("number") else month_number(found["month"])
        day = int(found["day"]) if found.get("day") else None
        given = int(found["year"]) if found.get("year") else year
        if given is None:
            assert day is not None
            return date_begun(now, month, day)
        start = day_of(now)[0].replace(year=given, month=month, day=day or 1)
        return day_of(start) if day is not None else month_of(start)
    raise ValueError(f"{date!r} is no date")


def is_surely_a_date(date: str) -> bool:
    """Tell whether a date has a year or an ordinal, so that "May" or "Mar" in it can only be a month."""
    return re.search(rf"{YEAR}|\d{TH}", date, re.IGNORECASE) is not None


def month_in(date: str) -> str:
    """Return the month as written in a date; empty if it is a number."""
    found = re.search(MONTH, date, re.IGNORECASE)
    return found.group() if found else ""

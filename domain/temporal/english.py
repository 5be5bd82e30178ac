"""Reads times named in English. Each rule is a form; the earlier rule wins where two would match.

"May", "March" and "fall" are also other words and "2023" is also a number, so these count only beside words that make
them a time.
"""

from __future__ import annotations

import re

from domain.temporal.english_dates import (
    DATE,
    MONTH,
    MONTH_WRITTEN_OUT,
    YEAR,
    is_surely_a_date,
    month_in,
    month_number,
    read_date,
    year_in,
)
from domain.temporal.grammar import Moment, Reading, Rule, no_time
from domain.temporal.spans import (
    DAY,
    HALF_A_YEAR,
    SATURDAY,
    UNITS,
    WEEK,
    Span,
    Unit,
    around,
    day_of,
    month_begun,
    month_of,
    season_before,
    season_begun,
    season_of,
    unit_ago,
    unit_of,
    units_before,
    weekday_before,
    weekday_of_week,
    weekend_before,
    weekend_of,
    year_of,
)

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_COUNT = rf"(?:\d{{1,3}}|{'|'.join(_NUMBERS[1:])}|an?|a\ couple\ of|a\ few|several)"
_UNIT = "(?:day|week|month|year)"
_WEEKDAY = "|".join(_WEEKDAYS)
_SEASON = "spring|summer|autumn|fall|winter"
_AFTER_A_MONTH = "i|we|you|he|she|they|it|and|or|was|were|did|when|what|who|with|for|at|on|about|my|our|the"
_ENDS = rf"(?=\W*$|[,.?!;:)]|\ (?:{_AFTER_A_MONTH})\b)"
"""The end of a name: "in May" names a time, "in March formation" none. A verb or a person may follow."""
_NOT_COUNTED = (
    r"(?!\ (?:by|problem|bug|words|characters|letters|tokens|lines|pages|parts|pieces|ways|steps|times|points|people|"
    r"seconds|minutes|hours|days|years|meters|metres|miles|km|rpm|calories|degrees|dollars|euros|pounds)\b)(?!:\ )"
)
"""After a year: "in 2000 words", "1984 by Orwell" and "2001: A Space Odyssey" name none."""

LOOKS_BACK = re.compile(
    r"\b(?:did|didn't|was|wasn't|were|weren't|had|happened|went|said|told|asked|talked|spoke|discussed|mentioned|"
    r"earlier|(?:have|has)\ (?:i|we|you|he|she|they|it|there|been))\b",
    re.IGNORECASE | re.VERBOSE,
)
LOOKS_AHEAD = re.compile(
    r"\b(?:will|won't|going\ to|gonna|shall|should|plan|plans|planning|upcoming|tomorrow|next|coming)\b|'ll\b",
    re.IGNORECASE | re.VERBOSE,
)


def _rule(pattern: str, read: Reading, *, dated: bool = False) -> Rule:
    # Not after "1." or "v", nor before a hyphen or another digit: versions, prices and names have digits too.
    whole = rf"(?<![\w.,/:$€£#-])(?:{pattern})(?![\w/-]|[.,:]\d)"
    return Rule(re.compile(whole, re.IGNORECASE | re.VERBOSE), read, dated)


def _count(written: str) -> tuple[int, int]:
    """Return the fewest and the most units that a number word can mean."""
    word = " ".join(written.lower().split())
    if word in {"a few", "several"}:
        return 2, 5
    if word == "a couple of":
        return 2, 3
    number = int(word) if word.isdigit() else 1 if word in {"a", "an"} else _NUMBERS.index(word)
    return number, number


def _unit(written: str) -> Unit:
    return next(unit for unit in UNITS if written.lower().startswith(unit))


def _season(written: str) -> str:
    return "autumn" if written.lower() == "fall" else written.lower()


def _beside_a_date(match: re.Match[str], moment: Moment) -> Span:
    """Read "two weeks before 9 June", "the Sunday after", "the week of"."""
    start, end = read_date(match["date"], moment.now)
    what, side = match["what"].lower(), match["side"].lower()
    if what in _WEEKDAYS:
        weekday = _WEEKDAYS.index(what)
        if side == "before":
            return weekday_before(start, weekday)
        if side == "of":
            return weekday_of_week(start, weekday)
        return weekday_before(start + WEEK + DAY, weekday)
    if what == "weekend":
        if side == "before":
            return weekend_before(start)
        return weekend_of(start) if side == "of" or start.weekday() < SATURDAY else weekend_of(start + WEEK)
    unit = _unit(what)
    if side == "of":
        # "The last week of June" is somewhere in June.
        return unit_of(start, unit) if end - start == DAY else (start, end)
    if match["count"] is None:
        before = units_before(start, unit, 1), start
        return before if side == "before" else (end, units_before(end, unit, -1))
    fewest, most = _count(match["count"])
    if side == "after":
        fewest, most = -most, -fewest
    return unit_ago(start, unit, most)[0], unit_ago(start, unit, fewest)[1]


def _between(match: re.Match[str], moment: Moment) -> Span:
    first = read_date(match["from"], moment.now, year_in(match["until"]))
    last = read_date(match["until"], moment.now)
    if first[0] >= last[1]:
        raise ValueError("the first date is after the last")
    return first[0], last[1]


def _between_months(match: re.Match[str], moment: Moment) -> Span | None:
    if moment.looks_ahead or not (moment.looks_back or match["year"]):
        return None  # "open from May to September" means every year
    first, last = month_number(match["first"]), month_number(match["last"])
    if match["year"]:
        start = day_of(moment.now)[0].replace(year=int(match["year"]), month=last, day=1)
        until = month_of(start)
    else:
        until = month_begun(moment.now, last)
    return month_begun(until[0], first)[0], until[1]


def _on_a_date(match: re.Match[str], moment: Moment) -> Span | None:
    date, side = match["date"], (match["preposition"] or "").lower()
    if not is_surely_a_date(date):
        month = month_in(date)
        if month[:1].islower() and month in {"may", "march", "mar"}:
            return None  # "7 may be enough"
        if not side and len(month) <= len("mar"):
            return None  # "Mar 4", "May 5 people": too short to be surely a month
    if side in {"before", "until", "till", "by", "every", "next"}:
        return None  # too long a time to prefer, or in the future
    if moment.looks_ahead and year_in(date) is None:
        return None
    return _up_to_now(read_date(date, moment.now), side, moment)


def _up_to_now(span: Span, side: str, moment: Moment) -> Span:
    """Return the span; after "since" or "after", the time from its beginning until now."""
    return (span[0], max(span[1], moment.now)) if side in {"since", "after"} else span


def _ago(match: re.Match[str], moment: Moment) -> Span:
    fewest, most = _count(match["count"])
    unit = _unit(match["unit"])
    return unit_ago(moment.now, unit, most)[0], min(unit_ago(moment.now, unit, fewest)[1], day_of(moment.now)[1])


def _past_units(match: re.Match[str], moment: Moment) -> Span:
    _, most = _count(match["count"])
    return day_of(units_before(moment.now, _unit(match["unit"]), most))[0], day_of(moment.now)[1]


def _last(match: re.Match[str], moment: Moment) -> Span:
    what, now = match["what"].lower(), moment.now
    if what == "night":
        return day_of(now - DAY)
    if what in _WEEKDAYS:
        return weekday_before(now, _WEEKDAYS.index(what))
    if what == "weekend":
        return weekend_before(now)
    if re.fullmatch(_SEASON, what):
        return season_before(now, _season(what))
    if what in {"week", "month", "year"}:
        return unit_of(units_before(now, _unit(what), 1), _unit(what))
    return month_begun(month_of(now)[0] - DAY, month_number(what))


def _this(match: re.Match[str], moment: Moment) -> Span | None:
    what, now = match["what"].lower(), moment.now
    if not moment.only_looks_back:
        return None  # "What shall I eat today?" asks for no memory of today
    if what == "weekend":
        return weekend_of(now)
    if what in _WEEKDAYS:
        return weekday_of_week(now, _WEEKDAYS.index(what))
    if re.fullmatch(_SEASON, what):
        return season_of(now, now.year, _season(what))
    if what in {"week", "month", "year"}:
        return unit_of(now, _unit(what))
    if re.fullmatch(MONTH_WRITTEN_OUT, what):
        return month_of(now.replace(month=month_number(what), day=1))
    return day_of(now)


def _in_month(match: re.Match[str], moment: Moment) -> Span | None:
    if moment.looks_ahead:
        return None
    return _up_to_now(month_begun(moment.now, month_number(match["month"])), match["preposition"].lower(), moment)


def _in_year(match: re.Match[str], moment: Moment) -> Span:
    span = year_of(moment.now.replace(year=int(match["year"]), month=1, day=1))
    return _up_to_now(span, match["preposition"].lower(), moment)


def _day_of_last_month(match: re.Match[str], moment: Moment) -> Span:
    return day_of((month_of(moment.now)[0] - DAY).replace(day=int(match["day"])))


def _day_of_last_week(match: re.Match[str], moment: Moment) -> Span:
    return weekday_of_week(moment.now - WEEK, _WEEKDAYS.index(match["weekday"].lower()))


def _of_last_year(match: re.Match[str], moment: Moment) -> Span:
    year = moment.now.year - 1
    if match["season"]:
        return season_of(moment.now, year, _season(match["season"]))
    return month_of(moment.now.replace(year=year, month=month_number(match["month"]), day=1))


def _in_season(match: re.Match[str], moment: Moment) -> Span | None:
    if not moment.only_looks_back:
        return None
    return season_begun(moment.now, _season(match["season"]))


def _on_weekday(match: re.Match[str], moment: Moment) -> Span | None:
    if not moment.only_looks_back:
        return None
    return weekday_before(moment.now, _WEEKDAYS.index(match["weekday"].lower()))


RULES = (
    # A title and who it is by: "Yesterday by the Beatles".
    _rule(r"(?-i:Yesterday|Today|Tonight|Last\ [A-Z]\w+(?:\ [A-Z]\w+)?)\ by\ (?:the\ )?(?-i:[A-Z])\w*", no_time),
    _rule(
        rf"(?:(?:the\ )?(?P<count>{_COUNT})\ )?(?:the\ |that\ )?(?P<what>{_UNIT}s?|weekend|{_WEEKDAY})\ "
        rf"(?P<side>before|after|of)\ (?P<date>{DATE})",
        _beside_a_date,
        dated=True,
    ),
    _rule(
        rf"(?:between|from)\ (?P<first>{MONTH_WRITTEN_OUT})\ (?:and|to|until|till|through)\ "
        rf"(?P<last>{MONTH_WRITTEN_OUT})(?:(?:\ of)?\ (?P<year>{YEAR}))?(?!\ \d)",
        _between_months,
        dated=True,
    ),
    _rule(
        rf"(?:between|from)\ (?P<from>{DATE})\ (?:and|to|until|till|through)\ (?P<until>{DATE})",
        _between,
        dated=True,
    ),
    _rule(
        rf"(?:(?P<preposition>on|in|at|since|after|before|until|till|by|from|during|of|every|next)\ (?:the\ )?)?"
        rf"(?P<date>{DATE})(?:T[\d:.]+Z?)?",
        _on_a_date,
        dated=True,
    ),
    # The future, and what recurs, is not a time of a memory.
    _rule(
        r"(?:next|every|each|coming|before|until|till|by)\ (?:the\ |last\ )?"
        rf"(?:{MONTH_WRITTEN_OUT}|{_WEEKDAY}|{_SEASON}|{_UNIT}|weekend|{YEAR})(?:\ {YEAR})?",
        no_time,
    ),
    _rule(
        rf"(?P<season>{_SEASON})(?:\ of|,)?\ (?P<year>{YEAR})",
        lambda match, moment: season_of(moment.now, int(match["year"]), _season(match["season"])),
        dated=True,
    ),
    _rule(
        r"(?P<preposition>in|during|throughout|since|back\ in|(?:beginning|start|middle|end)\ of|(?:the\ )?year)\ "
        rf"(?:early\ |late\ |mid[-\ ])?(?P<year>{YEAR}){_NOT_COUNTED}",
        _in_year,
        dated=True,
    ),
    _rule(rf"(?:(?P<month>{MONTH_WRITTEN_OUT})|(?P<season>{_SEASON}))(?:\ of)?\ last\ year", _of_last_year, dated=True),
    _rule(
        rf"(?<!since\ )last\ year,?\ (?:in|during)\ (?:the\ )?(?:(?P<month>{MONTH_WRITTEN_OUT})|(?P<season>{_SEASON}))"
        rf"{_ENDS}",
        _of_last_year,
        dated=True,
    ),
    _rule(
        rf"(?<!since\ )last\ month,?\ on\ the\ (?P<day>3[01]|[12]\d|[1-9])(?:st|nd|rd|th){_ENDS}",
        _day_of_last_month,
        dated=True,
    ),
    _rule(r"on\ the\ (?P<day>3[01]|[12]\d|[1-9])(?:st|nd|rd|th)(?:\ of)?\ last\ month", _day_of_last_month, dated=True),
    _rule(
        rf"(?<!since\ )last\ week,?\ (?:on\ )?(?P<weekday>{_WEEKDAY})(?!\ (?:and|or|to|until|till|through)\b)",
        _day_of_last_week,
    ),
    _rule(
        rf"(?<!and\ )(?<!or\ )(?<!to\ )(?<!since\ )(?<!from\ )(?<!until\ )"
        rf"(?:on\ )?(?P<weekday>{_WEEKDAY})(?:\ of)?\ last\ week(?!\ (?:to|until|till|through)\b)",
        _day_of_last_week,
    ),
    _rule(
        rf"(?P<preposition>in|during|since|throughout|of)\ (?:early\ |late\ |mid[- ])?(?P<month>{MONTH_WRITTEN_OUT})"
        rf"{_ENDS}",
        _in_month,
        dated=True,
    ),
    _rule(r"half\ a\ year\ (?:ago|back|earlier)", lambda _match, moment: around(moment.now, HALF_A_YEAR)),
    _rule(rf"(?P<count>{_COUNT})\ (?P<unit>{_UNIT}s?)\ (?:ago|back|earlier)", _ago),
    _rule(rf"(?:the\ )?(?:last|past|previous)\ (?P<count>{_COUNT})\ (?P<unit>{_UNIT}s)", _past_units),
    _rule(
        r"the\ (?P<unit>week|month|year|weekend)\ before\ last",
        lambda match, moment: (
            weekend_before(moment.now - WEEK)
            if match["unit"].lower() == "weekend"
            else unit_of(units_before(moment.now, _unit(match["unit"]), 2), _unit(match["unit"]))
        ),
    ),
    _rule(
        r"(?:last|previous|this\ past)\ "
        rf"(?P<what>week|month|year|weekend|night|{_WEEKDAY}|{_SEASON}|{MONTH_WRITTEN_OUT})",
        _last,
    ),
    _rule(r"(?:the\ )?day\ before\ yesterday", lambda _match, moment: day_of(moment.now - 2 * DAY)),
    _rule(r"yesterday", lambda _match, moment: day_of(moment.now - DAY)),
    _rule(r"the\ other\ day", lambda _match, moment: (day_of(moment.now - WEEK)[0], day_of(moment.now)[1])),
    _rule(r"(?P<what>today|tonight)", _this),
    _rule(
        rf"this\ (?P<what>morning|afternoon|evening|week|month|year|weekend|{_WEEKDAY}|{_SEASON}|{MONTH_WRITTEN_OUT})",
        _this,
    ),
    _rule(rf"(?:in|during|over)\ (?:the|that)\ (?P<season>{_SEASON})", _in_season),
    _rule(rf"on\ (?P<weekday>{_WEEKDAY})", _on_weekday),
)
HINT = re.compile(
    rf"\b(?:{MONTH}|{_WEEKDAY}|{_SEASON}|{YEAR}|yesterday|today|tonight|ago|back|earlier|last|past|previous|this|"
    r"other\ day)\b",
    re.IGNORECASE | re.VERBOSE,
)
"""Every rule needs one of these: a text without any is not read further."""

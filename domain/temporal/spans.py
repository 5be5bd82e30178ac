"""Spans of the calendar: a day, a week, a month, a season, a year, and those before or around them. Pure.

A span is two aware datetimes of one zone; the end is not in it. They are reckoned by that zone's calendar: a day after
midnight is the next midnight, even where clocks are put forward or back in between. Weeks begin on Monday. Seasons are
the meteorological ones of the northern hemisphere, where most people live; a winter belongs to the year in which it
begins.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, get_args

from dateutil.relativedelta import MO, relativedelta

Span = tuple[datetime, datetime]
Unit = Literal["day", "week", "month", "year"]
UNITS: tuple[Unit, ...] = get_args(Unit)

DAY = timedelta(days=1)
WEEK = timedelta(days=7)
HALF_A_MONTH = timedelta(days=15)
HALF_A_YEAR = timedelta(days=182)
SATURDAY = 5
SEASON_FIRST_MONTH = {"spring": 3, "summer": 6, "autumn": 9, "winter": 12}
_SEASON_MONTHS = 3
_ONE: dict[Unit, relativedelta] = {
    "day": relativedelta(days=1),
    "week": relativedelta(weeks=1),
    "month": relativedelta(months=1),
    "year": relativedelta(years=1),
}


def day_of(moment: datetime) -> Span:
    """Return the day of a moment, in the time zone of the moment."""
    # Where clocks are put back over midnight there are two: the day begins with the first.
    start = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    return start, start + DAY


def week_of(moment: datetime) -> Span:
    """Return the week of a moment, from Monday."""
    start = day_of(moment)[0] + relativedelta(weekday=MO(-1))
    return start, start + WEEK


def month_of(moment: datetime) -> Span:
    """Return the month of a moment."""
    start = day_of(moment)[0].replace(day=1)
    return start, start + relativedelta(months=1)


def year_of(moment: datetime) -> Span:
    """Return the year of a moment."""
    start = day_of(moment)[0].replace(month=1, day=1)
    return start, start + relativedelta(years=1)


def unit_of(moment: datetime, unit: Unit) -> Span:
    """Return the day, week, month or year of a moment."""
    return {"day": day_of, "week": week_of, "month": month_of, "year": year_of}[unit](moment)


def units_before(moment: datetime, unit: Unit, count: int) -> datetime:
    """Return the moment ``count`` units earlier; on the 31st, a month earlier is the last day of a shorter month.

    Raises :class:`ValueError` when that is before the calendar begins.
    """
    try:
        return moment - count * _ONE[unit]
    except OverflowError as error:
        raise ValueError(f"{count} {unit}s before {moment.year} is before the calendar") from error


def unit_ago(now: datetime, unit: Unit, count: int) -> Span:
    """Return what people mean by "``count`` units ago": the day itself, or one unit around that moment."""
    moment = units_before(now, unit, count)
    if unit == "day":
        return day_of(moment)
    half = {"week": timedelta(days=3), "month": HALF_A_MONTH, "year": HALF_A_YEAR}[unit]
    return day_of(moment - half)[0], day_of(moment + half)[1]


def around(now: datetime, back: timedelta) -> Span:
    """Return what people mean by a time so long ago: whole days around it, a third of its distance in all."""
    middle, wide = now - back, timedelta(days=back.days // 6)
    return day_of(middle - wide)[0], day_of(middle + wide)[1]


def weekday_before(moment: datetime, weekday: int) -> Span:
    """Return the last such weekday (0 = Monday) before the day of a moment."""
    start = day_of(moment)[0]
    start -= timedelta(days=(start.weekday() - weekday - 1) % 7 + 1)
    return start, start + DAY


def weekday_of_week(moment: datetime, weekday: int) -> Span:
    """Return a weekday (0 = Monday) of the week of a moment."""
    start = week_of(moment)[0] + timedelta(days=weekday)
    return start, start + DAY


def weekend_of(moment: datetime) -> Span:
    """Return Saturday and Sunday of the week of a moment."""
    start, end = week_of(moment)
    return start + timedelta(days=SATURDAY), end


def weekend_before(moment: datetime) -> Span:
    """Return the last weekend that was over on the day of a moment."""
    weekend = weekend_of(moment)
    return weekend if weekend[1] <= day_of(moment)[0] else weekend_of(moment - WEEK)


def season_of(like: datetime, year: int, season: str) -> Span:
    """Return a season by its name in :data:`SEASON_FIRST_MONTH`; ``like`` gives the time zone."""
    start = day_of(like)[0].replace(year=year, month=SEASON_FIRST_MONTH[season], day=1)
    return start, start + relativedelta(months=_SEASON_MONTHS)


def season_before(now: datetime, season: str) -> Span:
    """Return the last such season that is over."""
    spans = (season_of(now, year, season) for year in range(now.year, now.year - 3, -1))
    return next(span for span in spans if span[1] <= now)


def season_begun(now: datetime, season: str) -> Span:
    """Return the last such season that has begun."""
    span = season_of(now, now.year, season)
    return span if span[0] <= now else season_of(now, now.year - 1, season)


def month_begun(now: datetime, month: int) -> Span:
    """Return the last such month (1 to 12) that has begun."""
    year = now.year if month <= now.month else now.year - 1
    return month_of(now.replace(year=year, month=month, day=1))


def date_begun(now: datetime, month: int, day: int) -> Span:
    """Return the last such day that has begun. Raises :class:`ValueError` for a day that no recent year has."""
    start = day_of(now)[0]
    for year in range(now.year, now.year - 5, -1):
        try:
            found = start.replace(year=year, month=month, day=day)
        except ValueError:
            continue  # 29 February
        if found <= now:
            return found, found + DAY
    raise ValueError(f"no year has a day {day} in month {month}")

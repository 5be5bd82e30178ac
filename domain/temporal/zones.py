"""Time zones by name, and moments in them. Pure.

Events are in UTC; days are the person's. A person's zone is the tzinfo of the moment at which they ask: whoever gets
that moment needs no other word about zones. A zone's name is ``str()`` of it, and the ledger records that.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

FIX = "give an IANA name such as Europe/Vienna, or an offset such as +05:30"
_OFFSET = re.compile(r"(?:UTC|GMT)?\s*([+\-−])(\d{1,2})(?::?([0-5]\d))?", re.IGNORECASE)
_UTC_NAMES = frozenset({"utc", "z", "gmt", "etc/utc"})
_HOURS_MAX = 14
"""No place on Earth is further from UTC."""
_CLOSE = 0.75
_NAME_CHARS_MAX = 64
_NAMES_KEPT = 1024


@lru_cache(_NAMES_KEPT)
def zone_named(name: str) -> tzinfo:
    """Return the zone of a name like ``Europe/Vienna``, ``UTC``, ``+05:30`` or ``UTC+8``, in any case.

    Raises :class:`ValueError` that says what to give instead.
    """
    wanted = name.strip().casefold()
    if wanted in _UTC_NAMES:
        return UTC
    offset = _OFFSET.fullmatch(wanted)
    if offset is not None:
        return _fixed(offset)
    known = _names()
    if wanted in known:
        return ZoneInfo(known[wanted])
    close = _close_to(wanted, known)
    raise ValueError(f"no time zone has this name: {f'did you mean {close}?' if close is not None else FIX}")


def in_zone(moment: datetime, zone: tzinfo | None) -> datetime:
    """Return a moment in a zone; at the ends of the calendar, where that has no date, as it is."""
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment


def recorded_zone(name: str) -> tzinfo:
    """Return the zone that an event names; UTC where this machine no longer knows it."""
    try:
        return zone_named(name)
    except ValueError:
        return UTC


def _fixed(offset: re.Match[str]) -> tzinfo:
    sign, hours, minutes = offset.groups()
    away = timedelta(hours=int(hours), minutes=int(minutes or 0))
    if away > timedelta(hours=_HOURS_MAX):
        raise ValueError(f"no time zone is so far from UTC: {FIX}")
    return timezone(away if sign == "+" else -away) if away else UTC


@cache
def _names() -> dict[str, str]:
    """Return the names of all zones by their folded form, without files that stand for a machine's own zone."""
    return {name.casefold(): name for name in available_timezones() if name[0].isupper()}


def _close_to(wanted: str, known: dict[str, str]) -> str | None:
    """Return the zone of which ``wanted`` is the place or a slip. Abbreviations are no slips: CEST is not EST."""
    if len(wanted) > _NAME_CHARS_MAX:
        return None
    place = wanted.replace(" ", "_")
    close = [name for name in known if wanted and name.endswith(f"/{place}")]
    if "/" in wanted:
        close = close or difflib.get_close_matches(place, known, 1, _CLOSE)
    return known[close[0]] if close else None

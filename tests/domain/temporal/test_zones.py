"""Days are the person's, also where clocks are put forward and back, and every zone is taken by its usual names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from domain.temporal.spans import day_of
from domain.temporal.time_range import TimeRange, time_range
from domain.temporal.zones import in_zone, recorded_zone, zone_named

SUMMER = datetime(2026, 7, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 126 * 365 * 24 * 60).map(
    lambda minutes: datetime(1975, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)
ZONES = st.sampled_from(
    [
        "UTC",
        "Europe/Vienna",
        "America/New_York",
        "America/Los_Angeles",
        "America/Havana",
        "America/Sao_Paulo",
        "America/St_Johns",
        "Asia/Kolkata",
        "Asia/Kathmandu",
        "Asia/Shanghai",
        "Asia/Beirut",
        "Africa/Cairo",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Pacific/Kiritimati",
        "Pacific/Chatham",
        "UTC+05:30",
        "UTC-12:00",
    ]
).map(zone_named)


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("Europe/Vienna", "Europe/Vienna"),
        (" europe/vienna ", "Europe/Vienna"),
        ("ASIA/SHANGHAI", "Asia/Shanghai"),
        ("Asia/Calcutta", "Asia/Calcutta"),
        ("utc", "UTC"),
        ("Z", "UTC"),
        ("GMT", "UTC"),
        ("+00:00", "UTC"),
        ("+05:30", "UTC+05:30"),
        ("+0530", "UTC+05:30"),
        ("UTC+8", "UTC+08:00"),
        ("gmt-3", "UTC-03:00"),
        ("UTC−03:30", "UTC-03:30"),
        ("-11", "UTC-11:00"),
    ],
)
def test_a_zone_has_the_names_that_people_use(given_name: str, name: str) -> None:
    zone = zone_named(given_name)
    assert str(zone) == name
    assert zone_named(name) == zone


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("Vienna", r"did you mean Europe/Vienna\?"),
        ("new york", r"did you mean America/New_York\?"),
        ("Europe/Viena", r"did you mean Europe/Vienna\?"),
        ("Europe", "an IANA name such as"),
        ("", "an IANA name such as"),
        ("CEST", "an IANA name such as"),
        ("../../etc/passwd", "an IANA name such as"),
        ("Europe/\x00", "an IANA name such as"),
        ("Europe/" + "x" * 1000, "an IANA name such as"),
        ("localtime", "an IANA name such as"),
        ("posixrules", "an IANA name such as"),
        ("UTC+15", "so far from UTC"),
        ("UTC+99:59", "so far from UTC"),
        ("+05:60", "an IANA name such as"),
    ],
)
def test_another_name_is_refused_with_a_fix(name: str, fix: str) -> None:
    with pytest.raises(ValueError, match=fix):
        zone_named(name)
    assert recorded_zone(name) == UTC


def test_every_iana_zone_is_known_by_its_own_name() -> None:
    names = [name for name in available_timezones() if name[0].isupper() and name not in {"Etc/UTC", "GMT"}]
    assert len(names) > 400
    for name in names:
        assert str(SUMMER.astimezone(zone_named(name))) == str(SUMMER.astimezone(ZoneInfo(name)))


@given(st.datetimes(timezones=st.just(UTC)), ZONES)
@example(datetime(1, 1, 1, tzinfo=UTC), zone_named("America/New_York"))
@example(datetime(9999, 12, 31, 23, 59, tzinfo=UTC), zone_named("Asia/Shanghai"))
def test_every_moment_can_be_shown(moment: datetime, zone: tzinfo) -> None:
    assert in_zone(moment, zone) == moment


@given(MOMENTS, ZONES)
# Clocks were put forward at midnight, put back over midnight, put forward by half an hour, and a day was left out.
@example(datetime(2018, 11, 4, 3, 30, tzinfo=UTC), zone_named("America/Sao_Paulo"))
@example(datetime(2018, 2, 18, 2, 30, tzinfo=UTC), zone_named("America/Sao_Paulo"))
@example(datetime(2025, 11, 2, 5, 30, tzinfo=UTC), zone_named("America/Havana"))
@example(datetime(2026, 4, 24, 0, 30, tzinfo=UTC), zone_named("Africa/Cairo"))
@example(datetime(2026, 10, 3, 15, 45, tzinfo=UTC), zone_named("Australia/Lord_Howe"))
@example(datetime(2011, 12, 30, 10, 30, tzinfo=UTC), zone_named("Pacific/Apia"))
def test_a_moment_lies_in_its_day_and_in_no_other(moment: datetime, zone: tzinfo) -> None:
    start, end = (edge.astimezone(UTC) for edge in day_of(moment.astimezone(zone)))
    assert start <= moment < end
    assert timedelta(hours=22) <= end - start <= timedelta(hours=26)
    assert day_of(end.astimezone(zone))[0].astimezone(UTC) == end


@given(
    MOMENTS,
    ZONES,
    st.sampled_from(["yesterday", "last week", "three days ago", "last month", "昨天", "上周五", "on 7 May", "in May"]),
)
def test_yesterday_is_that_of_the_calendar_on_the_wall(moment: datetime, zone: tzinfo, question: str) -> None:
    here = moment.astimezone(zone)
    # The same date and time of day where nobody puts clocks forward or back.
    there = time_range(question, here.replace(tzinfo=UTC))
    found = time_range(question, here)
    assert there is not None
    if found is None:  # the day that Samoa left out
        assert str(zone) == "Pacific/Apia"
        return
    assume(there.start.year > 1975)
    for edge, expected in ((found.start, there.start), (found.end, there.end)):
        midnight = expected.replace(tzinfo=zone)
        assert edge == midnight.astimezone(UTC)
        assert edge.tzinfo is UTC


@pytest.mark.parametrize(
    ("question", "asked_at", "zone", "start", "end"),
    [
        # Late in the evening of the 24th in New York it is the 25th in UTC; early on the 25th in Shanghai the 24th.
        ("yesterday", "2026-11-25T03:00", "America/New_York", "2026-11-23T05:00", "2026-11-24T05:00"),
        ("昨天", "2026-11-24T23:00", "Asia/Shanghai", "2026-11-23T16:00", "2026-11-24T16:00"),
        ("on 7 May 2023", "2026-11-24T23:00", "Asia/Kolkata", "2023-05-06T18:30", "2023-05-07T18:30"),
        # The days on which clocks are put forward and back.
        ("yesterday", "2026-03-30T10:00", "Europe/Vienna", "2026-03-28T23:00", "2026-03-29T22:00"),
        ("yesterday", "2026-10-26T10:00", "Europe/Vienna", "2026-10-24T22:00", "2026-10-25T23:00"),
        ("last month", "2026-04-15T10:00", "Europe/Vienna", "2026-02-28T23:00", "2026-03-31T22:00"),
        # Midnight does not exist, and is there twice.
        ("yesterday", "2018-11-05T12:00", "America/Sao_Paulo", "2018-11-04T03:00", "2018-11-05T02:00"),
        ("yesterday", "2025-11-03T12:00", "America/Havana", "2025-11-02T04:00", "2025-11-03T05:00"),
    ],
)
def test_a_named_day_is_the_persons(question: str, asked_at: str, zone: str, start: str, end: str) -> None:
    found = time_range(question, moment(asked_at).astimezone(zone_named(zone)))
    assert found == TimeRange(moment(start), moment(end), question)


def test_a_day_that_was_left_out_holds_no_time() -> None:
    assert time_range("yesterday", moment("2011-12-30T20:00").astimezone(zone_named("Pacific/Apia"))) is None


def moment(written: str) -> datetime:
    return datetime.fromisoformat(written).replace(tzinfo=UTC)

"""Memories of the named time gain, those near it gain less, and nothing else moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.temporal.preference import EDGE, MARGIN_MAX, MARGIN_MIN, SHARE, nearness, prefer
from domain.temporal.time_range import TimeRange

MAY = TimeRange(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC), "in May")
A_DAY = TimeRange(datetime(2026, 5, 7, tzinfo=UTC), datetime(2026, 5, 8, tzinfo=UTC), "on 7 May")
SOME_TIME = st.integers(0, 3650 * 24).map(lambda hours: datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=hours))
SOME_SCORES = st.lists(st.tuples(st.integers(-1000, 1000).map(lambda n: n / 1000), SOME_TIME), max_size=20)


def test_within_the_range_it_is_whole_and_the_end_is_outside() -> None:
    assert nearness(MAY.start, MAY) == 1
    assert nearness(MAY.end - timedelta(microseconds=1), MAY) == 1
    assert nearness(MAY.end, MAY) == EDGE


@pytest.mark.parametrize(("wanted", "margin"), [(A_DAY, MARGIN_MIN), (MAY, MARGIN_MAX)])
def test_outside_it_falls_to_nothing_within_the_margin(wanted: TimeRange, margin: timedelta) -> None:
    for moment in (wanted.end + margin / 2, wanted.start - margin / 2):
        assert nearness(moment, wanted) == pytest.approx(EDGE / 2)
    for moment in (wanted.end + margin, wanted.start - margin, wanted.end + 100 * margin):
        assert nearness(moment, wanted) == 0


def test_the_last_of_the_list_comes_up_to_the_middle() -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    assert prefer([0.9, 0.8, 0.7], [long_ago, long_ago, A_DAY.start], A_DAY) == pytest.approx([0.9, 0.8, 0.8])


@given(SOME_SCORES)
def test_without_a_wanted_time_nothing_changes(scored: list[tuple[float, datetime]]) -> None:
    scores = [score for score, _ in scored]
    assert prefer(scores, [ts for _, ts in scored], None) == scores


@given(SOME_SCORES)
def test_nobody_loses_and_nobody_gains_more_than_the_share(scored: list[tuple[float, datetime]]) -> None:
    scores = [score for score, _ in scored]
    gained = prefer(scores, [ts for _, ts in scored], MAY)
    spread = max(scores, default=0) - min(scores, default=0)
    assert all(0 <= after - before <= SHARE * spread + 1e-12 for before, after in zip(scores, gained, strict=True))


@given(SOME_SCORES)
def test_among_memories_of_one_time_the_order_stays(scored: list[tuple[float, datetime]]) -> None:
    scores = [score for score, _ in scored]
    for same in (MAY.start, MAY.end, datetime(2000, 1, 1, tzinfo=UTC)):
        gained = prefer(scores, [same] * len(scores), MAY)
        assert sorted(range(len(scores)), key=lambda at: gained[at]) == sorted(
            range(len(scores)), key=lambda at: scores[at]
        )

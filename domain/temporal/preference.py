"""How much memories of a named time gain on the others. Pure.

The gain is a share of the distance between the best and the worst score of the list, so it means the same for cosines,
which lie close together, and for fused ranks, which do not. With a share of one half, the last of the list comes up to
the middle when it is of that time, and the memory that fits the question best is not lost for being of another day.

People plan before and tell afterwards, and a day may be one in UTC for want of their zone, so memories near the range
gain too, less with distance. Figures: ``docs/decisions/0050-prefer-memories-of-the-time-a-question-names.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from domain.temporal.time_range import TimeRange

SHARE = 0.5
EDGE = 0.5
"""The part of the gain for a memory just outside the range."""
MARGIN_MIN = timedelta(days=7)
MARGIN_MAX = timedelta(days=31)
"""Memories gain up to this far from the range: as far as the range is long, within these bounds."""


def nearness(ts: datetime, wanted: TimeRange) -> float:
    """Return 1 within the range; outside it, :data:`EDGE` falling evenly to 0 at the end of the margin."""
    if wanted.start <= ts < wanted.end:
        return 1.0
    margin = min(max(wanted.end - wanted.start, MARGIN_MIN), MARGIN_MAX)
    away = wanted.start - ts if ts < wanted.start else ts - wanted.end
    return EDGE * max(0.0, 1 - away / margin)


def prefer(scores: Sequence[float], times: Sequence[datetime], wanted: TimeRange | None) -> list[float]:
    """Return the scores, raised for memories of the wanted time. Higher is better; the order may change.

    ``times`` are the times of the scored memories. Without a wanted time, or if all scores are equal, nothing changes.
    """
    if wanted is None or not scores:
        return list(scores)
    spread = max(scores) - min(scores)
    return [score + SHARE * spread * nearness(ts, wanted) for score, ts in zip(scores, times, strict=True)]

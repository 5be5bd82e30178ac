"""The only source of time and ids, so that a test can control both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _random_id() -> str:
    return str(uuid4())


@dataclass(frozen=True)
class Clock:
    """``now`` returns an aware UTC datetime, ``new_id`` a UUID in its 36-character form."""

    now: Callable[[], datetime] = _utc_now
    new_id: Callable[[], str] = _random_id


def iso(moment: datetime) -> str:
    """Return ISO 8601 in UTC with microseconds and ``Z``, which sorts as text by time."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

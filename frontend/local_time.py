"""The service's UTC times on the reader's clock: the browser tells its time zone, not the server."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


class LocalClock:
    """Formats times in the zone that the browser named; in UTC, and saying so, if it named none we know."""

    def __init__(self, zone_name: str | None) -> None:
        self._zone: tzinfo = UTC
        self.zone_name = "UTC"
        if zone_name:
            try:
                self._zone, self.zone_name = ZoneInfo(zone_name), zone_name
            except (ZoneInfoNotFoundError, ValueError):
                return

    def format(self, moment: datetime) -> str:
        """`2025-11-03 14:05`, read the same in every language."""
        return f"{moment.astimezone(self._zone):%Y-%m-%d %H:%M}"

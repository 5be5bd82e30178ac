"""Show the service's UTC times in the time zone of the reader's browser."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


class LocalClock:
    """Formats times in the browser's zone, or in UTC if that zone is unknown; `zone_name` says which."""

    def __init__(self, zone_name: str | None) -> None:
        self._zone: tzinfo = UTC
        self.zone_name = "UTC"
        if zone_name:
            try:
                self._zone, self.zone_name = ZoneInfo(zone_name), zone_name
            except (ZoneInfoNotFoundError, ValueError):
                return

    def format(self, moment: datetime) -> str:
        """A time as `2025-11-03 14:05`, the same in every language."""
        return f"{moment.astimezone(self._zone):%Y-%m-%d %H:%M}"

"""Show the service's UTC times in the time zone of the reader's browser."""

from __future__ import annotations

from datetime import UTC, date, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


class LocalClock:
    """Formats times in the browser's zone, or in UTC if that zone is unknown; `zone_name` says which.

    `known` is the browser's zone for a request of the service; None if it is unknown.
    """

    def __init__(self, zone_name: str | None) -> None:
        self._zone: tzinfo = UTC
        self.zone_name = "UTC"
        self.known: str | None = None
        if zone_name:
            try:
                self._zone = _offset(zone_name) or ZoneInfo(zone_name)
            except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones
                return
            self.zone_name = self.known = zone_name

    def format(self, moment: datetime) -> str:
        """A time as `2025-11-03 14:05`, the same in every language."""
        return f"{moment.astimezone(self._zone):%Y-%m-%d %H:%M}"

    def day(self, moment: datetime) -> date:
        """The day of a time."""
        return moment.astimezone(self._zone).date()


def _offset(name: str) -> tzinfo | None:
    """The zone of a name such as `UTC+05:30`, as the service writes a fixed offset; None for other names."""
    if name[:4] not in ("UTC+", "UTC-"):
        return None
    return datetime.strptime(name[3:], "%z").tzinfo

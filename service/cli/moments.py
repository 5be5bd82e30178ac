"""``POSITION|DATE``: how the command line names a moment of the ledger."""

from __future__ import annotations

from datetime import UTC, datetime

from domain.audit_reader import AuditReader
from domain.errors import InvalidInput

HELP = "a ledger position, or a date or time (ISO 8601; UTC where no offset is given, a date is its first moment)"


def position_of(reader: AuditReader, field: str, given: str) -> int:
    """Return a position as it is; for a date, the position of the last event recorded before it.

    Raises :class:`InvalidInput` for anything else, and for a position beyond the end of the ledger.
    """
    text = given.strip()
    if text.isascii() and text.isdigit():
        position, head = int(text), reader.head_position()
        if position > head:
            raise InvalidInput(field, given, f"the ledger ends at position {head}")
        return position
    return reader.position_before(moment_of(field, given, "give a ledger position, or a date"))


def moment_of(field: str, given: str, wanted: str = "give a date") -> datetime:
    """Return a date or time (ISO 8601) with its zone, UTC where it has none; raise :class:`InvalidInput`."""
    try:
        moment = datetime.fromisoformat(given.strip())
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(field, given, f"{wanted} as in 2026-03-31 or 2026-03-31T12:00Z") from None
    return moment

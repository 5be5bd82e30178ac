"""Record what is recorded once for all processes, although another one may be about to record the same."""

from __future__ import annotations

from collections.abc import Callable

from domain.errors import LedgerOverloaded, VersionConflict
from domain.events import NewEvent, Payload
from domain.identity import StreamId
from domain.ledger import Ledger
from domain.origin import Origin

_ATTEMPTS_MAX = 20
"""Each lost attempt means that another writer appended to the stream in between."""


def record_once(
    ledger: Ledger,
    stream: StreamId,
    missing: Callable[[], Payload | None],
    *,
    causation_id: str | None = None,
    origin: Origin | None = None,
) -> bool:
    """Append what ``missing`` finds missing from ``stream``; return whether there was something to append.

    ``missing`` reads the ledger. It is asked again when another writer came between its reading and the append. Raises
    :class:`LedgerOverloaded` when that goes on, and as :meth:`Ledger.append` does. Blocks until the commit.
    """
    for _ in range(_ATTEMPTS_MAX):
        # Read first: whatever is appended after this makes the append below fail.
        version = ledger.persons.version_of(stream)
        payload = missing()
        if payload is None:
            return False
        try:
            event = NewEvent(ledger.clock.new_id(), payload, causation_id=causation_id, origin=origin)
            _append(ledger, stream, event, version)
        except VersionConflict:
            continue
        return True
    raise LedgerOverloaded("other processes keep appending to the same stream: try again in a moment")


def _append(ledger: Ledger, stream: StreamId, event: NewEvent, version: int) -> None:
    ledger.append(stream, lambda _head: [event], expected_version=version).result()

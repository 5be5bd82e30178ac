"""Which texts an index may rightly hold otherwise than the ledger had them at the index's position.

An index takes in events in parts, and with each it asks whether the memory is hidden or was corrected *by now*. So at
its position it may know already what later events say. Whatever it holds of a text that a later event records or takes
away, that event sets right when the index reads on.
"""

from __future__ import annotations

from domain.ledger_reader import LedgerReader
from projections.keys import key_of

_EVENTS_PER_READ = 512


def keys_said_after(reader: LedgerReader, user_id: str, position: int) -> set[int]:
    """Return the keys of a user's texts that events after ``position`` record, withdraw or bring back."""
    keys: set[int] = set()
    while True:
        changes, read_to = reader.facet_texts(user_id, position, _EVENTS_PER_READ)
        keys.update(key_of(change.turn_position, change.facet) for change in changes)
        if read_to == position:
            return keys
        position = read_to

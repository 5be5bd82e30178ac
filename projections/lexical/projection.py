"""Keeps the lexical indices close behind the ledger, so that a search has little left to apply.

It follows only what is recorded after the start. The first search of a user brings up an index that fell behind before.
"""

from __future__ import annotations

from domain.ledger import Ledger
from projections.lexical.index_files import LexicalFiles
from projections.threads import in_background

_EVENTS_MAX = 256


class LexicalProjection:
    """The projection that a :class:`~projections.follower.Follower` runs in the background of a service."""

    name = "words"

    def __init__(self, ledger: Ledger, files: LexicalFiles) -> None:
        self._reader = ledger.reader
        self._files = files
        self._position = ledger.reader.head_position()

    async def advance(self) -> bool:
        """Bring up the indices of the users in a bounded batch of events."""
        changes, position = await in_background(self._reader.facet_texts, None, self._position, _EVENTS_MAX)
        for user_id in {change.user_id: None for change in changes}:
            await in_background(self._files.catch_up, user_id)
        moved, self._position = position > self._position, position
        return moved

"""Keeps users' lexical indices close behind the ledger, so that a search finds little left to take in.

Only what is recorded from the start on is followed. An index that had fallen behind before is brought up by the first
search of its user.
"""

from __future__ import annotations

import asyncio

from domain.ledger import Ledger
from projections.lexical.index_files import LexicalFiles

_EVENTS_MAX = 256


class LexicalProjection:
    """The projection that a :class:`~projections.follower.Follower` runs in the background of a service."""

    name = "words"

    def __init__(self, ledger: Ledger, files: LexicalFiles) -> None:
        self._reader = ledger.reader
        self._files = files
        self._position = ledger.reader.head_position()

    async def advance(self) -> bool:
        """Bring up the indices of those users of whom a bounded batch of events speaks."""
        changes, position = await asyncio.to_thread(self._reader.facet_texts, None, self._position, _EVENTS_MAX)
        for user_id in dict.fromkeys(change.user_id for change in changes):
            await asyncio.to_thread(self._files.catch_up, user_id)
        moved, self._position = position > self._position, position
        return moved

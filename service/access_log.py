"""Who read a person's memory, and who was refused: rows of ``access_log``, beside the events and not among them.

Entries wait in memory and are written together, off the request path: a killed process loses those of the last second.
More of them than fit, as a flood of refused calls makes, are counted and dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta

from sqlalchemy import Connection

from domain.clock import iso
from domain.errors import LedgerError
from domain.ledger import Ledger
from domain.statements import STATEMENTS
from service.settings import AccessKept

log = logging.getLogger(__name__)

_WRITE_EVERY_S = 1
_WRITES_A_DAY = 24 * 60 * 60 // _WRITE_EVERY_S
_WAITING_MAX = 10_000


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """One call. ``user_id`` is whose memory it was about, None where that was not known yet."""

    at: str
    request_id: str
    actor: str | None
    client: str | None
    route: str
    status: int
    user_id: str | None


class AccessLog:
    """Takes entries from the event loop and writes them to the ledger's database."""

    def __init__(self, ledger: Ledger, kept: AccessKept, days: int) -> None:
        self.kept = kept
        self._ledger = ledger
        self._days = days
        self._waiting: deque[AccessEntry] = deque()
        self._dropped = 0

    def note(self, entry: AccessEntry) -> None:
        """Keep an entry until the next write."""
        if len(self._waiting) < _WAITING_MAX:
            self._waiting.append(entry)
        else:
            self._dropped += 1

    async def write_forever(self) -> None:
        """Write what waits every second, and remove what is too old once a day."""
        for writes in itertools.count():
            if writes % _WRITES_A_DAY == 0:
                await self.prune()
            await asyncio.sleep(_WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Write what waits now."""
        if self._dropped:
            log.warning("%d entries of the access log were dropped: too many came at once", self._dropped)
            self._dropped = 0
        entries = [asdict(self._waiting.popleft()) for _ in range(len(self._waiting))]

        def add(connection: Connection) -> None:
            connection.execute(STATEMENTS["add_access"], entries)

        if entries:
            await self._tried(add)

    async def prune(self) -> None:
        """Remove what is older than the days that entries are kept."""
        await self._tried(self._pruned)

    def _pruned(self, connection: Connection) -> None:
        oldest = iso(self._ledger.clock.now() - timedelta(days=self._days))
        connection.execute(STATEMENTS["prune_access"], {"oldest": oldest})

    async def _tried(self, work: Callable[[Connection], None]) -> None:
        try:
            await asyncio.wrap_future(self._ledger.write(work))
        except LedgerError as error:
            log.warning("the access log could not be written: %s", error)

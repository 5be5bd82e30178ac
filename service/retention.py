"""``RETENTION_DAYS``: once a day, turns that are older are erased, by the means of `opm erase`.

The first time is shortly after the start, so that a service which is restarted every night still gets to it. Several
services on one storage may all do it: the second finds nothing to do.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timedelta

from domain.errors import OpmError
from domain.ledger import Ledger
from domain.origin import Origin
from domain.settings import StorageSettings
from projections.part_erasure import erase_older

log = logging.getLogger(__name__)

_ORIGIN = Origin(actor="service", route="RETENTION_DAYS")

_FIRST_S = 60.0
_EVERY_S = 24 * 3600.0


def kept_from(ledger: Ledger, days: int) -> datetime:
    """Return the moment before which turns are erased."""
    return ledger.clock.now() - timedelta(days=days)


async def keep_for_days(ledger: Ledger, settings: StorageSettings, *, first_s: float = _FIRST_S) -> None:
    """Erase what is older than ``RETENTION_DAYS``, once a day, until cancelled."""
    wait_s = first_s
    while True:
        await asyncio.sleep(wait_s)
        wait_s = _EVERY_S
        moment = kept_from(ledger, settings.retention_days)
        try:
            done = await asyncio.to_thread(erase_older, ledger, settings.storage_dir, moment, _ORIGIN)
        except OpmError as error:
            log.warning("retention: not everything older than %s could be erased: %s", moment.date(), error)
        else:
            if done.events:
                log.info("retention: %d turns from before %s were erased", done.memories, moment.date())

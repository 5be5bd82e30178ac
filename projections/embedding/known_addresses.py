"""The addresses of embedding endpoints that an operator of this storage has configured.

A ledger names the endpoint of the model that memory is indexed with. A ledger that comes from somewhere else may name
any, and whoever follows it sends it the key, the questions and every memory. So an address counts once a program that
was set to it has run on this storage, which a list beside the ledger keeps. No backup carries that list.
"""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from projections.durable import write_durably
from projections.http_client import recordable_url
from projections.settings import ProjectionSettings

log = logging.getLogger(__name__)

_FILE = "embedding-endpoints.json"
_ADDRESSES = TypeAdapter(list[str])


def remember_address(settings: ProjectionSettings) -> None:
    """Add the configured address to the list; it is on the disk when this returns."""
    address = recordable_url(settings.emb_base_url)
    with (settings.storage_dir / "embedding-endpoints.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        known = _listed(settings.storage_dir)
        if address not in known:
            write_durably(settings.storage_dir / _FILE, _ADDRESSES.dump_json([*known, address], indent=2) + b"\n")


def is_known_address(settings: ProjectionSettings, address: str) -> bool:
    """Tell whether an address that the ledger names is configured now, or was once."""
    return address in (recordable_url(settings.emb_base_url), *_listed(settings.storage_dir))


def _listed(storage_dir: Path) -> list[str]:
    try:
        return _ADDRESSES.validate_json((storage_dir / _FILE).read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError:
        log.warning("%s is damaged and counts as empty: what is configured from now on is kept in it again", _FILE)
        return []

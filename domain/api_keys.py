"""Makes and revokes the service's keys. A key is shown once, when it is made; what is kept is a hash of it.

The hash is a plain SHA-256: a key is 192 random bits, which nobody guesses, however little a guess costs.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection

from domain.clock import iso
from domain.key_reader import KeyReader, StoredKey, UserIs
from domain.ledger import Ledger
from domain.sqlite import open_engine
from domain.statements import STATEMENTS

_BEGINNING = "sk-opm-"
"""Some clients take only what begins like OpenAI's keys."""
_RANDOM_BYTES = 24
_ID_CHARS = 8


@dataclass(frozen=True, slots=True)
class NewKey:
    """What a key is to be. ``user_id`` is None for one that stands for anybody."""

    user_id: str | None
    name: str = ""
    trust_headers: bool = False
    read_only: bool = False
    user_is: UserIs = "person"
    expires_at: datetime | None = None


def hash_of(key: str) -> str:
    """Return what is kept of a key."""
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def make_key(ledger: Ledger, wanted: NewKey, by: str) -> tuple[str, StoredKey]:
    """Make a key and return it, with what is kept of it. Raises :class:`LedgerError` where that cannot be kept."""
    key = f"{_BEGINNING}{secrets.token_hex(_RANDOM_BYTES)}"
    kept = StoredKey(
        key_id=ledger.clock.new_id()[:_ID_CHARS],
        key_hash=hash_of(key),
        name=wanted.name,
        user_id=wanted.user_id,
        trust_headers=wanted.trust_headers,
        read_only=wanted.read_only,
        user_is=wanted.user_is,
        created_at=ledger.clock.now(),
        created_by=by,
        expires_at=wanted.expires_at,
        revoked_at=None,
        revoked_by=None,
        last_used_at=None,
    )
    values = {
        "key_id": kept.key_id,
        "key_hash": kept.key_hash,
        "name": kept.name,
        "user_id": kept.user_id,
        "trust_headers": kept.trust_headers,
        "read_only": kept.read_only,
        "user_is": kept.user_is,
        "created_at": iso(kept.created_at),
        "created_by": kept.created_by,
        "expires_at": iso(kept.expires_at) if kept.expires_at is not None else None,
    }

    def add(connection: Connection) -> None:
        connection.execute(STATEMENTS["add_key"], values)

    ledger.write(add).result()
    return key, kept


def revoke_key(ledger: Ledger, key_id: str, by: str) -> bool:
    """Revoke a key; False where it was revoked before, or there is none."""
    values = {"key_id": key_id, "at": iso(ledger.clock.now()), "by": by}

    def revoke(connection: Connection) -> bool:
        return connection.execute(STATEMENTS["revoke_key"], values).rowcount > 0

    return ledger.write(revoke).result()


def note_uses(connection: Connection, uses: Mapping[str, datetime]) -> None:
    """Note when keys were used last, by their ids."""
    connection.execute(STATEMENTS["note_key_use"], [{"key_id": key, "at": iso(at)} for key, at in uses.items()])


def keys_were_made(ledger_path: Path) -> bool:
    """Tell whether a ledger holds any key, also before it is migrated or where there is none."""
    if not ledger_path.is_file() or not ledger_path.stat().st_size:
        return False
    engine = open_engine(ledger_path, writer=False)
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT 1 FROM sqlite_schema WHERE name = 'api_keys'").first()
        return found is not None and bool(KeyReader(engine).all())
    finally:
        engine.dispose()

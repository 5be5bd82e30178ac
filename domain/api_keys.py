"""Makes and revokes the service's keys. A key is shown once, when it is made; what is kept is a hash of it.

The hash is a plain SHA-256: a key is 192 random bits, which nobody guesses, however little a guess costs.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from domain.clock import iso
from domain.errors import LedgerReadFailed
from domain.key_reader import KeyReader, StoredKey, UserIs
from domain.ledger import Ledger
from domain.sqlite import DRIVER, open_engine, reason_of, transaction
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
    values = _columns(kept)

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


def keys_in(ledger_path: Path) -> list[StoredKey]:
    """Return the keys in a ledger's file, also where it is not migrated yet or there is none.

    Raises :class:`LedgerReadFailed`.
    """
    if not ledger_path.is_file() or not ledger_path.stat().st_size:
        return []
    engine = open_engine(ledger_path, writer=False)
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("SELECT 1 FROM sqlite_schema WHERE name = 'api_keys'").first()
        return KeyReader(engine).all() if found is not None else []
    except DatabaseError as error:
        raise LedgerReadFailed(f"the keys cannot be read ({reason_of(error)})") from None
    finally:
        engine.dispose()


def carry_keys(keys: Iterable[StoredKey], ledger_path: Path) -> None:
    """Let keys of another ledger count in this file, which nobody uses: those it lacks, and what was revoked since."""
    with closing(DRIVER.connect(ledger_path, isolation_level=None)) as connection, transaction(connection):
        present = {key_id for (key_id,) in connection.execute("SELECT key_id FROM api_keys")}
        for key in keys:
            if key.key_id not in present:
                connection.execute(STATEMENTS["add_key"].text, _columns(key))
            if key.revoked_at is not None:
                revoked = {"key_id": key.key_id, "at": iso(key.revoked_at), "by": key.revoked_by}
                connection.execute(STATEMENTS["revoke_key"].text, revoked)
            if key.last_used_at is not None:
                connection.execute(STATEMENTS["note_key_use"].text, {"key_id": key.key_id, "at": iso(key.last_used_at)})


def _columns(key: StoredKey) -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "key_hash": key.key_hash,
        "name": key.name,
        "user_id": key.user_id,
        "trust_headers": key.trust_headers,
        "read_only": key.read_only,
        "user_is": key.user_is,
        "created_at": iso(key.created_at),
        "created_by": key.created_by,
        "expires_at": iso(key.expires_at) if key.expires_at is not None else None,
    }

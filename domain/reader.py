"""What all readers of the ledger share.

Every question about a user filters by that user in the statement itself. Reads are short, since a long one would let
the WAL grow without bound: whoever reads everything reads it page by page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, Engine, Row
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from domain.errors import LedgerReadFailed
from domain.identity import StreamId
from domain.sqlite import reason_of
from domain.statements import STATEMENTS

_NOT_UTF8 = "Could not decode to UTF-8"
_INTEGERS = ("position", "version", "schema_version")
_INTEGER_MAX = 2**63 - 1
_OPTIONAL = ("correlation_id", "causation_id")


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as the table has it: every column, the payload as its JSON text."""

    position: int
    event_id: str
    user_id: str
    conversation_id: str
    version: int
    type: str
    schema_version: int
    recorded_at: str
    correlation_id: str | None
    causation_id: str | None
    payload: str
    salt: str
    identity_hash: str
    payload_hash: str
    prev_hash: str
    hash: str


def odd_column(row: StoredEvent) -> str | None:
    """Return the first column with a value that the table does not give back as it is, None for none.

    A blob, a number for a text or a text for a number, whose hash would not be that of what is stored.
    """
    for name in StoredEvent.__dataclass_fields__:
        value = getattr(row, name)
        if name in _INTEGERS:
            fits = type(value) is int and abs(value) <= _INTEGER_MAX  # not a bool, which is an int too
        else:
            fits = isinstance(value, str) or (value is None and name in _OPTIONAL)
        if not fits:
            return name
    return None


@contextmanager
def _lenient(connection: Connection) -> Iterator[None]:
    """Read bytes that are not UTF-8 as replacement characters. Slower, since it calls Python for every text."""
    driver: Any = connection.connection.driver_connection
    strict, driver.text_factory = driver.text_factory, partial(str, encoding="utf-8", errors="replace")
    try:
        yield
    finally:
        driver.text_factory = strict


class Reader:
    """Asks the ledger through a pool of reading connections. Safe to call from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def has_events(self, user_id: str) -> bool:
        """Tell whether anything was ever recorded of a user."""
        return bool(self._rows("has_events", user_id=user_id))

    def has_conversation(self, stream: StreamId) -> bool:
        """Tell whether anything was ever recorded in a conversation."""
        keys = {"user_id": stream.user_id, "conversation_id": stream.conversation_id}
        return int(self._rows("version_of", **keys)[0].version) > 0

    def _rows(self, name: str, **values: object) -> Sequence[Row[Any]]:
        """Return all rows of the statement ``name``. Raises :class:`LedgerReadFailed`.

        Bytes that are no text any more come as replacement characters: they must not fail what stands beside them.
        """
        try:
            with self._engine.connect() as connection:
                try:
                    return connection.execute(STATEMENTS[name], values).all()
                except OperationalError as error:
                    if _NOT_UTF8 not in str(error.orig):
                        raise
                with _lenient(connection):
                    return connection.execute(STATEMENTS[name], values).all()
        except DatabaseError as error:
            raise LedgerReadFailed(f"the ledger cannot be read ({reason_of(error)})") from None
        except PoolTimeout:
            raise LedgerReadFailed("all connections that read the ledger are busy: try again later") from None

    def _gathered(self, name: str, **values: object) -> list[list[Any]]:
        """Return what the statement ``name`` gathers in one row, a JSON array of arrays; raises as :meth:`_rows`."""
        gathered: list[list[Any]] = json.loads(self._rows(name, **values)[0][0])
        return gathered


def json_list(members: Iterable[int | str]) -> str:
    """Return a list as the one parameter that a statement takes it as: a JSON array, of any length."""
    return json.dumps(list(members))


def stored_of(row: Row[Any]) -> StoredEvent:
    """Return the event in a row that has every column in its order."""
    return StoredEvent(*tuple(row))

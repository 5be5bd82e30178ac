"""How the ledger is read, and what all its readers share.

Every question about a user filters by that user in the query itself. Reads are short, since a long one would let the
WAL grow without bound; whoever reads everything pages by position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Row
from sqlalchemy.sql import Select
from sqlalchemy.sql.elements import ColumnElement

from domain.errors import LedgerReadFailed
from domain.identity import StreamId
from domain.prepared import Prepared
from domain.schema import EVENTS
from domain.sqlite import DATABASE_ERRORS, said_by_driver

IDS_PER_READ = 500
"""Values given to one statement: of more, the statement itself would grow large."""


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as it stands in the table: every column, the payload as its JSON text."""

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


class Reader:
    """Questions to the ledger through a pool of reading connections; safe to call from any thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def _all(self, query: Select[Any], **values: object) -> Sequence[Row[Any]]:
        try:
            with self._engine.connect() as connection:
                return connection.execute(query, values).all()
        except DATABASE_ERRORS as error:
            raise LedgerReadFailed(f"the ledger cannot be read ({said_by_driver(error)})") from None

    def _run(self, statement: Prepared, **values: object) -> list[Any]:
        """Return the rows of a prepared statement."""
        try:
            connection = self._engine.raw_connection()
            try:
                return statement.rows(connection.driver_connection, values)
            finally:
                connection.close()
        except DATABASE_ERRORS as error:
            raise LedgerReadFailed(f"the ledger cannot be read ({said_by_driver(error)})") from None


def of_stream(stream: StreamId) -> ColumnElement[bool]:
    """Select the events of one conversation."""
    return (EVENTS.c.user_id == stream.user_id) & (EVENTS.c.conversation_id == stream.conversation_id)

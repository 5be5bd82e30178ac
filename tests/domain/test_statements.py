"""What a turn reads of a ledger costs the same however long the history is: no statement walks all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from domain.identity import StreamId
from domain.ledger import Ledger
from domain.reader import LedgerReader
from domain.sqlite import open_engine
from tests.ledgers import new_ledger_file

ANN = StreamId("ann", "trip")


@contextmanager
def planned(path: Path) -> Iterator[tuple[LedgerReader, list[str]]]:
    """Open a reader; whatever it is asked, SQLite's plan for that is put into the list."""
    engine = open_engine(path, writer=False)
    plan: list[str] = []

    @event.listens_for(engine, "after_cursor_execute")
    def _explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        other = cursor.connection.cursor()
        plan.extend(row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))
        other.close()

    try:
        yield LedgerReader(engine), plan
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda reader: reader.recent_turns(ANN, 6), "events_stream_type (user_id=? AND conversation_id=? AND type=?)"),
        (lambda reader: reader.memories("ann", [1, 2]), "INTEGER PRIMARY KEY (rowid=?)"),
    ],
    ids=["window", "memories"],
)
def test_what_a_turn_shows_is_looked_up(ask: Callable[[LedgerReader], object], index: str, tmp_path: Path) -> None:
    path = new_ledger_file(tmp_path)
    Ledger(path).close()
    with planned(path) as (reader, plan):
        ask(reader)
    assert plan
    assert index in next(step for step in plan if step.startswith("SEARCH turn "))
    assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], plan

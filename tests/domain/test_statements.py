"""What a turn reads of a ledger costs the same however long the history is: no statement walks all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from domain.identity import StreamId
from domain.ledger import Ledger
from domain.ledger_reader import LedgerReader
from domain.sqlite import DRIVER, open_engine
from tests.ledgers import new_ledger_file

ANN = StreamId("ann", "trip")


@contextmanager
def planned(path: Path) -> Iterator[tuple[LedgerReader, list[str]]]:
    """Open a reader; SQLite's plan for whatever it is asked is put into the list."""
    engine = open_engine(path, writer=False)
    plan: list[str] = []

    @event.listens_for(engine, "connect")
    def _traced(connection: Any, _record: Any) -> None:
        def explain(statement: str) -> None:
            # The driver tells the statement with its values in place.
            with closing(DRIVER.connect(path)) as other:
                plan.extend(row[3] for row in other.execute(f"EXPLAIN QUERY PLAN {statement}"))

        connection.set_trace_callback(explain)

    try:
        yield LedgerReader(engine), plan
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda reader: reader.recent_turns(ANN, 6), "events_stream_type (user_id=? AND conversation_id=? AND type=?)"),
        (lambda reader: reader.memories("ann", [1, 2]), "INTEGER PRIMARY KEY (rowid=?)"),
        (lambda reader: reader.neighbors("ann", [1, 2], 1), "INTEGER PRIMARY KEY (rowid=?)"),
    ],
    ids=["window", "memories", "neighbors"],
)
def test_what_a_turn_shows_is_looked_up(ask: Callable[[LedgerReader], object], index: str, tmp_path: Path) -> None:
    path = new_ledger_file(tmp_path)
    Ledger(path).close()
    with planned(path) as (reader, plan):
        ask(reader)
    assert plan
    assert index in next(step for step in plan if step.startswith("SEARCH turn "))
    # Of the positions asked for, and of the rows found by them: neither is a table.
    small = ("SCAN anon_1 VIRTUAL TABLE", "SCAN told")
    walked = [step for step in plan if step.startswith("SCAN") and not step.startswith(small)]
    assert not walked + [step for step in plan if "TEMP B-TREE" in step], plan

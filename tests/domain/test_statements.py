"""Every statement can be pasted into a shell and explained, and none that a turn asks walks the history."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import StatementError

from domain.reader import json_list
from domain.sqlite import DRIVER, open_engine
from domain.statements import FACET_TYPES, STATEMENTS
from tests.domain.histories import History, any_history
from tests.domain.sqlite_store import SqliteStore
from tests.ledgers import ROOT, new_ledger_file

FILES = {
    file.name: file.read_text(encoding="utf-8")
    for file in resources.files("domain").joinpath("sql").iterdir()
    if file.name.endswith(".sql")
}
TURN = (
    "recent_turns",
    "branch",
    "memories",
    "neighbors",
    "positions_beside",
    "memory_state",
    "active_embedding_model",
    "is_anchor",
    "belongs",
    "hash_at",
    "stream_head",
    "is_event_of",
    "turns_by_exchange",
    "newest_turn",
    "newest_answer",
    "tools_called",
    "turn_of_request",
)
"""What a turn asks, from its window to its append; ``head``, the last row of the table, is looked at below."""
KEYED_BY_INTEGER = "INTEGER PRIMARY KEY (rowid=?)"
OF_A_CONVERSATION = "events_branch (user_id=? AND conversation_id=?)"
SMALL = re.compile(r"SCAN (CONSTANT ROW|json_each VIRTUAL TABLE .*|remembered|\(subquery-\d+\))")
"""One row, the positions asked for, and the rows found by them: none of these is the table."""


def statements_as_written() -> Iterator[tuple[str, str]]:
    """Yield each statement's name and what an auditor would copy: all from its header to its semicolon."""
    for text in FILES.values():
        for part in re.split(r"(?=^-- name: )", text, flags=re.MULTILINE)[1:]:
            yield part.split("\n", 1)[0].removeprefix("-- name: "), part


WRITTEN = dict(statements_as_written())


@pytest.mark.parametrize("name", ["facet_texts", "facet_texts_of_user", "memory_state"])
def test_a_type_that_changes_memories_is_named_wherever_they_are_followed(name: str) -> None:
    missing = [event_type for event_type in FACET_TYPES if f"'{event_type}'" not in WRITTEN[name]]
    assert missing == []


@pytest.fixture(scope="module")
def ledger_connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with closing(DRIVER.connect(new_ledger_file(tmp_path_factory.mktemp("ledger")))) as connection:
        yield connection


def plan_of(connection: Any, name: str) -> list[str]:
    """Return SQLite's plan for a statement of which nothing but its named parameters is given."""
    values: dict[str, object] = dict.fromkeys(STATEMENTS[name]._bindparams, 1)
    values |= {parameter: "[1, 2]" for parameter in values if parameter in {"positions", "types"}}
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {STATEMENTS[name].text}", values)]


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_a_statement_can_be_explained_as_it_is_written(name: str, ledger_connection: Any) -> None:
    lines = WRITTEN[name].splitlines()
    assert len([line for line in lines if line.startswith("--")]) > 1, "it does not say what it answers"
    statement = "\n".join(line for line in lines if not line.startswith("--"))
    assert sqlite3.complete_statement(WRITTEN[name])
    values = dict.fromkeys(re.findall(r":(\w+)", statement))
    assert set(values) == set(STATEMENTS[name]._bindparams)
    explained = ledger_connection.execute(f"EXPLAIN {WRITTEN[name]}", values).fetchall()
    assert explained
    assert f"{STATEMENTS[name].text};" in WRITTEN[name]


def test_every_statement_is_loaded_and_has_a_name_of_its_own() -> None:
    names = [name for text in FILES.values() for name in re.findall(r"^-- name: (\w+)$", text, re.MULTILINE)]
    assert sorted(names) == sorted(STATEMENTS)
    assert len(set(names)) == len(names) > 40


def test_every_statement_is_used() -> None:
    modules = [*(ROOT / "domain").glob("*.py"), *(ROOT / "service").glob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in modules)
    assert [name for name in STATEMENTS if f'"{name}"' not in sources] == []


@pytest.mark.parametrize("name", TURN)
def test_the_statements_of_a_turn_use_an_index(name: str, ledger_connection: Any) -> None:
    plan = plan_of(ledger_connection, name)
    assert any(step.startswith("SEARCH ") for step in plan), plan
    walked = [step for step in plan if step.startswith("SCAN") and not SMALL.fullmatch(step)]
    assert not walked + [step for step in plan if "TEMP B-TREE" in step], plan


@pytest.mark.parametrize("name", ["turns_without_summary", "count_turns_without_summary"])
def test_what_was_brought_back_is_not_looked_for_among_all_turns(name: str, ledger_connection: Any) -> None:
    """The summaries' follower asks this after every few turns."""
    plan = plan_of(ledger_connection, name)
    assert "SEARCH turn USING INDEX sqlite_autoindex_events_1 (event_id=?)" in plan, plan
    assert not [step for step in plan if "position<?" in step], plan


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("recent_turns", f"SEARCH turn USING INDEX {OF_A_CONVERSATION}"),
        ("memories", f"SEARCH turn USING {KEYED_BY_INTEGER}"),
        ("memories", f"SEARCH found USING {KEYED_BY_INTEGER}"),
        ("neighbors", f"SEARCH turn USING {KEYED_BY_INTEGER}"),
        ("neighbors", f"SEARCH found USING {KEYED_BY_INTEGER}"),
        ("positions_beside", f"SEARCH turn USING {KEYED_BY_INTEGER}"),
    ],
)
def test_turns_are_looked_up_by_conversation_or_position(name: str, step: str, ledger_connection: Any) -> None:
    assert step in plan_of(ledger_connection, name)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("last_question", f"SEARCH events USING {KEYED_BY_INTEGER}"),
        ("changes_after", "SEARCH events USING INDEX events_causation (causation_id=?)"),
        ("events_named", "SEARCH events USING INDEX sqlite_autoindex_events_1 (event_id=?)"),
        ("owners_of_events", "SEARCH events USING INDEX sqlite_autoindex_events_1 (event_id=?)"),
        ("positions_of", "SEARCH events USING INDEX sqlite_autoindex_events_1 (event_id=?)"),
        ("answers_at", f"SEARCH turn USING {KEYED_BY_INTEGER}"),
        ("answers_at", "SEARCH part USING INDEX events_correlation (correlation_id=?)"),
    ],
)
def test_what_an_auditor_asks_by_id_is_looked_up_by_id(name: str, step: str, ledger_connection: Any) -> None:
    assert step in plan_of(ledger_connection, name)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("turns_followed", "SEARCH turn USING INDEX sqlite_autoindex_events_1 (event_id=?)"),
        ("is_withdrawn", "SEARCH events USING INDEX events_causation (causation_id=? AND type=?)"),
    ],
)
def test_a_response_is_looked_up_by_id(name: str, step: str, ledger_connection: Any) -> None:
    plan = plan_of(ledger_connection, name)
    assert step in plan
    assert not [each for each in plan if each.startswith("SCAN") and each not in {"SCAN CONSTANT ROW", "SCAN branch"}]


def test_the_head_is_one_row_from_the_end(ledger_connection: Any) -> None:
    assert plan_of(ledger_connection, "head") == ["SCAN events"]
    program = ledger_connection.execute(f"EXPLAIN {STATEMENTS['head'].text}").fetchall()
    assert [row[1] for row in program].count("Last") == 1  # it begins at the last row, and LIMIT 1 ends it there


class TestThroughSqlalchemy(SqliteStore):
    @pytest.mark.parametrize("values", [{}, {"event": 1}])
    def test_a_missing_parameter_is_an_error(self, values: dict[str, object], tmp_path: Path) -> None:
        engine = open_engine(self.create(tmp_path), writer=False)
        with engine.connect() as connection, pytest.raises(StatementError, match="required for bind parameter"):
            connection.execute(STATEMENTS["event_at"], values)
        engine.dispose()

    @any_history
    def test_a_list_of_any_length_is_one_value(self, made: History) -> None:
        everywhere = [*range(len(made.events) + 2), 2**63 - 1, -(2**63)] * 500
        rows = made.reader._rows("events_at", positions=json_list(everywhere))
        assert [row.position for row in rows] == [event.position for event in made.events]


@given(positions=st.lists(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([1, 2, 3])))
def test_any_positions_can_be_asked_for(positions: Sequence[int], ledger_connection: Any) -> None:
    found = ledger_connection.execute("SELECT value FROM json_each(?)", (json_list(positions),)).fetchall()
    assert [value for (value,) in found] == list(positions)

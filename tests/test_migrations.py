"""A ledger is born and brought up to date by the migrations, and by nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect

from domain.errors import LedgerReadFailed, LedgerSchemaError
from domain.schema import EVENTS, METADATA
from domain.sqlite import open_engine
from migrations.runner import migrate
from tests.ledgers import ROOT, STREAM, all_stored, check_chain, new_ledger_file, opened, record_turn


def test_a_fresh_ledger_works_at_once(tmp_path: Path) -> None:
    path = tmp_path / "100% new" / "folder" / "ledger.sqlite3"
    assert migrate(path)
    with opened(path) as ledger:
        ledger.reader.head_position()
        assert record_turn(ledger, STREAM).position == 1


def test_migrating_again_changes_nothing_even_beside_a_running_service(tmp_path: Path) -> None:
    path = new_ledger_file(tmp_path)
    with opened(path) as ledger:
        record_turn(ledger, STREAM)
        before = all_stored(ledger)
        assert not migrate(path)
        assert all_stored(ledger) == before
        record_turn(ledger, STREAM)
        check_chain(all_stored(ledger))


# SQLAlchemy cannot reflect them; their names are compared below.
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index:sqlalchemy.exc.SAWarning")
def test_the_tables_are_those_the_code_sees(tmp_path: Path) -> None:
    engine = open_engine(new_ledger_file(tmp_path), writer=True)
    with engine.connect() as connection:
        # Only statements in SQL use the access log and the keys.
        others = ("access_log", "api_keys")
        options = {"compare_type": True, "include_name": lambda name, _kind, _parents: name not in others}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
        found = inspect(connection)
        assert [column["name"] for column in found.get_columns("events")] == list(EVENTS.columns.keys())
        assert {column["name"] for column in found.get_columns("events") if column["nullable"]} == {
            column.name for column in EVENTS.columns if column.nullable
        }
        made = connection.exec_driver_sql("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
        figures = {f"events_{what}_figures" for what in ("gate", "rerank", "retrieval", "summary", "turn")}
        figures |= {"events_exchange_key", "events_branch"}
        assert {row.name for row in made} == {index.name for index in EVENTS.indexes} | figures
    engine.dispose()


def test_a_ledger_from_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = new_ledger_file(tmp_path)
    engine = open_engine(path, writer=True)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerSchemaError, match=r"ledger\.sqlite3 has schema '9999'.*newer version"):
        migrate(path)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == "9999"
    engine.dispose()


def test_an_unmigrated_file_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    path.touch()
    with opened(path) as ledger, pytest.raises(LedgerReadFailed, match="no such table"):
        ledger.reader.head_position()


@pytest.mark.parametrize("with_data", [False, True])
def test_alembic_from_the_command_line(tmp_path: Path, with_data: bool) -> None:
    storage_dir = tmp_path / "storage"
    if with_data:
        storage_dir.mkdir()
        with opened(new_ledger_file(storage_dir)) as ledger:
            record_turn(ledger, STREAM)
    run = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "STORAGE_DIR": str(storage_dir)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with opened(storage_dir / "ledger.sqlite3") as ledger:
        assert record_turn(ledger, STREAM).position == (2 if with_data else 1)
        check_chain(all_stored(ledger))


def test_downgrading_is_refused(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "alembic", "downgrade", "base"],
        cwd=ROOT,
        env={**os.environ, "STORAGE_DIR": str(new_ledger_file(tmp_path).parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "restore a backup" in run.stderr
    with opened(tmp_path / "ledger.sqlite3") as ledger:
        assert record_turn(ledger, STREAM).position == 1

"""A writer is durable, a reader can change nothing, and an old SQLite has one writer."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from domain import sqlite
from domain.errors import LedgerLocked
from domain.ledger import Ledger
from tests.ledgers import ROOT, STREAM, new_ledger_file, opened, record_turn

PRAGMAS = ("journal_mode", "synchronous", "foreign_keys", "query_only", "wal_autocheckpoint")


def pragmas(path: Path, *, writer: bool, durable: bool = True) -> dict[str, object]:
    engine = sqlite.open_engine(path, writer=writer, durable=durable)
    with engine.connect() as connection:
        values = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in PRAGMAS}
    engine.dispose()
    return values


def test_a_writer_is_durable(ledger_path: Path) -> None:
    full, normal = 2, 1
    found = pragmas(ledger_path, writer=True)
    assert (found["journal_mode"], found["synchronous"], found["wal_autocheckpoint"]) == ("wal", full, 0)
    assert pragmas(ledger_path, writer=True, durable=False)["synchronous"] == normal


def test_a_transaction_that_could_not_end_blocks_no_other(tmp_path: Path) -> None:
    with closing(sqlite.DRIVER.connect(tmp_path / "any.sqlite3", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE noted (what)")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO noted VALUES ('neither committed nor rolled back')")
        with sqlite.transaction(connection):
            connection.execute("INSERT INTO noted VALUES ('kept')")
        assert connection.execute("SELECT what FROM noted").fetchall() == [("kept",)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO events SELECT * FROM events",
        "UPDATE events SET payload = ''",
        "DELETE FROM events",
        "DROP TRIGGER events_no_update",
        "CREATE TABLE mine (x)",
        "PRAGMA user_version = 7",
    ],
)
def test_a_reader_can_change_nothing(ledger: Ledger, statement: str) -> None:
    record_turn(ledger, STREAM)
    with (
        ledger.reader._engine.connect() as connection,
        pytest.raises(OperationalError, match="attempt to write a readonly database"),
    ):
        connection.execute(text(statement))
    assert ledger.reader.head_position() == 1


def test_readers_continue_while_somebody_writes(ledger: Ledger) -> None:
    record_turn(ledger, STREAM)
    with sqlite.open_engine(ledger.path, writer=True).begin():
        assert ledger.reader.head_position() == 1


@pytest.mark.skipif(not sqlite.SHARES_WRITING, reason="this SQLite allows one writer only")
def test_a_safe_sqlite_allows_several_writers(ledger: Ledger) -> None:
    with opened(ledger.path) as other:
        assert record_turn(other, STREAM).version == 1
    assert record_turn(ledger, STREAM).version == 2


class TestReplacing:
    def test_replacing_a_ledger_waits_for_its_writers(self, ledger_path: Path) -> None:
        assert not sqlite.in_use(ledger_path)
        with opened(ledger_path):
            assert sqlite.in_use(ledger_path)
            with pytest.raises(LedgerLocked, match="is in use by a service or another command: stop it first"):
                sqlite.WriterLock(ledger_path, alone=True)
        assert not sqlite.in_use(ledger_path)
        sqlite.WriterLock(ledger_path, alone=True).release()

    def test_nobody_opens_a_ledger_that_is_being_replaced(self, ledger_path: Path) -> None:
        lock = sqlite.WriterLock(ledger_path, alone=True)
        with pytest.raises(LedgerLocked, match=r"is being (replaced by a restore|written by another process)"):
            Ledger(ledger_path)
        lock.release()
        with opened(ledger_path) as ledger:
            assert record_turn(ledger, STREAM).version == 1


class TestOldSqlite:
    @pytest.fixture(autouse=True)
    def old(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sqlite, "SHARES_WRITING", False)

    def test_the_second_writer_is_refused_with_what_to_do(self, ledger_path: Path) -> None:
        with opened(ledger_path) as first:
            for _ in range(2):
                with pytest.raises(
                    LedgerLocked,
                    match=r"two writers: stop the other process, or install pysqlite3, .*"
                    r"or a Python with SQLite 3\.51\.3 or newer",
                ):
                    Ledger(ledger_path)
            assert record_turn(first, STREAM).version == 1
        with opened(ledger_path) as second:
            assert record_turn(second, STREAM).version == 2

    def test_another_process_is_refused_too(self, ledger_path: Path) -> None:
        program = (
            "import sys; from pathlib import Path; from domain import sqlite; from domain.errors import LedgerLocked\n"
            "sqlite.SHARES_WRITING = False\n"
            "try: sqlite.WriterLock(Path(sys.argv[1]))\n"
            "except LedgerLocked: sys.exit(42)\n"
        )
        with opened(ledger_path):
            refused = subprocess.run([sys.executable, "-c", program, str(ledger_path)], cwd=ROOT, check=False)
        allowed = subprocess.run([sys.executable, "-c", program, str(ledger_path)], cwd=ROOT, check=False)
        assert (refused.returncode, allowed.returncode) == (42, 0)


def test_emptying_the_wal_tells_whether_a_reader_kept_it(tmp_path: Path) -> None:
    path = new_ledger_file(tmp_path)
    with opened(path) as ledger:
        record_turn(ledger, STREAM)
        with closing(sqlite.DRIVER.connect(path)) as reader:
            reader.isolation_level = None
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            record_turn(ledger, STREAM)
            assert not ledger.write(sqlite.truncate_wal, transaction=False).result()
            reader.execute("COMMIT")
        assert ledger.write(sqlite.compact, transaction=False).result()
        assert sqlite.wal_bytes(path) == 0
        # Somebody who can wait may try until the reader is gone.
        attempts = iter([False, False, True])
        assert sqlite.until_emptied(lambda: next(attempts))
        assert record_turn(ledger, STREAM).version == 3

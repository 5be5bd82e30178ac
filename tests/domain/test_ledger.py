"""The ledger in SQLite: the contract of every ledger, and what only this one does or fails at."""

from __future__ import annotations

import resource
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from domain import chain, sqlite
from domain import ledger as ledger_module
from domain.errors import LedgerOverloaded, LedgerSchemaError, LedgerWriteFailed
from domain.events import NewEvent
from domain.ledger import Ledger, StreamHead
from tests.domain.ledger_contract import LedgerContract, new_turn, writer_held
from tests.domain.sqlite_store import SqliteStore
from tests.ledgers import STREAM, all_stored, check_chain, opened, record_turn, turn

WITHOUT_WAITING_S = 5.0
"""Far more than an append takes, and half of what a checkpoint would wait for a reader."""


class TestSqliteLedger(SqliteStore, LedgerContract):
    def test_another_connection_sees_it_when_the_future_resolves(self, ledger: Ledger) -> None:
        event = record_turn(ledger, STREAM)
        with closing(sqlite.DRIVER.connect(ledger.path)) as other:
            assert other.execute("SELECT event_id FROM events").fetchall() == [(event.event_id,)]

    def test_close_leaves_no_wal(self, ledger_path: Path) -> None:
        ledger = Ledger(ledger_path)
        futures = [ledger.append(STREAM, lambda head: [new_turn(head)]) for _ in range(300)]
        ledger.close()
        assert all(future.done() for future in futures)
        assert not ledger_path.with_name("ledger.sqlite3-wal").exists()


def columns_of(path: Path, position: int) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return dict(connection.execute("SELECT * FROM events WHERE position = ?", (position,)).fetchone())


def insert(columns: dict[str, Any], verb: str = "INSERT", tail: str = "") -> tuple[str, list[Any]]:
    marks = ", ".join("?" * len(columns))
    return f"{verb} INTO events ({', '.join(columns)}) VALUES ({marks}) {tail}", list(columns.values())


class TestAppendOnlyFromAnyClient:
    @pytest.fixture
    def path(self, ledger_path: Path) -> Path:
        with opened(ledger_path) as ledger:
            for _ in range(3):
                record_turn(ledger, STREAM)
        return ledger_path

    @contextmanager
    def refused(self, path: Path) -> Iterator[sqlite3.Connection]:
        """Give a client of the standard library; what it tries must be refused and have changed nothing."""
        with opened(path) as ledger:
            before = all_stored(ledger)
        with closing(sqlite3.connect(path)) as client:
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                yield client
            client.commit()
        with opened(path) as ledger:
            assert all_stored(ledger) == before

    def successor(self, path: Path) -> dict[str, Any]:
        """Return a row that could follow the last one."""
        row = columns_of(path, 3)
        return {**row, "position": 4, "version": 4, "event_id": "new", "prev_hash": row["hash"], "hash": "sha256:1"}

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE events SET payload = '{}' WHERE position = 2",
            "UPDATE OR REPLACE events SET position = 1 WHERE position = 2",
            "UPDATE events SET salt = ''",
            "DELETE FROM events WHERE position = 3",
            "DELETE FROM events",
        ],
    )
    def test_no_change_and_no_removal(self, path: Path, statement: str) -> None:
        with self.refused(path) as client:
            client.execute(statement)

    @pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE", "REPLACE", "INSERT OR IGNORE"])
    @pytest.mark.parametrize("position", [1, 3, 5, 0, -1, None])
    def test_no_row_anywhere_but_next(self, path: Path, verb: str, position: int | None) -> None:
        with self.refused(path) as client:
            client.execute(*insert({**self.successor(path), "position": position}, verb))

    @pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE"])
    def test_no_unchained_row(self, path: Path, verb: str) -> None:
        with self.refused(path) as client:
            client.execute(*insert({**self.successor(path), "prev_hash": chain.GENESIS}, verb))

    @pytest.mark.parametrize("verb", ["INSERT", "INSERT OR REPLACE"])
    def test_no_chained_row_that_replaces_another_by_its_event_id(self, path: Path, verb: str) -> None:
        with self.refused(path) as client:
            client.execute(*insert({**self.successor(path), "event_id": columns_of(path, 1)["event_id"]}, verb))

    @pytest.mark.parametrize("version", [1, 3, 5])
    def test_no_chained_row_that_replaces_another_by_its_version_or_leaves_a_hole(
        self, path: Path, version: int
    ) -> None:
        with self.refused(path) as client:
            client.execute(*insert({**self.successor(path), "version": version}, "INSERT OR REPLACE"))

    @pytest.mark.parametrize("key", ["position", "event_id"])
    def test_no_upsert(self, path: Path, key: str) -> None:
        row = {**self.successor(path), key: columns_of(path, 1)[key]}
        with self.refused(path) as client:
            client.execute(*insert(row, tail=f"ON CONFLICT ({key}) DO UPDATE SET payload = '{{}}'"))

    def test_the_next_chained_row_may_be_inserted(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as client:
            client.execute(*insert(self.successor(path)))
            client.commit()
        assert columns_of(path, 4)["event_id"] == "new"


class TestTransactions:
    """A transaction that could not be ended holds up no later one."""

    def test_an_open_transaction_is_rolled_back_before_the_next(self, ledger: Ledger) -> None:
        def leave_open(connection: Connection) -> None:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute("BEGIN IMMEDIATE")
            raw.execute("CREATE TABLE left_open (x)")

        ledger.write(leave_open, transaction=False).result()
        assert record_turn(ledger, STREAM).version == 1
        with closing(sqlite.DRIVER.connect(ledger.path)) as other:
            assert other.execute("SELECT name FROM sqlite_master WHERE name = 'left_open'").fetchall() == []
            assert other.execute("SELECT count(*) FROM events").fetchone() == (1,)

    def test_a_failed_commit_releases_the_file_at_once(self, ledger: Ledger) -> None:
        def prepare(connection: Connection) -> None:
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA foreign_keys=ON")
            raw.execute("CREATE TEMP TABLE parent (id PRIMARY KEY)")
            raw.execute("CREATE TEMP TABLE child (of REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")

        def orphan(connection: Connection) -> None:  # a deferred constraint is checked by COMMIT, and it fails then
            connection.exec_driver_sql("INSERT INTO child VALUES (1)")

        ledger.write(prepare, transaction=False).result()
        for _ in range(2):
            with pytest.raises(LedgerWriteFailed, match="FOREIGN KEY"):
                ledger.write(orphan).result()
            with closing(sqlite.DRIVER.connect(ledger.path, isolation_level=None, timeout=5)) as other:
                other.execute("BEGIN IMMEDIATE")
        assert record_turn(ledger, STREAM).version == 1
        check_chain(all_stored(ledger))


class TestFailures:
    def test_a_locked_ledger_fails_the_append_and_works_again(
        self, ledger_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_MS", 50)
        with opened(ledger_path) as ledger:
            record_turn(ledger, STREAM)
            with closing(sqlite.DRIVER.connect(ledger_path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                for _ in range(2):
                    with pytest.raises(LedgerWriteFailed, match="locked"):
                        record_turn(ledger, STREAM)
                other.execute("ROLLBACK")
            assert record_turn(ledger, STREAM).version == 2

    def test_a_full_disk_fails_the_append_and_later_ones_work(self, ledger_path: Path) -> None:
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        with opened(ledger_path) as ledger:
            record_turn(ledger, STREAM)
            size = ledger_path.with_name("ledger.sqlite3-wal").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, unlimited[1]))
            try:
                with pytest.raises(LedgerWriteFailed, match="nothing was recorded"):
                    record_turn(ledger, STREAM, assistant="x" * 100_000)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            assert record_turn(ledger, STREAM).version == 2
            check_chain(all_stored(ledger))

    def test_a_checkpoint_that_fails_is_counted_and_appends_go_on(
        self, ledger_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_module, "_CHECKPOINT_BYTES", 200_000)
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        with opened(ledger_path) as ledger:
            while ledger_path.stat().st_size < 3_000_000:
                record_turn(ledger, STREAM, assistant="x" * 50_000)
            before = ledger.reader.head_position()
            # Room for the WAL, which is smaller, and none for the database file to grow.
            resource.setrlimit(resource.RLIMIT_FSIZE, (ledger_path.stat().st_size, unlimited[1]))
            try:
                added = [record_turn(ledger, STREAM, assistant="x" * 50_000) for _ in range(10)]
                # Copying is tried after an append was answered, so it may be yet to come.
                deadline = time.monotonic() + 30
                while not ledger.failures and time.monotonic() < deadline:
                    time.sleep(0.01)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            assert added[-1].position == before + 10
            assert ledger.failures > 0
            check_chain(all_stored(ledger))

    def test_the_wal_is_copied_by_what_was_written_not_after_every_commit(
        self, ledger_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ledger_module, "_CHECKPOINT_BYTES", 200_000)
        wal_sizes: list[int] = []

        def counted(connection: Connection, *, truncate: bool = False) -> bool:
            wal_sizes.append(ledger_path.with_name("ledger.sqlite3-wal").stat().st_size)
            return sqlite.checkpoint(connection, truncate=truncate)

        monkeypatch.setattr(ledger_module, "checkpoint", counted)
        with opened(ledger_path) as ledger:
            record_turn(ledger, STREAM, assistant="x" * 250_000)
            for _ in range(50):
                record_turn(ledger, STREAM)
            assert len(wal_sizes) == 1
            record_turn(ledger, STREAM, assistant="x" * 250_000)
            deadline = time.monotonic() + 30
            while len(wal_sizes) < 2 and time.monotonic() < deadline:
                record_turn(ledger, STREAM)  # while another append waits, copying is put off until after it
            assert len(wal_sizes) == 2
            # The file of the WAL is as large as ever: its size says nothing about what is still to be copied.
            assert wal_sizes[1] >= wal_sizes[0] > 250_000

    def test_a_reader_that_holds_on_to_a_full_wal_makes_no_append_wait(
        self, ledger_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def long_turn(head: StreamHead) -> NewEvent:
            return NewEvent(str(uuid4()), turn(head.turn_id + 1, assistant="x" * 50_000))

        # Whatever waits for as long as the connection may, now does so for an hour.
        monkeypatch.setattr(sqlite, "_BUSY_TIMEOUT_MS", 3_600_000)
        monkeypatch.setattr(ledger_module, "_CHECKPOINT_BYTES", 50_000)
        monkeypatch.setattr(ledger_module, "_WARN_WAL_BYTES", 500_000)
        with opened(ledger_path) as ledger, closing(sqlite.DRIVER.connect(ledger_path)) as reader:
            reader.isolation_level = None
            record_turn(ledger, STREAM)
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM events").fetchone()
            while "a long-running reader kept it" not in caplog.text:
                ledger.append(STREAM, lambda head: [long_turn(head)]).result(WITHOUT_WAITING_S)
            reader.execute("COMMIT")
            full = sqlite.wal_bytes(ledger_path)
            assert full >= 500_000
            record_turn(ledger, STREAM, assistant="x" * 50_000)
            deadline = time.monotonic() + 30
            while sqlite.wal_bytes(ledger_path) >= full and time.monotonic() < deadline:
                record_turn(ledger, STREAM, assistant="x" * 50_000)
            assert sqlite.wal_bytes(ledger_path) < full
            check_chain(all_stored(ledger))

    def test_the_wal_is_copied_under_a_load_that_never_pauses(
        self, ledger_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(ledger_module, "_CHECKPOINT_BYTES", 50_000)
        monkeypatch.setattr(ledger_module, "_CHECKPOINT_ANYWAY_BYTES", 400_000)
        monkeypatch.setattr(ledger_module, "_WARN_WAL_BYTES", 500_000)
        wal = ledger_path.with_name("ledger.sqlite3-wal")
        wal_sizes: list[int] = []
        full = threading.Event()

        def long_turn(head: StreamHead) -> list[NewEvent]:
            return [NewEvent(str(uuid4()), turn(head.turn_id + 1, assistant="x" * 50_000))]

        with opened(ledger_path) as ledger:

            def append_at_once() -> None:  # from the writer's thread: when it looks for time to copy, one waits
                wal_sizes.append(wal.stat().st_size)
                if len(wal_sizes) < 100:
                    ledger.append(STREAM, long_turn)
                else:
                    full.set()

            ledger.subscribe(append_at_once)
            record_turn(ledger, STREAM, assistant="x" * 50_000)
            assert full.wait(60)
            assert ledger.reader.head_position() == 100
        assert 400_000 < max(wal_sizes) < 2_000_000  # of more than 5 MB that were written
        assert caplog.records == []

    def test_a_reader_that_holds_a_large_wal_is_named_and_only_then(
        self, ledger_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(ledger_module, "_CHECKPOINT_BYTES", 50_000)
        monkeypatch.setattr(ledger_module, "_CHECKPOINT_ANYWAY_BYTES", 50_000)  # at once, whatever waits
        monkeypatch.setattr(ledger_module, "_WARN_WAL_BYTES", 100_000)
        with opened(ledger_path) as ledger:
            for _ in range(5):
                record_turn(ledger, STREAM, assistant="x" * 60_000)
            with closing(sqlite.DRIVER.connect(ledger_path, isolation_level=None)) as reader:
                ledger.write(lambda _: None).result()  # whatever was to be copied is copied
                assert caplog.records == []
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM events").fetchone()
                for _ in range(5):
                    record_turn(ledger, STREAM, assistant="x" * 60_000)
                ledger.write(lambda _: None).result()
                assert "a long-running reader kept it from being emptied" in caplog.text
                reader.execute("ROLLBACK")
            record_turn(ledger, STREAM, assistant="x" * 60_000)
            ledger.write(lambda _: None).result()
            assert ledger_path.with_name("ledger.sqlite3-wal").stat().st_size < 100_000
            assert ledger.failures == 0

    def test_overload_is_reported_at_once(self, ledger_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger_module, "_QUEUE_MAX", 2)
        with opened(ledger_path) as ledger:
            with writer_held(ledger):
                waiting = [ledger.append(STREAM, lambda _head: []) for _ in range(2)]
                with pytest.raises(LedgerOverloaded, match="try again later"):
                    ledger.append(STREAM, lambda _head: [])
            assert [future.result() for future in waiting] == [(), ()]
            assert record_turn(ledger, STREAM).version == 1


class TestOpening:
    def test_a_missing_file_is_not_created(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerSchemaError, match="alembic upgrade head"):
            Ledger(tmp_path / "ledger.sqlite3")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_not_a_database_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.sqlite3"
        path.write_text("a note, and not a database" * 100)
        with pytest.raises(LedgerSchemaError, match="not a database"):
            Ledger(path)

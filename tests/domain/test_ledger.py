"""The ledger's promises: acknowledged is durable, nothing changes, order holds, one failure hurts nobody else."""

from __future__ import annotations

import queue
import resource
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection

from domain import chain, sqlite
from domain import ledger as ledger_module
from domain.errors import LedgerError, LedgerOverloaded, LedgerSchemaError, LedgerWriteFailed, VersionConflict
from domain.events import Event, NewEvent, TurnRecorded
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from tests.ledgers import ROOT, STREAM, all_stored, check_chain, new_ledger_file, opened, record, record_turn, turn


def start_appender(path: Path, conversation: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.domain.appender", str(path), "ann", conversation, str(count)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def new_turn(head: StreamHead) -> NewEvent:
    return NewEvent(str(uuid4()), turn(head.turn_id + 1))


def turn_ids(ledger: Ledger, stream: StreamId) -> list[int]:
    return [memory.turn_id for memory in ledger.reader.recent_turns(stream, 100_000)]


def versions(ledger: Ledger, stream: StreamId) -> list[int]:
    return [row.version for row in ledger.reader.stored_in_stream(stream, 0, 100_000)]


@contextmanager
def held(ledger: Ledger) -> Iterator[None]:
    """Hold the writer inside a transaction: what is appended meanwhile waits, and then becomes one batch."""
    entered, leave = threading.Event(), threading.Event()

    def wait(_head: StreamHead) -> list[NewEvent]:
        entered.set()
        leave.wait()
        return []

    holding = ledger.append(StreamId("nobody", "holds"), wait)
    entered.wait()
    try:
        yield
    finally:
        leave.set()
        holding.result()


class TestAcknowledgedMeansCommitted:
    def test_what_a_killed_process_acknowledged_is_there(self, ledger_path: Path) -> None:
        with start_appender(ledger_path, "trip", 1_000_000) as process:
            assert process.stdout is not None
            acknowledged = [process.stdout.readline().strip() for _ in range(30)]
            process.kill()
            acknowledged += process.stdout.read().split("\n")[:-1]
        with opened(ledger_path) as ledger:
            rows = all_stored(ledger)
            check_chain(rows)
            kept = [row.event_id for row in rows]
            assert kept[: len(acknowledged)] == acknowledged
            assert len(kept) <= len(acknowledged) + 1  # at most one was committed and not yet reported
            assert record_turn(ledger, STREAM).version == len(kept) + 1

    def test_another_connection_sees_it_when_the_future_resolves(self, ledger: Ledger) -> None:
        event = record_turn(ledger, STREAM)
        with closing(sqlite.DRIVER.connect(ledger.path)) as other:
            assert other.execute("SELECT event_id FROM events").fetchall() == [(event.event_id,)]

    def test_close_writes_what_waits(self, ledger_path: Path) -> None:
        ledger = Ledger(ledger_path)
        futures = [ledger.append(STREAM, lambda head: [new_turn(head)]) for _ in range(300)]
        ledger.close()
        assert [future.result(timeout=0)[0].version for future in futures] == list(range(1, 301))
        with pytest.raises(LedgerError, match="closed"):
            ledger.append(STREAM, lambda _head: [])
        assert not ledger_path.with_name("ledger.sqlite3-wal").exists()

    def test_an_append_that_races_close_is_refused_or_answered(self, ledger_path: Path) -> None:
        ledger = Ledger(ledger_path)
        started = threading.Event()

        def append_until_closed() -> int:
            count = 0
            while True:
                try:
                    future = ledger.append(STREAM, lambda head: [new_turn(head)])
                except LedgerError:
                    return count
                future.result(timeout=30)
                count += 1
                started.set()

        with ThreadPoolExecutor(4) as pool:
            workers = [pool.submit(append_until_closed) for _ in range(4)]
            started.wait()
            ledger.close()
            count = sum(worker.result() for worker in workers)
        with opened(ledger_path) as again:
            assert versions(again, STREAM) == list(range(1, count + 1))


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
    def test_no_row_that_is_not_chained(self, path: Path, verb: str) -> None:
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

    def test_what_follows_may_be_inserted(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as client:
            client.execute(*insert(self.successor(path)))
            client.commit()
        assert columns_of(path, 4)["event_id"] == "new"


class TestOrder:
    def test_group_commit_keeps_the_order_of_appends(self, ledger: Ledger) -> None:
        commits: list[None] = []
        ledger.subscribe(lambda: commits.append(None))
        streams = [StreamId(f"u{number % 3}", "c") for number in range(500)]
        futures = [ledger.append(stream, lambda head: [new_turn(head)]) for stream in streams]
        events = [future.result()[0] for future in futures]
        assert [event.position for event in events] == list(range(1, 501))
        assert [event.stream for event in events] == streams
        assert all(event == seen for event, seen in zip(events, ledger.reader.events_after(0, 1000), strict=True))
        ledger.close()
        assert len(commits) < 500, "every append was a commit of its own"

    def test_versions_and_turn_ids_are_consecutive_with_many_threads(self, ledger: Ledger) -> None:
        with ThreadPoolExecutor(16) as pool:
            events: list[Event] = list(pool.map(lambda _: record_turn(ledger, STREAM), range(400)))
        assert sorted(event.version for event in events) == list(range(1, 401))
        assert versions(ledger, STREAM) == list(range(1, 401))
        assert turn_ids(ledger, STREAM) == list(range(1, 401))
        check_chain(all_stored(ledger))

    @pytest.mark.skipif(not sqlite.SHARES_WRITING, reason="this SQLite allows one writer only")
    def test_two_processes_append_to_one_conversation(self, ledger_path: Path) -> None:
        with start_appender(ledger_path, "trip", 150) as one, start_appender(ledger_path, "trip", 150) as other:
            printed = [process.communicate()[0].split() for process in (one, other)]
        assert [process.returncode for process in (one, other)] == [0, 0]
        with opened(ledger_path) as ledger:
            rows = all_stored(ledger)
            check_chain(rows)
            assert sorted(row.event_id for row in rows) == sorted(printed[0] + printed[1])
            assert [row.version for row in rows] == list(range(1, 301))
            assert turn_ids(ledger, STREAM) == list(range(1, 301))

    def test_an_atomic_append_is_together(self, ledger: Ledger) -> None:
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda _: record(ledger, STREAM, turn(1), turn(2), turn(3)), range(40)))
        for events in together:
            first = events[0].position
            assert [event.position for event in events] == [first, first + 1, first + 2]


class TestConflictsAndFailures:
    def test_one_of_two_that_expect_the_same_version_wins(self, ledger: Ledger) -> None:
        record_turn(ledger, STREAM)
        with held(ledger):
            futures = [
                ledger.append(STREAM, lambda head: [new_turn(head)], expected_version=1),
                ledger.append(STREAM, lambda head: [new_turn(head)], expected_version=1),
            ]
        assert futures[0].result()[0].version == 2
        with pytest.raises(VersionConflict, match="version 2, not 1"):
            futures[1].result()
        assert versions(ledger, STREAM) == [1, 2]

    def test_a_decide_that_raises_hurts_nobody_else(self, ledger: Ledger) -> None:
        def undecided(_head: StreamHead) -> list[NewEvent]:
            raise ValueError("cannot decide")

        with held(ledger):
            before = ledger.append(STREAM, lambda head: [new_turn(head)])
            failing = ledger.append(STREAM, undecided)
            after = ledger.append(STREAM, lambda head: [new_turn(head)])
        with pytest.raises(ValueError, match="cannot decide"):
            failing.result()
        assert [before.result()[0].version, after.result()[0].version] == [1, 2]
        check_chain(all_stored(ledger))

    def test_an_event_id_twice_fails_alone(self, ledger: Ledger) -> None:
        taken = record_turn(ledger, STREAM).event_id
        with held(ledger):
            futures = [
                ledger.append(STREAM, lambda head: [new_turn(head)]),
                ledger.append(STREAM, lambda head: [new_turn(head), NewEvent(taken, turn(9))]),
                ledger.append(STREAM, lambda head: [new_turn(head)]),
            ]
        with pytest.raises(LedgerWriteFailed, match="refused"):
            futures[1].result()
        assert [futures[0].result()[0].version, futures[2].result()[0].version] == [2, 3]
        assert turn_ids(ledger, STREAM) == [1, 2, 3]
        check_chain(all_stored(ledger))

    def test_text_that_is_no_unicode_fails_alone(self, ledger: Ledger) -> None:
        with pytest.raises(UnicodeEncodeError):
            record(ledger, STREAM, turn(1).model_copy(update={"user": "\ud800"}))
        assert record_turn(ledger, STREAM).position == 1

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
        monkeypatch.setattr(sqlite, "_CHECKPOINT_TIMEOUT_MS", 20)
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

    def test_a_listener_that_raises_does_not_end_the_writer(self, ledger: Ledger) -> None:
        def broken() -> None:
            raise RuntimeError("the loop is closed")

        unsubscribe = ledger.subscribe(broken)
        record_turn(ledger, STREAM)
        assert record_turn(ledger, STREAM).version == 2
        unsubscribe()
        ledger.close()
        assert ledger.failures == 2

    def test_overload_is_said_at_once(self, ledger_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger_module, "_QUEUE_MAX", 2)
        with opened(ledger_path) as ledger:
            with held(ledger):
                waiting = [ledger.append(STREAM, lambda _head: []) for _ in range(2)]
                with pytest.raises(LedgerOverloaded, match="try again later"):
                    ledger.append(STREAM, lambda _head: [])
            assert [future.result() for future in waiting] == [(), ()]
            assert record_turn(ledger, STREAM).version == 1

    def test_a_cancelled_append_is_not_written(self, ledger: Ledger) -> None:
        with held(ledger):
            cancelled = ledger.append(STREAM, lambda head: [new_turn(head)])
            assert cancelled.cancel()
        assert record_turn(ledger, STREAM).version == 1


class TestOpening:
    def test_a_missing_file_is_not_created(self, tmp_path: Path) -> None:
        with pytest.raises(LedgerSchemaError, match="alembic upgrade head"):
            Ledger(tmp_path / "ledger.sqlite3")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.sqlite3"
        path.write_text("a note, and not a database" * 100)
        with pytest.raises(LedgerSchemaError, match="not a database"):
            Ledger(path)

    def test_subscribers_are_called_until_they_leave(self, ledger: Ledger) -> None:
        calls: queue.Queue[None] = queue.Queue()
        unsubscribe = ledger.subscribe(lambda: calls.put(None))
        record_turn(ledger, STREAM)
        calls.get(timeout=30)
        unsubscribe()
        record_turn(ledger, STREAM)
        record_turn(ledger, STREAM)
        assert calls.empty()

    def test_it_goes_on_where_it_stopped(self, tmp_path: Path) -> None:
        path = new_ledger_file(tmp_path)
        for version in range(1, 4):
            with opened(path) as ledger:
                event = record_turn(ledger, STREAM)
                assert isinstance(event.payload, TurnRecorded)
                assert (event.position, event.version, event.payload.turn_id) == (version, version, version)

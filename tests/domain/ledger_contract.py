"""What every ledger promises, whatever database holds it: one suite that each store must pass.

A store's tests derive from a contract and say how to create and open a ledger. What is special about a store is tested
beside it.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from domain.errors import LedgerError, LedgerWriteFailed, Unrecordable, VersionConflict
from domain.events import Event, NewEvent, TurnRecorded
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from tests.ledgers import ROOT, STREAM, all_stored, check_chain, record, record_turn, turn


class Store(ABC):
    """How a store makes and opens ledgers."""

    shares_writing = True
    """Whether a ledger can be opened twice to write."""

    @abstractmethod
    def create(self, folder: Path) -> Any:
        """Make an empty ledger and return its place, whose text lets another process open it (`tests.domain.appender`).

        ``folder`` is empty and the test's own.
        """

    @abstractmethod
    def open(self, place: Any) -> Ledger:
        """Open the ledger at a place to append and read; the caller closes it."""


class StoreTests(Store):
    """A store, and a ledger in it for each test that asks for one."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Any:
        return self.create(tmp_path)

    @pytest.fixture
    def ledger(self, place: Any) -> Iterator[Ledger]:
        with closing(self.open(place)) as ledger:
            yield ledger


def start_appender(place: Any, conversation: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.domain.appender", str(place), "ann", conversation, str(count)],
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
def writer_held(ledger: Ledger) -> Iterator[None]:
    """Hold the writer in a transaction, so that appends made meanwhile become one batch."""
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


class LedgerContract(StoreTests):
    """Acknowledged is durable, order holds, and one failure hurts nobody else."""

    # Acknowledged means committed.

    def test_what_a_killed_process_acknowledged_is_there(self, place: Any) -> None:
        with start_appender(place, "trip", 1_000_000) as process:
            assert process.stdout is not None
            acknowledged = [process.stdout.readline().strip() for _ in range(30)]
            process.kill()
            acknowledged += process.stdout.read().split("\n")[:-1]
        with closing(self.open(place)) as ledger:
            rows = all_stored(ledger)
            check_chain(rows)
            kept = [row.event_id for row in rows]
            assert kept[: len(acknowledged)] == acknowledged
            assert len(kept) <= len(acknowledged) + 1  # at most one was committed and not yet reported
            assert record_turn(ledger, STREAM).version == len(kept) + 1

    def test_another_ledger_on_the_same_place_sees_it_when_the_future_resolves(
        self, place: Any, ledger: Ledger
    ) -> None:
        if not self.shares_writing:
            pytest.skip("this store allows one writer only")
        with closing(self.open(place)) as other:
            event = record_turn(ledger, STREAM)
            assert other.reader.events_after(0, 10) == [event]

    def test_close_writes_what_waits(self, place: Any) -> None:
        ledger = self.open(place)
        futures = [ledger.append(STREAM, lambda head: [new_turn(head)]) for _ in range(300)]
        ledger.close()
        assert [future.result(timeout=0)[0].version for future in futures] == list(range(1, 301))
        with pytest.raises(LedgerError, match="closed"):
            ledger.append(STREAM, lambda _head: [])

    def test_an_append_that_races_close_is_refused_or_answered(self, place: Any) -> None:
        ledger = self.open(place)
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
        with closing(self.open(place)) as again:
            assert versions(again, STREAM) == list(range(1, count + 1))

    def test_it_continues_after_reopening(self, place: Any) -> None:
        for version in range(1, 4):
            with closing(self.open(place)) as ledger:
                event = record_turn(ledger, STREAM)
                assert isinstance(event.payload, TurnRecorded)
                assert (event.position, event.version, event.payload.turn_id) == (version, version, version)

    # Order.

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

    def test_two_processes_append_to_one_conversation(self, place: Any) -> None:
        if not self.shares_writing:
            pytest.skip("this store allows one writer only")
        with start_appender(place, "trip", 150) as one, start_appender(place, "trip", 150) as other:
            printed = [process.communicate()[0].split() for process in (one, other)]
        assert [process.returncode for process in (one, other)] == [0, 0]
        with closing(self.open(place)) as ledger:
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

    # Conflicts and failures.

    def test_one_of_two_that_expect_the_same_version_wins(self, ledger: Ledger) -> None:
        record_turn(ledger, STREAM)
        with writer_held(ledger):
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

        with writer_held(ledger):
            before = ledger.append(STREAM, lambda head: [new_turn(head)])
            failing = ledger.append(STREAM, undecided)
            after = ledger.append(STREAM, lambda head: [new_turn(head)])
        with pytest.raises(ValueError, match="cannot decide"):
            failing.result()
        assert [before.result()[0].version, after.result()[0].version] == [1, 2]
        check_chain(all_stored(ledger))

    def test_an_event_id_twice_fails_alone(self, ledger: Ledger) -> None:
        taken = record_turn(ledger, STREAM).event_id
        with writer_held(ledger):
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
        with pytest.raises(Unrecordable, match="half of a surrogate pair"):
            record(ledger, STREAM, turn(1).model_copy(update={"user": "\ud800"}))
        assert record_turn(ledger, STREAM).position == 1

    def test_a_cancelled_append_is_not_written(self, ledger: Ledger) -> None:
        with writer_held(ledger):
            cancelled = ledger.append(STREAM, lambda head: [new_turn(head)])
            assert cancelled.cancel()
        assert record_turn(ledger, STREAM).version == 1

    # Who listens.

    def test_subscribers_are_called_until_they_leave(self, ledger: Ledger) -> None:
        calls: queue.Queue[None] = queue.Queue()
        unsubscribe = ledger.subscribe(lambda: calls.put(None))
        record_turn(ledger, STREAM)
        calls.get(timeout=30)
        unsubscribe()
        record_turn(ledger, STREAM)
        record_turn(ledger, STREAM)
        assert calls.empty()

    def test_a_listener_that_raises_does_not_end_the_writer(self, ledger: Ledger) -> None:
        def broken() -> None:
            raise RuntimeError("the loop is closed")

        unsubscribe = ledger.subscribe(broken)
        record_turn(ledger, STREAM)
        assert record_turn(ledger, STREAM).version == 2
        unsubscribe()
        ledger.close()
        assert ledger.failures == 2

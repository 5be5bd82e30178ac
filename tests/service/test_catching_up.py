"""Whatever fails in the background is tried again until it works, without a restart, and shows in ``/health/ready``."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.events import SummaryRecorded
from projections.mirror import event_file
from service import background, summarizer
from tests.service.running import Running, running, until
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

DOG = "My dog is called Bruno."
LONG = "The dog is called Bruno. " * 2_000
"""More than fits into the pages that the ledger's file has left over."""


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summarizer, "_AGAIN_FIRST_S", 0.01)
    monkeypatch.setattr(background, "_LOOK_AGAIN_S", 0.01)


def check_of(service: Running, name: str) -> dict[str, Any]:
    check: dict[str, Any] = service.client.get("/health/ready").json()["checks"][name]
    return check


@contextmanager
def a_full_disk(service: Running) -> Iterator[None]:
    """Let the ledger's file grow no more, as SQLite itself enforces it."""

    def pages_at_most(count: int) -> None:
        def set_maximum(connection: Any) -> None:
            connection.connection.driver_connection.execute(f"PRAGMA max_page_count={count}").fetchall()

        service.services.ledger.write(set_maximum, transaction=False).result()

    pages_at_most(1)  # SQLite takes it for: as many as there are
    yield
    pages_at_most(4_294_967_294)


def test_a_summary_that_cannot_be_recorded_is_recorded_later(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path) as service:
        upstream.fail("summary", Fault(content=LONG, hang_s=UNTIL_RELEASED))
        service.client.tell(DOG, "ann")
        upstream.wait_for("summary")
        with a_full_disk(service):
            upstream.release()
            until("it shows", lambda: check_of(service, "summaries")["status"] == "failing")
            failing = service.client.get("/health/ready")
            assert failing.status_code == 503
            assert check_of(service, "summaries")["failures"] >= 1
            assert check_of(service, "summaries")["waiting"] == 1
        until("it is there", lambda: service.ledger.all(SummaryRecorded, "ann"))
        service.settle()
        [summary] = service.ledger.all(SummaryRecorded, "ann")
        assert summary.summary == LONG.strip()
        assert len(upstream.calls_of("summary")) == 1, "what the model wrote was kept"
        until("it is ready", lambda: service.client.get("/health/ready").status_code == 200)
        assert check_of(service, "summaries")["waiting"] == 0
        mirror = tmp_path / "users" / "ann" / "conversations" / "c.jsonl"
        assert len(mirror.read_text().splitlines()) == len(service.ledger.stream("ann"))


def test_nothing_is_recorded_over_what_a_person_did_meanwhile(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path) as service:
        upstream.fail("summary", Fault(content=LONG, hang_s=UNTIL_RELEASED))
        memory_id = service.client.tell(DOG, "ann").memory("turn")["memory_id"]
        upstream.wait_for("summary")
        with a_full_disk(service):
            upstream.release()
            until("it shows", lambda: check_of(service, "summaries")["status"] == "failing")
            edited = service.client.http.patch(
                f"/v1/memories/{memory_id}", json={"user": "ann", "summary": "Bruno, a dog."}
            )
            assert edited.status_code == 200
        service.settle()
        assert not service.ledger.all(SummaryRecorded, "ann")


def fail_fsync(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)


def fail_write(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def half_written(file: Any, events: Any) -> None:
        file.write(event_file.line_of(next(iter(events))).encode()[:40])
        file.flush()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(event_file, "_write", half_written)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
@pytest.mark.parametrize("fail", [fail_fsync, fail_write])
def test_the_mirror_catches_up(
    upstream: ScriptedUpstream,
    tmp_path: Path,
    number: int,
    fail: Callable[[pytest.MonkeyPatch, int], None],
) -> None:
    mirror = tmp_path / "users" / "ann" / "conversations" / "c.jsonl"
    with running(upstream, tmp_path) as service:
        service.client.tell(DOG, "ann")
        service.settle()
        whole = mirror.read_bytes()
        with pytest.MonkeyPatch.context() as trouble:
            fail(trouble, number)
            service.client.tell("The sea is cold.", "ann")
            until("it shows", lambda: check_of(service, "mirror")["status"] == "failing")
            assert os.strerror(number) in check_of(service, "mirror")["message"]
            # What could not be brought to the disk does not pass for done.
            assert mirror.read_bytes() == whole
        service.settle()
        assert check_of(service, "mirror")["status"] == "ok"
        assert len(mirror.read_text().splitlines()) == len(service.ledger.stream("ann"))


def test_the_vectors_catch_up(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    def pages_at_most(service: Running, count: int) -> None:
        with service.services.index._cache._writer.connect() as connection:
            raw: Any = connection.connection.driver_connection
            raw.execute(f"PRAGMA max_page_count={count}").fetchall()

    with running(upstream, tmp_path) as service:
        service.client.tell(DOG, "ann")
        service.settle()
        pages_at_most(service, 1)
        # So many that the file would have to grow.
        told = [f"Fact {number} is not known yet." for number in range(40)]
        service.tell_all(told, "ann")
        until("it shows", lambda: check_of(service, "vectors")["status"] == "failing")
        pages_at_most(service, 1_000_000)
        service.settle()
        assert check_of(service, "vectors")["status"] == "ok"
        answer = service.client.tell("Fact 39 is what?", "ann", "other", retrieval="dense")
        assert told[39] in answer.replayed


def test_the_background_survives_a_failure_of_its_own_lock(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True
    taken = background._taken

    def fails_at_first(file: Any) -> bool:
        if broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return taken(file)

    monkeypatch.setattr(background, "_taken", fails_at_first)
    with running(upstream, tmp_path) as service:
        service.client.tell(DOG, "ann")
        until("it shows", lambda: check_of(service, "mirror")["status"] == "failing")
        assert check_of(service, "summaries")["status"] == "failing"
        broken = False
        until("the summary is there", lambda: service.ledger.all(SummaryRecorded, "ann"))
        until("it is ready", lambda: service.client.get("/health/ready").status_code == 200)


def test_the_more_turns_wait_the_more_are_summarised_at_a_time(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path, summary_concurrency=1, summary_concurrency_max=3) as service:
        upstream.fail_always("summary", Fault(hang_s=UNTIL_RELEASED))
        service.tell_all(["One."], "ann")
        upstream.wait_for("summary", 1)
        several = 2 * summarizer._WAITING_PER_SLOT + 5
        service.tell_all([f"Fact {number}." for number in range(several)], "ann")
        upstream.wait_for("summary", 3)
        assert check_of(service, "summaries")["waiting"] == several + 1
        service.tell_all([f"Another {number}." for number in range(summarizer._WAITING_PER_SLOT)], "ann")
        assert len(upstream.calls_of("summary")) == 3, "no more than may be"
        upstream.heal()
        upstream.release()
        service.settle()
        assert check_of(service, "summaries")["waiting"] == 0
        told = several + 1 + summarizer._WAITING_PER_SLOT
        assert len(service.ledger.all(SummaryRecorded, "ann", "facts")) == told

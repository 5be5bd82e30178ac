"""Several services on one STORAGE_DIR all answer; one of them does the background work, and another takes over."""

from __future__ import annotations

import asyncio
import fcntl
import threading
from pathlib import Path
from typing import cast

import pytest

from domain.events import NewEvent, SummaryRecorded
from domain.identity import StreamId
from projections.follower import Follower
from projections.threads import in_background
from projections.verification.storage import verify_storage
from service.background import follow_alone
from service.container import open_services
from tests.ledgers import turn
from tests.service.running import running, settings_for, until
from tests.upstream import ScriptedUpstream

FACTS = ("My dog is called Bruno.", "The spare key hangs behind the clock.", "Basil grows beside tomatoes.")


def test_each_turn_is_summarised_once_whichever_service_answered(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path) as second_to_end:
        with running(upstream, tmp_path) as first_to_end:
            # The one that started later answers like the other, and does nothing else.
            for number, service in enumerate((second_to_end, first_to_end)):
                service.client.tell(FACTS[number], "ann", "facts")
            until("both are summarised", lambda: len(second_to_end.ledger.all(SummaryRecorded, "ann", "facts")) == 2)
            assert "another service does the background work" in first_to_end.log()
        assert len(upstream.calls_of("summary")) == 2


def test_another_service_takes_over_when_the_first_ends(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path) as first:
        second = running(upstream, tmp_path)
        service = second.__enter__()
        first.settle()
    try:
        service.client.tell(FACTS[2], "ann", "facts")
        until("it is summarised", lambda: service.ledger.all(SummaryRecorded, "ann", "facts"))
    finally:
        second.__exit__(None, None, None)


async def test_what_is_recorded_as_the_service_ends_is_mirrored(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    settings = settings_for(upstream, tmp_path)
    async with open_services(settings) as services:
        await services.followers["mirror"].caught_up()
        append = services.ledger.append(StreamId("ann", "facts"), lambda head: [NewEvent("m1", turn(head.turn_id + 1))])
        await asyncio.wrap_future(append)
    verified = verify_storage(settings)
    assert (verified.findings, verified.mirror.position) == ((), verified.head.position)


def test_a_disk_that_fails_at_the_end_keeps_no_service_from_ending(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path) as service:
        service.client.tell(FACTS[0], "ann", "facts")
        service.settle()
        [path] = (tmp_path / "users").glob("ann/conversations/*.jsonl")
        path.unlink()
        path.mkdir()
        service.client.tell(FACTS[1], "ann", "facts")
    assert "the mirror lacks the last events" in service.log()


async def test_the_lock_is_held_until_the_last_piece_of_work_has_ended(tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        assert go_on.wait(5)

    class Following:
        async def run(self) -> None:
            await in_background(work)

    following = asyncio.create_task(follow_alone(tmp_path, {"only": cast(Follower, Following())}))
    await asyncio.to_thread(started.wait, 5)
    following.cancel()
    await asyncio.sleep(0.05)
    with (tmp_path / "background.lock").open("ab") as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        go_on.set()
        await asyncio.gather(following, return_exceptions=True)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

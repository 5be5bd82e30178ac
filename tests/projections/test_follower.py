"""A follower reaches the head, wakes for more, survives failures and ends when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from domain.errors import InvalidInput, UnknownEvent
from domain.ledger import Ledger
from projections import follower as follower_module
from projections.follower import Follower
from tests.ledgers import STREAM, opened, record_turn, until


class Seen:
    """A projection that keeps positions, one at a time; ``troubles`` are raised one by one before it goes on."""

    name = "seen"

    def __init__(self, ledger: Ledger, *troubles: Exception) -> None:
        self.positions: list[int] = []
        self.calls = 0
        self._ledger = ledger
        self._troubles = list(troubles)

    async def advance(self) -> bool:
        self.calls += 1
        if self._troubles:
            raise self._troubles.pop(0)
        checkpoint = self.positions[-1] if self.positions else 0
        events = await asyncio.to_thread(self._ledger.reader.stored_after, checkpoint, 1)
        self.positions += [event.position for event in events]
        return bool(events)


@asynccontextmanager
async def running(follower: Follower) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(follower.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower_module, "_RETRY_FIRST_S", 0.001)


async def test_it_reaches_the_head_and_wakes_for_what_this_process_commits(ledger: Ledger) -> None:
    for _ in range(5):
        record_turn(ledger, STREAM)
    seen = Seen(ledger)
    follower = Follower(ledger, seen, poll_s=3600)
    async with running(follower):
        await follower.caught_up()
        assert seen.positions == [1, 2, 3, 4, 5]
        await asyncio.to_thread(record_turn, ledger, STREAM)
        # Nothing but the ledger's call can end this: the next poll is an hour away.
        await until(lambda: len(seen.positions) == 6)


async def test_it_notices_what_others_commit(ledger: Ledger) -> None:
    seen = Seen(ledger)
    follower = Follower(ledger, seen, poll_s=0.005)
    async with running(follower):
        await follower.caught_up()
        with opened(ledger.path) as other:
            record_turn(other, STREAM)
        await until(lambda: seen.positions == [1])


async def test_a_head_that_stands_still_is_looked_at_without_advancing(ledger: Ledger) -> None:
    record_turn(ledger, STREAM)
    seen = Seen(ledger)
    follower = Follower(ledger, seen, poll_s=0.001)
    looks = 0
    real = ledger.reader.head_position

    def counted() -> int:
        nonlocal looks
        looks += 1
        return real()

    ledger.reader.head_position = counted  # type: ignore[method-assign]
    async with running(follower):
        await follower.caught_up()
        await until(lambda: looks >= 10)
    assert seen.calls <= 4  # the event, its end, and one round more for the first look


async def test_caught_up_covers_all_that_was_committed_before(ledger: Ledger) -> None:
    seen = Seen(ledger)
    follower = Follower(ledger, seen, poll_s=3600)
    async with running(follower):
        for _ in range(20):
            event = await asyncio.to_thread(record_turn, ledger, STREAM)
            await asyncio.gather(follower.caught_up(), follower.caught_up())
            assert event.position in seen.positions
    assert seen.positions == list(range(1, 21))


async def test_a_failure_is_counted_and_tried_again(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    record_turn(ledger, STREAM)
    troubles = (
        RuntimeError("the user wrote: my password is 1234"),
        InvalidInput("user", "my password is 1234", "send less"),
        UnknownEvent("event type 'X' is not in the catalogue"),
        PermissionError(13, "Permission denied", "/home/1234"),
    )
    seen = Seen(ledger, *troubles)
    follower = Follower(ledger, seen, poll_s=3600)
    with caplog.at_level(logging.WARNING):
        async with running(follower):
            await follower.caught_up()
            assert (follower.failures, follower.failing, seen.positions) == (4, False, [1])
    assert "1234" not in caplog.text
    assert "Traceback" not in caplog.text
    said = [record.getMessage() for record in caplog.records]
    assert ["RuntimeError at test_follower.py" in said[0], "InvalidInput" in said[1]] == [True, True]
    assert "UnknownEvent: event type 'X' is not in the catalogue" in said[2]
    assert "PermissionError: Permission denied" in said[3]


async def test_it_waits_longer_after_each_failure_up_to_a_bound(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "_RETRY_FIRST_S", 0.5)
    pauses: list[float] = []

    async def noted(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("projections.follower.asyncio.sleep", noted)
    follower = Follower(ledger, Seen(ledger, *[RuntimeError()] * 9), poll_s=3600)
    async with running(follower):
        await follower.caught_up()
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


async def test_failing_shows_while_it_lasts(ledger: Ledger) -> None:
    seen = Seen(ledger, *[RuntimeError()] * 1000)
    follower = Follower(ledger, seen)
    async with running(follower):
        await until(lambda: follower.failures > 0)
        assert follower.failing


async def test_cancelling_ends_it_its_subscription_and_those_who_wait(ledger: Ledger) -> None:
    follower = Follower(ledger, Seen(ledger, *[RuntimeError()] * 1000), poll_s=3600)
    async with running(follower) as task:
        waiting = asyncio.create_task(follower.caught_up())
        await until(lambda: follower.failures > 0)
        late = asyncio.create_task(follower.caught_up())
        await asyncio.sleep(0)
    assert task.cancelled()
    done, _ = await asyncio.wait([waiting, late])
    assert all(each.cancelled() for each in done)
    assert ledger._listeners == []


@pytest.mark.parametrize("steps", range(6))
async def test_a_cancellation_is_not_lost_to_a_commit_at_the_same_moment(ledger: Ledger, steps: int) -> None:
    follower = Follower(ledger, Seen(ledger), poll_s=3600)
    task = asyncio.create_task(follower.run())
    await follower.caught_up()
    await asyncio.sleep(0.1)  # until it waits for more
    follower._wake.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done


def test_a_commit_after_the_loop_has_gone_hurts_nobody(ledger: Ledger) -> None:
    follower = Follower(ledger, Seen(ledger), poll_s=3600)
    with closing(asyncio.new_event_loop()) as loop:
        task = loop.create_task(follower.run())
        loop.run_until_complete(follower.caught_up())
        listener = ledger._listeners[0]
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
    ledger.subscribe(listener)
    record_turn(ledger, STREAM)
    assert record_turn(ledger, STREAM).version == 2
    assert ledger.failures == 0


async def test_a_step_that_does_not_end_is_trouble(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    released = asyncio.Event()

    class Stuck(Seen):
        async def advance(self) -> bool:
            await released.wait()
            return False

    follower = Follower(ledger, Stuck(ledger))
    monkeypatch.setattr(follower_module, "_STEP_S_MAX", 0.05)
    async with running(follower):
        await until(lambda: follower.failing)
        assert "a step has been going on" in (follower.trouble or "")
        released.set()
        await follower.caught_up()
        assert (follower.failing, follower.trouble, follower.failures) == (False, None, 0)

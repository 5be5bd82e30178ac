"""One task per key, within bounds, failures counted, and nothing left behind when it is closed."""

from __future__ import annotations

import asyncio
import logging

import pytest

from domain.errors import UnknownEvent
from projections.background_tasks import BackgroundTasks


class Job:
    """Work that runs until it is let go."""

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0
        self.cancelled = 0
        self.let_go = asyncio.Event()

    async def __call__(self) -> None:
        self.started += 1
        try:
            await self.let_go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self.ended += 1


async def begin() -> None:
    """Let tasks begin."""
    await asyncio.sleep(0)


async def test_one_task_runs_under_a_key_and_the_next_may_start_when_it_has_ended() -> None:
    tasks, job = BackgroundTasks(), Job()
    assert tasks.start("ann", "a job", job)
    assert not tasks.start("ann", "a job", job)
    assert tasks.start("bob", "a job", job)
    await begin()
    assert (job.started, len(tasks), "ann" in tasks) == (2, 2, True)
    job.let_go.set()
    while len(tasks):
        await tasks.wait_for_one()
    assert "ann" not in tasks
    assert tasks.start("ann", "a job", job)
    await tasks.finish()
    assert job.ended == 3


async def test_a_failure_is_logged_counted_and_forgiven_by_the_next_success(caplog: pytest.LogCaptureFixture) -> None:
    tasks = BackgroundTasks()

    async def fails() -> None:
        raise UnknownEvent("event type 'X' is not in the catalogue")

    async def fails_aloud() -> None:
        raise RuntimeError("the user wrote: my password is 1234")

    async def succeeds() -> None:
        pass

    with caplog.at_level(logging.WARNING):
        for work in (fails, fails_aloud):
            tasks.start("ann", "a check", work)
            await tasks.wait_for_one()
    assert (tasks.failures, tasks.failing) == (2, True)
    assert "a check failed: UnknownEvent: event type 'X' is not in the catalogue" in caplog.text
    assert "password" not in caplog.text
    tasks.start("ann", "a check", succeeds)
    await tasks.wait_for_one()
    assert (tasks.failures, tasks.failing) == (2, False)


async def test_a_full_set_refuses_and_takes_more_when_one_has_ended() -> None:
    tasks, first, second = BackgroundTasks(tasks_max=2), Job(), Job()
    assert tasks.start(1, "a job", first)
    assert tasks.start(2, "a job", second)
    assert not tasks.start(3, "a job", second)
    await begin()
    first.let_go.set()
    await tasks.wait_for_one()
    assert 1 not in tasks
    assert tasks.start(3, "a job", second)
    await tasks.close()


async def test_only_so_many_run_at_once_and_the_others_wait() -> None:
    tasks, jobs = BackgroundTasks(concurrency=1), [Job(), Job()]
    for number, job in enumerate(jobs):
        assert tasks.start(number, "a job", job)
    await begin()
    assert [job.started for job in jobs] == [1, 0]
    jobs[0].let_go.set()
    await tasks.wait_for_one()
    await begin()
    assert [job.started for job in jobs] == [1, 1]
    await tasks.close()


async def test_closing_cancels_what_runs_waits_for_it_and_refuses_more() -> None:
    tasks, job = BackgroundTasks(), Job()
    tasks.start("ann", "a job", job)
    await begin()
    await tasks.close()
    assert (job.started, job.cancelled, len(tasks), tasks.failures) == (1, 1, 0, 0)
    assert not tasks.start("ann", "a job", job)


async def test_finishing_lets_what_runs_end() -> None:
    tasks, job = BackgroundTasks(), Job()
    tasks.start("ann", "a job", job)
    await begin()
    job.let_go.set()
    await tasks.finish()
    assert (job.ended, job.cancelled) == (1, 0)
    assert not tasks.start("ann", "a job", job)


async def test_waiting_for_one_of_none_returns() -> None:
    await asyncio.wait_for(BackgroundTasks().wait_for_one(), 1)

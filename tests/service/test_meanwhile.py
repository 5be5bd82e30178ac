"""Work beside a wait is done during it, never after it, and its troubles come second."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from functools import partial

import pytest

from service.meanwhile import begun, meanwhile


async def test_it_is_done_while_the_block_waits() -> None:
    done = asyncio.Event()
    async with meanwhile(done.set):
        assert not done.is_set(), "whoever asks an endpoint is not held up"
        await asyncio.wait_for(done.wait(), 5)


async def test_it_is_not_done_after_a_block_that_did_not_wait() -> None:
    done: list[int] = []
    async with meanwhile(partial(done.append, 1)):
        pass
    await asyncio.sleep(0.05)
    assert done == []


def stumble() -> None:
    raise ValueError("stumbled")


async def stumbling_beside(wait_s: float, error: BaseException | None) -> None:
    async with meanwhile(stumble):
        await asyncio.sleep(wait_s)
        if error is not None:
            raise error


async def test_its_error_is_the_blocks() -> None:
    with pytest.raises(ValueError, match="stumbled"):
        await stumbling_beside(0.05, None)


@pytest.mark.parametrize("error", [KeyError("lost"), asyncio.CancelledError("client_disconnected")])
@pytest.mark.parametrize("wait_s", [0, 0.05])
async def test_the_blocks_own_error_goes_first(
    error: BaseException, wait_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(type(error)) as raised:
        await stumbling_beside(wait_s, error)
    assert raised.value is error
    await asyncio.sleep(0.01)
    gc.collect()
    assert "stumbled" not in caplog.text, "asyncio logs an error that nobody looked at"


async def test_what_is_wanted_later_is_begun_at_once() -> None:
    started, go_on = threading.Event(), threading.Event()

    def read() -> str:
        started.set()
        assert go_on.wait(5)
        return "read"

    reading = begun(read)
    assert started.wait(5), "before anybody waits for it"
    go_on.set()
    assert await reading == "read"


async def test_what_nobody_wanted_may_fail(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        reading = begun(stumble)
        await asyncio.wait({reading})
        del reading
        await asyncio.sleep(0.01)
        gc.collect()
    assert "stumbled" not in caplog.text
    with pytest.raises(ValueError, match="stumbled"):
        await begun(stumble)

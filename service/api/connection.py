"""Notice at once that a client has hung up, even while there is nothing to send."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import anyio
from fastapi import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from projections.follower import safe_message
from service.turn_recorder import DISCONNECTED

log = logging.getLogger(__name__)

T = TypeVar("T")


class ClientGone(Exception):
    """The client hung up, so nobody is left to answer."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``; cancel it and raise :class:`ClientGone` when the client hangs up first."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        watching.cancel()
        if not working.done():
            working.cancel(DISCONNECTED if watching.done() else None)
            await asyncio.wait({working})
            if not working.cancelled() and isinstance(error := working.exception(), Exception):
                # Nobody is left to be told: without this line nobody would know that the turn was not recorded.
                log.warning("the end of an answer that nobody waits for: %s", safe_message(error))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


class EventStream(Response):
    """Server-sent events from a generator, which is closed as soon as the client hangs up.

    Each event is sent by itself: ``docs/decisions/0040-uvicorn-and-streams.md`` has the reason.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        async def write() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async for event in self._events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        writing = asyncio.ensure_future(write())
        watching = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({writing, watching}, return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                writing.result()
        finally:
            writing.cancel(DISCONNECTED if watching.done() else None)
            watching.cancel()
            with anyio.CancelScope(shield=True):
                with suppress(asyncio.CancelledError, OSError):
                    await writing
                await self._events.aclose()

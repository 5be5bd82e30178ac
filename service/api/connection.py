"""Notice at once that a client has hung up, and tell one that waits that somebody is at work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, TypeVar

import anyio
import msgspec
from fastapi import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from projections.follower import safe_message
from service.turn_recorder import DISCONNECTED

log = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_BYTES_S = 0.8
"""How long a client of a stream waits for its first bytes."""
SILENCE_S = 2.0
"""After so long without an event, and at most twice as long, a comment is sent."""
COMMENT = b": working\n\n"


CLIENT_CLOSED_REQUEST = 499
"""The status of an answer that nobody waits for."""
_LINE_ENDS = {char.encode(): f"\\u{ord(char):04x}".encode() for char in "\u0085\u2028\u2029"}


class ClientGone(Exception):
    """The client hung up, so nobody is left to answer."""


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of ``work``; cancel it and raise :class:`ClientGone` when the client hangs up first."""
    return (await begun_while_connected(request, work, patience_s=None)).result()


async def begun_while_connected(
    request: Request, work: Coroutine[Any, Any, T], *, patience_s: float | None
) -> asyncio.Task[T]:
    """Return ``work`` as a task that has ended, or still runs after ``patience_s``; else as :func:`while_connected`."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(request.receive))
    kept = False
    try:
        await asyncio.wait({working, watching}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        if watching.done() and not working.done():
            raise ClientGone
        kept = True
        return working
    finally:
        watching.cancel()
        if not kept:
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

    Each event is sent by itself: ``docs/decisions/0040-uvicorn-and-streams.md`` has the reason. Where the generator is
    silent for a while, a comment goes out, which clients ignore: proxies, and people, give up on a silent connection.
    A service that stops cancels the request; then ``cut_off`` returns the last event, or clients would take what they
    have for the whole.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        *,
        cut_off: Callable[[], bytes],
        silent_at_first: bool = False,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """``silent_at_first`` sends a comment at once, for a client that has waited already."""
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no", **headers})
        del self.headers["content-length"]
        self._events = events
        self._cut_off = cut_off
        self._silent_at_first = silent_at_first
        self._begun = False
        self._sending = False
        self._sent = False

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.ensure_future(self._write(send))
        watching = asyncio.ensure_future(_gone(receive))
        try:
            ended: set[asyncio.Future[None]] = set()
            while not ended:
                ended, _ = await asyncio.wait(
                    {writing, watching}, timeout=SILENCE_S, return_when=asyncio.FIRST_COMPLETED
                )
                # The writer looks at no clock, and no task is made for an event: this is all that a fast answer costs.
                if not ended and not self._sent and not self._sending:
                    await send(_body(COMMENT))
                self._sent = False
            if writing.done():
                writing.result()
        except asyncio.CancelledError:
            await self._close(writing, watching)
            if not self._begun:
                raise
            await send(_body(self._cut_off(), more=False))
        finally:
            await self._close(writing, watching)

    async def _close(self, writing: asyncio.Future[None], watching: asyncio.Future[None]) -> None:
        writing.cancel(DISCONNECTED if watching.done() else None)
        watching.cancel()
        with anyio.CancelScope(shield=True):
            with suppress(asyncio.CancelledError, OSError):
                await writing
            await self._events.aclose()

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._begun = True
        if self._silent_at_first:
            await send(_body(COMMENT))
        async for event in self._events:
            self._sending = True
            await send(_body(event))
            self._sending, self._sent = False, True
        self._sending = True
        await send(_body(b"", more=False))


def as_event(value: object) -> bytes:
    """Return a value as an event of a stream."""
    return event_of(msgspec.json.encode(value))


def event_of(data: bytes) -> bytes:
    """Return the event of a stream that holds ``data``, a text in UTF-8."""
    # Many clients split a stream with `str.splitlines`, which also ends a line at these three.
    for char, escaped in _LINE_ENDS.items():
        data = data.replace(char, escaped)
    return b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n"


def _body(data: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}

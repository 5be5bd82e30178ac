"""Clients that take their time over a request: bounds on how long, and on how many of them there may be.

A request that never ends costs its sender nothing and this process a connection, of which the system gives it only so
many. So headers and body have a time limit each, and where too many connections are open, the one that has waited
longest for its client goes, not the one that has just come.

The body's limit is a middleware, for any server. Headers and connections are the server's business:
:class:`BoundedHttp` is uvicorn's own protocol with these bounds, and what ``python -m service`` and ``make run`` use.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.errors import error_body

log = logging.getLogger(__name__)

FILES_WANTED = 8192
"""Open files and connections that this process asks the system for; some systems begin with 256."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How long a client may take over the headers of a request and again over its body, and how many may be connected.

    An application hands them to :class:`BoundedHttp` in its lifespan state, under ``LIMITS``.
    """

    seconds: float
    connections: int


LIMITS = "request_limits"


def allowed_connections(wanted: int) -> int:
    """Return how many connections there may be: half of the files that the system allows are for other things."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        soft = possible
    allowed = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft // 2)
    if allowed < wanted:
        log.warning("CONNECTIONS_MAX = %d: only %d, since the system allows %d open files", wanted, allowed, soft)
    return allowed


class BodyDeadline:
    """Middleware: end a request whose body is not there in time with 408."""

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = asyncio.get_running_loop().time() + self._seconds
        whole = False

        async def in_time() -> Message:
            nonlocal whole
            if whole:  # what is waited for now is that the client hangs up
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                # FastAPI hides every error but an HTTPException while it reads a body.
                raise HTTPException(408, _too_slow("body", self._seconds), {"connection": "close"}) from None
            whole = not message.get("more_body", False)
            return message

        await self._app(scope, in_time, send)


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol for an application that tells its limits."""

    _deadline: asyncio.TimerHandle | None = None
    _waits_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        limits: RequestLimits = self.app_state[LIMITS]
        self._seconds = limits.seconds
        if len(self.connections) >= limits.connections and not _make_room(self.connections):
            self.app = _overloaded
        super().connection_made(transport)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_are_here()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and self._is_between_requests():
            self._await_headers()
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._headers_are_here()
        super().on_headers_complete()

    def waits_for_client(self) -> bool:
        """Tell whether the next thing to happen here is up to the client: a request is not begun, or not finished."""
        return self._is_between_requests() or self.cycle.more_body

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _await_headers(self) -> None:
        self._waits_since = self.loop.time()
        self._deadline = self.loop.call_later(self._seconds, self._give_up)

    def _headers_are_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self.transport.is_closing():
            return
        # The rest of a body that nobody read may still be coming: that request has had its answer.
        if self.cycle is None or not self.cycle.more_body:
            self.transport.write(_answer(408, _too_slow("headers", self._seconds)))
        self.transport.close()


def _make_room(connections: set[Any]) -> bool:
    """Close the connection that has waited longest for its client; False where every client is being answered."""
    waiting = [each for each in connections if isinstance(each, BoundedHttp) and each.waits_for_client()]
    if waiting:
        oldest = min(waiting, key=lambda each: each._waits_since)
        connections.discard(oldest)
        oldest.transport.close()
    return bool(waiting)


async def _overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    message = "every connection is in use: try again in a moment"
    error = error_body(message, kind="server_error", code="overloaded")
    await JSONResponse(error, 503, {"connection": "close", "retry-after": "1"})(scope, receive, send)


def _too_slow(what: str, seconds: float) -> str:
    return f"the {what} of the request did not come within {seconds:g} s"


def _answer(status: int, message: str) -> bytes:
    """Return an answer to a request that there is none of yet, in OpenAI's shape."""
    body = msgspec.json.encode(error_body(message, kind="invalid_request_error", code=f"http_{status}"))
    headers = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return STATUS_LINE[status] + headers.encode() + body

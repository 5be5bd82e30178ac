"""A small HTTP/1.1 server on asyncio, for the scripted upstream alone.

A framework hides what the tests need to see and to break: the moment a client hangs up, a body that ends too early, a
connection that closes without an answer. It is also too slow for benchmarks. So this implements the protocol by hand,
for well-behaved clients on loopback: requests with a `Content-Length` over kept connections, chunked answers.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}
REQUEST_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class HttpRequest:
    """One request; header names are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class ClientGoneError(ConnectionError):
    """The client closed the connection before the answer was complete."""


Handler = Callable[[HttpRequest, "Connection"], Awaitable[None]]


class Connection(asyncio.Protocol):
    """One client connection; answers its requests one by one and cancels the answer of a client that left."""

    def __init__(self, handler: Handler, open_connections: set["Connection"], errors: list[BaseException]) -> None:
        """What the handler raises is added to `errors`, and the connection closed."""
        self._handler = handler
        self._errors = errors
        self._open = open_connections
        self._received = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self.client_gone = False
        self._closed_here = False

    def send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Sends a whole answer. `body` is JSON unless `headers` say otherwise."""
        self._write(_head(status, {"content-length": str(len(body)), **(headers or {})}) + body)

    def send_cut(self, body: bytes) -> None:
        """Promises twice the body, sends it once, and closes the connection."""
        self._write(_head(200, {"content-length": str(2 * len(body) + 2)}) + body)
        self.close()

    def send_raw(self, status: int, body: bytes, content_type: str, *, ends: bool) -> None:
        """Sends these bytes in chunks of a few, as a network may; without `ends` the last chunk never comes."""
        self._write(_head(status, {"transfer-encoding": "chunked", "content-type": content_type}))
        for at in range(0, len(body), 7):
            self.chunk(body[at : at + 7])
        if ends:
            self.end_stream()
        else:
            self.close()

    def start_stream(self) -> None:
        self._write(_head(200, {"transfer-encoding": "chunked", "content-type": "text/event-stream; charset=utf-8"}))

    def chunk(self, data: bytes) -> None:
        """Sends one chunk. Raises `ClientGoneError` when nobody reads any more."""
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self._write(b"0\r\n\r\n")

    def close(self) -> None:
        """Closes after what was written has been sent; a chunked answer stays visibly incomplete."""
        self._closed_here = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Closes at once and cancels a running answer."""
        self._closed_here = True
        if self._transport is not None:
            self._transport.abort()
        if self._task is not None:
            self._task.cancel()

    def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            self.client_gone = not self._closed_here
            raise ClientGoneError("the client closed the connection before the answer was complete")
        self._transport.write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > REQUEST_BYTES_MAX:
            self.abort()
            return
        self._next_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        if not self._closed_here:
            self.client_gone = True
            if self._task is not None:
                self._task.cancel()

    def _next_request(self) -> None:
        if self._task is not None:
            return
        request = self._take_request()
        if request is not None:
            self._task = asyncio.get_running_loop().create_task(self._answer(request))
            self._task.add_done_callback(self._answered)

    async def _answer(self, request: HttpRequest) -> None:
        with suppress(ClientGoneError):
            await self._handler(request, self)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._errors.append(error)
            self.abort()
        elif not (self._closed_here or self.client_gone):
            self._next_request()

    def _take_request(self) -> HttpRequest | None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        whole = end + 4 + int(headers.get("content-length", "0"))
        if len(self._received) < whole:
            return None
        body = bytes(self._received[end + 4 : whole])
        del self._received[:whole]
        method, target, _ = first.split(" ", 2)
        return HttpRequest(method, target.partition("?")[0], headers, body)


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    fields = {"content-type": "application/json", **headers}
    lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{k}: {v}" for k, v in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

"""The upstream's script (which calls fail, and how) and its log (the calls that came).

The test's thread and the server's share both, so one condition guards them; waiting for a call waits on it. A call is
logged when it arrives, so that a test can wait for one that hangs, and replaced when it ends.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from tests.upstream.http import Connection, HttpRequest

Kind = Literal["embed", "gate", "rerank", "summary", "answer", "tokenize", "models", "scores", "completion"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNTIL_RELEASED = math.inf
_LOGGED_HEADERS = (
    "authorization",
    "user-agent",
    "idempotency-key",
    "x-stainless-retry-count",
    "x-request-id",
)


@dataclass(frozen=True)
class Fault:
    """One way to fail; fields combine.

    `after_chunks` moves `hang_s`, `close` and `error` behind that many text chunks of a streamed answer; an
    answer with fewer chunks is an error of the test. On an answer that is not streamed it means nothing.
    """

    status: int | None = None
    """Answer with this HTTP status and an OpenAI-shaped error."""
    message: str = "scripted failure"
    """What that error says."""
    retry_after: str | None = None
    """The `Retry-After` header of that error."""
    hang_s: float = 0.0
    """Wait this long, then go on; `UNTIL_RELEASED` waits for `release()`, which ends every wait."""
    close: bool = False
    """Close the connection without an answer."""
    error: bool = False
    """Send a `data: {"error": ...}` line after `after_chunks`, then end the stream."""
    after_chunks: int | None = None
    malformed: bool = False
    """Status 200 and JSON that ends too early (the whole body, or every event of a stream)."""
    garbage: bool = False
    """Status 200 and bytes that are neither JSON nor UTF-8."""
    cut: bool = False
    """The body ends before its `Content-Length`."""
    empty_choices: bool = False
    """No choices (chat) or no data (embeddings)."""
    finish_reason: Any = None
    """Such as `length` or `content_filter`; any JSON value is sent as it is."""
    reasoning: str | None = None
    reasoning_field: str = "reasoning_content"
    think: str | None = None
    """Put before the text as `<think>...</think>`."""
    content: str | None = None
    """Say this instead of the responder's text, or as the whole body of a rerank endpoint's answer."""
    raw: bytes | None = None
    """The whole body as it goes over the wire, streamed or not, with `status` (200 unless given) and `raw_type`."""
    raw_type: str = "application/json"
    raw_ends: bool = True
    """Without it the connection closes before the raw body's end was told."""
    chunk_delay_s: float = 0.0
    vector_length: int | None = None
    nan: bool = False
    null_vectors: bool = False
    """`"embedding": null` where a vector should be."""


@dataclass(frozen=True)
class Call:
    """One call; times are `time.monotonic()` seconds, `ended` and `status` are None while it runs."""

    kind: Kind
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    started: float
    ended: float | None = None
    status: int | None = None
    cancelled: bool = False
    """The client hung up before the answer was complete."""

    @property
    def authorized(self) -> bool:
        return "authorization" in self.headers


@dataclass
class OpenCall:
    """A call that runs, with its fault; `status` is set as soon as it is known."""

    call: Call
    fault: Fault
    status: int | None = None


class Script:
    """Faults to come and calls that came; safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._calls: list[Call] = []
        self._in_flight: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._in_flight_max: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self._queued: dict[Kind, deque[Fault]] = {kind: deque() for kind in KINDS}
        self._standing: dict[Kind, Fault] = {}

    def fail(self, kind: Kind, *faults: Fault) -> None:
        """Queues faults for the next calls of a kind, one each, before the standing one."""
        with self._changed:
            self._queued[kind].extend(faults)

    def fail_always(self, kind: Kind, fault: Fault) -> None:
        with self._changed:
            self._standing[kind] = fault

    def heal(self, *kinds: Kind) -> None:
        """Forgets the faults of these kinds, or of all; calls that hang go on hanging until `release()`."""
        with self._changed:
            for kind in kinds or KINDS:
                self._queued[kind].clear()
                self._standing.pop(kind, None)

    @property
    def calls(self) -> tuple[Call, ...]:
        with self._changed:
            return tuple(self._calls)

    def calls_of(self, *kinds: Kind) -> list[Call]:
        return [call for call in self.calls if call.kind in kinds]

    def forget_calls(self) -> None:
        """Empties the log of ended calls and the in-flight maxima."""
        with self._changed:
            self._calls = [call for call in self._calls if call.ended is None]
            self._in_flight_max = dict(self._in_flight)

    def in_flight(self, kind: Kind) -> int:
        with self._changed:
            return self._in_flight[kind]

    def in_flight_max(self, kind: Kind) -> int:
        with self._changed:
            return self._in_flight_max[kind]

    def wait_for(self, kind: Kind, n: int = 1, timeout: float = 10.0, *, ended: bool = False) -> list[Call]:
        """Waits until `n` calls of a kind have arrived (or ended) and returns them. Raises `TimeoutError`."""
        found: list[Call] = []

        def enough() -> bool:
            found[:] = [c for c in self._calls if c.kind == kind and (c.ended is not None or not ended)]
            return len(found) >= n

        with self._changed:
            if not self._changed.wait_for(enough, timeout):
                raise TimeoutError(f"{len(found)} of {n} calls of kind {kind!r} came within {timeout} s")
        return found

    async def await_for(self, kind: Kind, n: int = 1, *, ended: bool = False) -> list[Call]:
        """`wait_for` that leaves the caller's event loop free."""
        return await asyncio.to_thread(self.wait_for, kind, n, ended=ended)

    @contextmanager
    def logged(
        self, kind: Kind, body: Mapping[str, Any], http: HttpRequest, connection: Connection
    ) -> Iterator[OpenCall]:
        """Logs a call while it runs; yields it with its fault."""
        headers = {name: http.headers[name] for name in _LOGGED_HEADERS if name in http.headers}
        call = Call(kind, body, headers, time.monotonic())
        with self._changed:
            self._calls.append(call)
            self._in_flight[kind] += 1
            self._in_flight_max[kind] = max(self._in_flight_max[kind], self._in_flight[kind])
            fault = self._queued[kind].popleft() if self._queued[kind] else self._standing.get(kind, Fault())
            self._changed.notify_all()
        opened = OpenCall(call, fault)
        try:
            yield opened
        finally:
            gone = connection.client_gone
            done = replace(call, ended=time.monotonic(), status=opened.status, cancelled=gone)
            with self._changed:
                self._in_flight[kind] -= 1
                index = next(i for i in reversed(range(len(self._calls))) if self._calls[i] is call)
                self._calls[index] = done
                self._changed.notify_all()

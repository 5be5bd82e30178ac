"""An application with a meter of its event loop: ``uvicorn benchmarks.lag:app`` runs the one named in MEASURED_APP.

``GET /_lag`` returns by how many milliseconds a task that sleeps 5 ms woke late, each time since it was last asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.importer import import_from_string

PATH = "/_lag"
_EVERY_S = 0.005
_SAMPLES_MAX = 100_000


class LagMeter:
    """The ASGI application in front of the measured one; its meter runs from start to stop."""

    def __init__(self, measured: ASGIApp) -> None:
        self._measured = measured
        self._late_ms: deque[float] = deque(maxlen=_SAMPLES_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            meter = asyncio.create_task(self._sample())
            try:
                await self._measured(scope, receive, send)
            finally:
                meter.cancel()
        elif scope["path"] == PATH:
            await self._report(send)
        else:
            await self._measured(scope, receive, send)

    async def _sample(self) -> None:
        while True:
            due = time.perf_counter() + _EVERY_S
            await asyncio.sleep(_EVERY_S)
            self._late_ms.append((time.perf_counter() - due) * 1000)

    async def _report(self, send: Send) -> None:
        body = json.dumps([round(late, 2) for late in self._late_ms]).encode()
        self._late_ms.clear()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def __getattr__(name: str) -> LagMeter:
    # Importing this module opens nothing; `benchmarks.lag:app` does.
    if name == "app":
        return LagMeter(import_from_string(os.environ["MEASURED_APP"]))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The service for ``uvicorn --workers``: each response and each log line names the process it comes from."""

from __future__ import annotations

import logging
import os

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from service.app import app as service

WORKER_HEADER = "x-worker"

logging.basicConfig(level=logging.INFO, format="%(process)d %(levelname)s %(name)s: %(message)s", force=True)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    async def send_named(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)[WORKER_HEADER] = str(os.getpid())
        await send(message)

    await service(scope, receive, send_named)

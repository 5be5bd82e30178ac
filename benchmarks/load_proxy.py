"""The least that could stand where the service does: FastAPI, and the upstream calls of one turn.

For each request it asks for an embedding and two decisions, passes a streamed answer through, and then, in the
background, asks for a summary and two embeddings. The bodies are those that the service sent, in PROXY_CALLS: a JSON
file of lists of seven, by the name that a request gives in ``metadata.calls``. PROXY_CLIENT says through what they are
sent: ``openai``, the package, ``httpx``, what that package is built on, or ``plain``, aiohttp.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import httpx2
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletion, ChatCompletionChunk

Body = dict[str, Any]
TIMEOUT_S = 120.0


class Client(Protocol):
    """How an upstream call is made."""

    async def embed(self, body: Body) -> object: ...
    async def complete(self, body: Body) -> object: ...
    def stream(self, body: Body) -> AsyncIterator[bytes]: ...
    async def close(self) -> None: ...


class OpenAIClient:
    """Through the ``openai`` package: every answer and every piece of one becomes an object."""

    def __init__(self, base_url: str) -> None:
        self._client = AsyncOpenAI(base_url=base_url, api_key="not-needed", max_retries=0, timeout=TIMEOUT_S)

    async def embed(self, body: Body) -> object:
        return await self._client.embeddings.create(model=body["model"], input=body["input"])

    async def complete(self, body: Body) -> object:
        return await self._client.post("/chat/completions", cast_to=ChatCompletion, body=body)

    async def stream(self, body: Body) -> AsyncIterator[bytes]:
        stream = await self._client.post(
            "/chat/completions",
            cast_to=ChatCompletionChunk,
            body=body,
            stream=True,
            stream_cls=AsyncStream[ChatCompletionChunk],
        )
        async with stream:
            async for chunk in stream:
                yield b"data: %b\n\n" % chunk.model_dump_json().encode()
        yield b"data: [DONE]\n\n"

    async def close(self) -> None:
        await self._client.close()


class HttpxClient:
    """Through httpx2: JSON is read, and a stream is passed on as it comes."""

    def __init__(self, base_url: str) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx2.AsyncClient(base_url=base_url, timeout=TIMEOUT_S, limits=limits)

    async def embed(self, body: Body) -> object:
        return await self._post("/embeddings", body)

    async def complete(self, body: Body) -> object:
        return await self._post("/chat/completions", body)

    async def _post(self, path: str, body: Body) -> object:
        answer = await self._client.post(path, json=body)
        return answer.raise_for_status().json()

    async def stream(self, body: Body) -> AsyncIterator[bytes]:
        async with self._client.stream("POST", "/chat/completions", json=body) as answer:
            async for data in answer.raise_for_status().aiter_bytes():
                yield data

    async def close(self) -> None:
        await self._client.aclose()


class PlainClient:
    """Through aiohttp: JSON is read, and a stream is passed on as it comes."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
        )

    async def embed(self, body: Body) -> object:
        return await self._post("/embeddings", body)

    async def complete(self, body: Body) -> object:
        return await self._post("/chat/completions", body)

    async def _post(self, path: str, body: Body) -> object:
        async with self._session.post(self._base_url + path, json=body, raise_for_status=True) as answer:
            return await answer.json()

    async def stream(self, body: Body) -> AsyncIterator[bytes]:
        async with self._session.post(self._base_url + "/chat/completions", json=body, raise_for_status=True) as answer:
            async for data in answer.content.iter_any():
                yield data

    async def close(self) -> None:
        await self._session.close()


CLIENTS: dict[str, Callable[[str], Client]] = {"openai": OpenAIClient, "httpx": HttpxClient, "plain": PlainClient}


def create_app(client_name: str, base_url: str, calls: dict[str, list[Body]]) -> FastAPI:
    """Return the proxy. ``calls`` has seven bodies by name, in the order in which they are sent."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.client = CLIENTS[client_name](base_url)
        yield
        await app.state.client.close()

    app = FastAPI(lifespan=lifespan)
    background: set[asyncio.Task[None]] = set()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> StreamingResponse:
        asked = await request.json()
        client: Client = app.state.client
        embed, gate, rerank, answer, *after = calls[asked["metadata"]["calls"]]
        await client.embed(embed)
        await client.complete(gate)
        await client.complete(rerank)

        async def body() -> AsyncIterator[bytes]:
            async for data in client.stream(answer):
                yield data
            task = asyncio.create_task(_afterwards(client, after))
            background.add(task)
            task.add_done_callback(background.discard)

        return StreamingResponse(body(), media_type="text/event-stream")

    return app


async def _afterwards(client: Client, bodies: list[Body]) -> None:
    summary, exchange, summarised = bodies
    await client.complete(summary)
    await client.embed(exchange)
    await client.embed(summarised)


def __getattr__(name: str) -> FastAPI:
    # Importing this module reads no environment; `benchmarks.load_proxy:app` does.
    if name == "app":
        calls = json.loads(Path(os.environ["PROXY_CALLS"]).read_text())
        return create_app(os.environ["PROXY_CLIENT"], os.environ["PROXY_UPSTREAM"], calls)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

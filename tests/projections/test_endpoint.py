"""A call gives the JSON that came back, whole or as a stream, or says in which way there was none."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from projections.endpoint import BrokeOff, CallFailed, CallTimedOut, Endpoint, ErrorInStream, Refused, Unreadable

OK = "HTTP/1.1 200 OK"


@asynccontextmanager
async def serving(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[Endpoint]:
    """Open a server whose every connection is answered by ``answer``, once what was asked has been read."""
    done: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            asked = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int((re.findall(r"content-length: (\d+)", asked) or ["0"])[0]))
            await answer(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done.append(asyncio.get_running_loop().create_task(serve(reader, writer)))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    endpoint = Endpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", "sk-secret")
    try:
        yield endpoint
    finally:
        await endpoint.close()
        server.close()
        await asyncio.gather(*done)


@asynccontextmanager
async def answering(parts: Sequence[bytes], status: str = OK, *, whole: bool = True) -> AsyncIterator[Endpoint]:
    """Serve ``parts``, each in a packet of its own, as the body of every answer; not ``whole``: and then hang up."""
    length = sum(map(len, parts)) + (0 if whole else 1)

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{status}\r\nContent-Length: {length}\r\nRetry-After: 7\r\n\r\n".encode())
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    async with serving(answer) as endpoint:
        yield endpoint


async def read_stream(endpoint: Endpoint, values: list[Any]) -> None:
    async with endpoint.stream("/chat/completions", {}) as coming:
        async for value in coming:
            values.append(value)  # noqa: PERF401 - what came before a failure is to be seen


async def streamed(body: bytes, size: int) -> list[Any]:
    values: list[Any] = []
    async with answering([body[at : at + size] for at in range(0, len(body), size)]) as endpoint:
        await read_stream(endpoint, values)
    return values


@pytest.mark.parametrize("size", [1, 2, 3, 7, 10_000], ids=lambda size: f"{size} bytes at a time")
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["lf", "crlf"])
async def test_a_stream_is_read_wherever_its_packets_are_cut(size: int, line_end: bytes) -> None:
    lines = [
        b": a comment",
        b"",
        'data: {"said": "Grüße, 用户"}'.encode(),
        b"",
        b"event: message",
        b"id: 7",
        b"data:[1,",  # no blank after the colon, and one value over two lines
        b"data: 2]",
        b"",
        b"data: [DONE]",
        b"",
        b"data: after the end",
        b"",
    ]
    assert await streamed(line_end.join(lines), size) == [{"said": "Grüße, 用户"}, [1, 2]]


@pytest.mark.parametrize(
    ("body", "whole", "error"),
    [
        (b'data: {"error": {"message": "my diary"}}\n\n', True, ErrorInStream),
        (b'data: {"said": \n\n', True, Unreadable),
        (b"data: \xff\xfe\n\n", True, Unreadable),
        (b"data: 2\n", False, BrokeOff),
    ],
    ids=["error", "half", "bytes", "hangs up"],
)
async def test_a_stream_that_fails_has_given_what_came_before(
    body: bytes, whole: bool, error: type[CallFailed]
) -> None:
    values: list[Any] = []
    async with answering([b"data: 1\n\n", body], whole=whole) as endpoint:
        with pytest.raises(CallFailed) as raised:
            await read_stream(endpoint, values)
    assert values == [1]
    assert type(raised.value) is error
    assert "diary" not in str(raised.value)


async def test_a_stream_may_end_without_a_word() -> None:
    assert await streamed(b"data: 1\n\ndata: 2\n\n", 5) == [1, 2]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "too long"),
        (b'{"object": "error", "message": "too long"}', "too long"),
        (b'{"detail": "Not Found"}', None),
        (b'{"error": "too long"}', None),
        (b"[1]", None),
        (b"<html>", None),
    ],
    ids=["openai", "old vllm", "fastapi", "text", "list", "page"],
)
async def test_a_refusal_tells_its_status_and_reason(body: bytes, reason: str | None) -> None:
    async with answering([body], "HTTP/1.1 418 Teapot") as endpoint:
        with pytest.raises(Refused) as raised:
            await endpoint.post("/embeddings", {}, timeout_s=10)
    assert (raised.value.status, raised.value.reason, raised.value.retry_after) == (418, reason, "7")
    assert "too long" not in str(raised.value)


async def test_what_json_cannot_say_is_not_sent() -> None:
    async with answering([b"{}"]) as endpoint:
        for body in ({"temperature": float("nan")}, {"input": "\ud800"}):
            with pytest.raises(Unreadable):
                await endpoint.post("/embeddings", body, timeout_s=10)
        assert await endpoint.post("/embeddings", {"input": "用户"}, timeout_s=10) == {}


async def test_an_answer_has_to_be_whole_in_time() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hung_up = asyncio.ensure_future(reader.read())
        writer.write(f"{OK}\r\nContent-Length: 1000000\r\n\r\n".encode())
        while not hung_up.done():
            writer.write(b" ")
            await asyncio.sleep(0.01)
        await hung_up

    async with serving(drip) as endpoint:
        with pytest.raises(CallTimedOut):
            await endpoint.get("/models", timeout_s=0.2)
        await endpoint.close()


async def test_a_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with answering([b'"from the proxy"']) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url)
        monkeypatch.setenv("no_proxy", "")
        endpoint = Endpoint("http://models.invalid/v1", "sk-secret")
        assert await endpoint.get("/models", timeout_s=10) == "from the proxy"
        await endpoint.close()
        monkeypatch.setenv("no_proxy", "models.invalid")
        endpoint = Endpoint("http://models.invalid/v1", "sk-secret")
        with pytest.raises(CallFailed):
            await endpoint.get("/models", timeout_s=10)
        await endpoint.close()

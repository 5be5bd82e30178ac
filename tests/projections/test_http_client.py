"""What arrives over HTTP is read the same, however the network cuts it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.http_client import HttpClient, Refused, Unreachable, Unreadable, events

STREAM = (
    b": a comment\r\nretry: 100\nid: 7\nevent: ping\ndata:\n\n"
    b'data: {"n": 1}\r\n\r\ndata:two\ndata: lines\n\ndata: \xc3\xa9\n\n\ndata: [DONE]'
)
EVENTS = [b'{"n": 1}', b"two\nlines", "\u00e9".encode(), b"[DONE]"]


async def events_of(pieces: Sequence[bytes]) -> list[bytes]:
    async def sent() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [event async for together in events(sent()) for event in together]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_are_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(ends)]
    assert asyncio.run(events_of(pieces)) == EVENTS


async def test_what_is_no_text_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        await events_of([b"\xff\xfe not an event\n\n"])


async def test_the_reason_of_a_refusal_may_come_in_parts() -> None:
    ended = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 14\r\n\r\n")
        for part in (b"too lon", b"g a tex"):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = HttpClient(f"http://127.0.0.1:{port}/v1", "key", connect_timeout_s=5)
        try:
            with pytest.raises(Refused) as refused:
                await client.get("/models", timeout_s=5)
        finally:
            await client.close()
            await asyncio.wait_for(ended.wait(), 5)
    assert refused.value.body == b"too long a tex"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_this_machine_is_called_directly_by_either_kind_of_address(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    if host == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, host, 0) as server:
        port = server.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        client = HttpClient(f"http://{shown}:{port}/v1", "key", connect_timeout_s=5)
        try:
            assert await client.get("/models", timeout_s=5) == b"{}"
        finally:
            await client.close()


async def test_a_connection_that_takes_too_long_is_no_silence() -> None:
    with socket.socket() as full:
        # Nobody accepts, and the queue is full: a further connection waits.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            client = HttpClient(f"http://127.0.0.1:{full.getsockname()[1]}/v1", "key", connect_timeout_s=0.3)
            with pytest.raises(Unreachable, match=r"no connection within 0\.3 s"):
                await client.get("/models", timeout_s=5)
            await client.close()
        finally:
            for one in waiting:
                one.close()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        ("Fri, 27 Nov 2026 12:00:00 GMT", None),
        ("1e9", None),
        ("-1", None),
        ("1.5", None),
        ("9" * 400, None),
        ("\u0661", None),
        ("7, evil: 1", None),
        ("", None),
    ],
)
def test_how_long_to_wait_is_taken_as_seconds_only(header: str, seconds: float | None) -> None:
    assert Refused(429, b"", header).retry_after_s == seconds


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed_with_a_prompt(status: int) -> None:
    asked: list[bytes] = []

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        asked.append(head.split()[1])
        _, told, length = head.partition(b"content-length: ")
        await reader.readexactly(int(length.split()[0]) if told else 0)
        port = writer.get_extra_info("sockname")[1]
        writer.write(
            b"HTTP/1.1 %d Elsewhere\r\nlocation: http://localhost:%d/elsewhere\r\nconnection: close\r\n\r\n"
            % (status, port)
        )
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key", connect_timeout_s=5)
        try:
            for call in (client.post("/chat", {"text": "Bruno"}, timeout_s=5), client.get("/models", timeout_s=5)):
                with pytest.raises(Refused) as refused:
                    await call
                assert refused.value.status == status
            with pytest.raises(Refused):
                async with client.stream("/stream", {"text": "Bruno"}, silence_s=5):
                    pass
        finally:
            await client.close()
    assert asked == [b"/chat", b"/models", b"/stream"]

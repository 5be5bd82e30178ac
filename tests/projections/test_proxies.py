"""A proxy of the environment is used where a person expects it, and said where it cannot be."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections import proxies
from projections.http_client import HttpClient, Unreachable
from projections.proxies import bypassed, is_this_machine, proxy_for

PROXY = "http://proxy.example:3128"
NAMES = ["http_proxy", "https_proxy", "all_proxy", "no_proxy"]


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*NAMES, *map(str.upper, NAMES), "REQUEST_METHOD"]:
        monkeypatch.delenv(name, raising=False)
    proxies._say.cache_clear()


@pytest.mark.parametrize(
    ("environment", "url", "used"),
    [
        ({"HTTP_PROXY": PROXY}, "http://models.example/v1", PROXY),
        ({"http_proxy": PROXY}, "http://models.example/v1", PROXY),
        ({"HTTP_PROXY": "proxy.example:3128"}, "http://models.example/v1", PROXY),
        ({"HTTP_PROXY": PROXY}, "https://models.example/v1", None),
        ({"HTTPS_PROXY": PROXY}, "https://models.example/v1", PROXY),
        ({"ALL_PROXY": PROXY}, "https://models.example/v1", PROXY),
        ({"ALL_PROXY": PROXY}, "http://models.example/v1", PROXY),
        ({"ALL_PROXY": "socks5://127.0.0.1:1080", "HTTPS_PROXY": PROXY}, "https://models.example/v1", PROXY),
        ({"HTTPS_PROXY": "socks://127.0.0.1:1080", "ALL_PROXY": PROXY}, "https://models.example/v1", PROXY),
        ({"ALL_PROXY": "socks5h://127.0.0.1:1080"}, "https://models.example/v1", None),
        ({"HTTPS_PROXY": "https://proxy.example"}, "https://models.example/v1", None),
        ({"HTTPS_PROXY": "http://"}, "https://models.example/v1", None),
        ({"HTTPS_PROXY": "http://proxy:port"}, "https://models.example/v1", None),
        ({"ALL_PROXY": PROXY, "NO_PROXY": "models.example"}, "https://models.example/v1", None),
        ({"ALL_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, "http://10.1.2.3:8000/v1", None),
        ({"ALL_PROXY": PROXY}, "http://127.0.0.1:8000/v1", None),
        ({"ALL_PROXY": PROXY}, "http://127.8.8.8:8000/v1", None),
        ({"ALL_PROXY": PROXY}, "http://localhost:8000/v1", None),
        ({"ALL_PROXY": PROXY}, "http://[::1]:8000/v1", None),
        ({"ALL_PROXY": PROXY}, "http://0.0.0.0:8000/v1", None),
        ({}, "https://models.example/v1", None),
    ],
)
def test_the_environment_says_how_an_endpoint_is_reached(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, used: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = proxy_for(url)
    assert (found.url if found is not None else None) == used


@pytest.mark.parametrize(
    ("variable", "value", "kind"),
    [
        ("ALL_PROXY", "socks5://user:canary@127.0.0.1:1080", "a socks5:// proxy"),
        ("all_proxy", "socks://127.0.0.1:1080", "a socks:// proxy"),
        ("HTTPS_PROXY", "https://user:canary@proxy.example", "a https:// proxy"),
        ("HTTPS_PROXY", "http://user:canary@proxy:port", "a malformed address"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_said_once_without_its_password(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str, kind: str
) -> None:
    monkeypatch.setenv(variable, value)
    for path in ("a", "b"):
        assert proxy_for(f"https://models.example/{path}") is None
    assert proxy_for("http://localhost/v1") is None
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"{variable.upper()} names {kind}, which is not supported")
    assert "HTTPS_PROXY" in record.message
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("models.example", "models.example"),
        ("models.example", "other, MODELS.example ,"),
        ("models.example", ".example"),
        ("models.example", "example"),
        ("models.example", "*.example"),
        ("models.example", "*"),
        ("models.example", "localhost *"),
        ("models.example", "models.example:8000"),
        ("models.example", "http://models.example/"),
        ("models.example.", "models.example"),
        ("10.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3:8000"),
        ("fd00::1", "fd00::/8"),
        ("fd00::1", "[fd00::1]"),
        ("fd00::1", "[fd00::1]:8000"),
        ("fd00::1", "FD00:0::1"),
        ("fd00::1", "[fd00::]/8"),
    ],
)
def test_no_proxy_has_a_host(host: str, no_proxy: str) -> None:
    assert bypassed(host, 8000, no_proxy)


@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("models.example", ""),
        ("models.example", "models.example:80"),
        ("models.example", "odels.example"),
        ("models.example", "models"),
        ("models.example", "10.0.0.0/8,[::1],[,],::,/,.,%%,*x"),
        ("11.1.2.3", "10.0.0.0/8"),
        ("10.1.2.3", "1.2.3, 10.0.0.0/99, fd00::/8"),
        ("fd00::1", "10.0.0.0/8, [::1], fd00::2"),
    ],
)
def test_no_proxy_has_no_such_host(host: str, no_proxy: str) -> None:
    assert not bypassed(host, 8000, no_proxy)


@given(
    no_proxy=st.text(st.sampled_from("*[]:/.,% a1f\u0430"), max_size=30),
    host=st.sampled_from(["models.example", "10.1.2.3", "fd00::1", "", "xn--e1afmkfd.example"]),
)
def test_any_list_can_be_read(no_proxy: str, host: str) -> None:
    assert isinstance(bypassed(host, 8000, no_proxy), bool)
    assert bypassed(host, 8000, f"{no_proxy},*")


@given(address=st.ip_addresses())
def test_only_this_machine_is_this_machine(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assert is_this_machine(str(address)) == (address.is_loopback or address.is_unspecified)


@asynccontextmanager
async def listening(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer every request with the same bytes, and keep the requests' heads."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.read(65_536))
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heads


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
REFUSED = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[HttpClient]:
    client = HttpClient(url, "key", connect_timeout_s=5)
    try:
        yield client
    finally:
        await client.close()


async def test_a_proxy_is_used_with_its_password_and_knows_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(OK) as (port, heads):
        monkeypatch.setenv("ALL_PROXY", f"http://user:pass%20word@127.0.0.1:{port}")
        async with client_of("http://models.invalid/v1") as client:
            assert await client.get("/models", timeout_s=5) == b"{}"
    [head] = heads
    assert head.startswith(b"GET http://models.invalid/v1/models HTTP/1.1")
    assert b"authorization: bearer key" in head.lower()
    assert base64.b64encode(b"user:pass word") in head


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv(f"{scheme.upper()}_PROXY", "http://user:canary@127.0.0.1:9")
    async with client_of(f"{scheme}://models.invalid/v1") as client:
        with pytest.raises(Unreachable) as raised:
            await client.get("/models", timeout_s=5)
    assert str(raised.value) == f"the proxy of {scheme.upper()}_PROXY does not answer"


async def test_a_proxy_that_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening(REFUSED) as (port, _):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        async with client_of("https://models.invalid/v1") as client:
            with pytest.raises(Unreachable) as raised:
                await client.get("/models", timeout_s=5)
    assert str(raised.value) == "the proxy of HTTPS_PROXY refuses it (407)"


async def test_a_host_that_nobody_knows_and_one_without_tls_are_named() -> None:
    async with client_of("http://models.invalid/v1") as client:
        with pytest.raises(Unreachable, match="the name of its host is not known"):
            await client.get("/models", timeout_s=5)
    async with listening(OK) as (port, _), client_of(f"https://127.0.0.1:{port}/v1") as client:
        with pytest.raises(Unreachable, match="does not speak TLS"):
            await client.get("/models", timeout_s=5)


async def test_a_user_and_a_password_in_an_address_are_sent_instead_of_the_key() -> None:
    async with listening(OK) as (port, heads), client_of(f"http://ann:pass%20word@127.0.0.1:{port}/v1") as client:
        for path in ("/models", f"http://ann:pass%20word@127.0.0.1:{port}/tokenize"):
            assert await client.get(path, timeout_s=5) == b"{}"
    for head in heads:
        assert base64.b64encode(b"ann:pass word") in head
        assert b"Bearer" not in head


async def test_a_netrc_file_does_not_get_in_the_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login ann password canary\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with listening(OK) as (port, heads):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{port}")
        async with client_of("http://models.invalid/v1") as client:
            assert await client.get("/models", timeout_s=5) == b"{}"
    assert b"Bearer key" in heads[0]

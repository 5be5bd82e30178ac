"""HTTP to model endpoints: JSON in, JSON or server-sent events out, over one pool of connections for each endpoint.

A turn makes four calls and its background work three more, so what a call costs is much of what a turn costs. That is
why ``aiohttp`` is used, whose parser is compiled. Nothing is retried here, and no redirect is followed with a prompt.

Whatever goes wrong is one of these::

    HttpFailure
    ├── Unreachable     no connection, or it ended before an answer began
    ├── TimedOut        the endpoint was silent for too long
    ├── BrokenOff       the connection ended in the middle of an answer
    ├── Refused         an answer with another status than 2xx
    └── Unreadable      what came is no HTTP, cannot be decoded, or is far too long
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import SplitResult, unquote, urlsplit

import aiohttp
import certifi
import msgspec

from domain.events import JsonObject
from projections.proxies import Proxy, proxy_for

_CONNECTIONS_MAX = 1000
_KEEP_ALIVE_S = 4.0
"""Shorter than the five seconds of uvicorn, and so of vLLM, which would close a connection just as it is used again."""
_REFUSAL_BYTES_MAX = 64 * 1024
_BODY_BYTES_MAX = 64 * 1024 * 1024
_EVENT_BYTES_MAX = 8 * 1024 * 1024
"""An endpoint that never ends its answer, or an event of it, must not take all memory."""
_LAST_BYTES_S = 0.1
_SECONDS = re.compile(r"[0-9]{1,6}")
"""Of a header that may as well hold a date, or anything: a number of seconds that somebody could wait for."""


class HttpFailure(Exception):
    """A call that gave no usable answer."""


class Unreachable(HttpFailure):
    """There is no connection, or it ended before an answer began. Its text says why, where that is known."""


class TimedOut(HttpFailure):
    """The endpoint was silent for too long."""


class BrokenOff(HttpFailure):
    """The connection ended in the middle of an answer."""


class Unreadable(HttpFailure):
    """What came is no HTTP, cannot be decoded, or is far too long."""


class Refused(HttpFailure):
    """The endpoint answered with another status than 2xx.

    ``retry_after_s`` is how long it asks to be left alone, None where it does not say so in seconds.
    """

    def __init__(self, status: int, body: bytes, retry_after: str) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.retry_after_s = float(retry_after) if _SECONDS.fullmatch(retry_after) else None


class HttpClient:
    """Calls one endpoint. Every method raises :class:`HttpFailure` and nothing else when a call fails."""

    def __init__(self, base_url: str, api_key: str, *, connect_timeout_s: float) -> None:
        parts = urlsplit(base_url.rstrip("/"))
        self._base_url = _without_credentials(parts)
        self.address = recordable_url(base_url.rstrip("/"))
        """The endpoint, as it may be recorded."""
        # An address with a user and a password asks for these, and there can be only one such header.
        authorization = _basic(parts) if "@" in parts.netloc else f"Bearer {api_key}"
        self._headers = {"authorization": authorization, "content-type": "application/json"}
        self._proxy: Proxy | None = None
        self._connect_timeout_s = connect_timeout_s
        self._opened: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()

    async def get(self, path: str, *, timeout_s: float) -> bytes:
        """Return the body of a GET. ``path`` begins with a slash, or is a whole address."""
        return await self._body("GET", path, None, timeout_s)

    async def post(self, path: str, body: JsonObject, *, timeout_s: float, bytes_max: int = _BODY_BYTES_MAX) -> bytes:
        """Return the body of the answer to a POST; ``timeout_s`` bounds the whole call, ``bytes_max`` its answer."""
        return await self._body("POST", path, body, timeout_s, bytes_max)

    @asynccontextmanager
    async def stream(self, path: str, body: JsonObject, *, silence_s: float) -> AsyncIterator[AsyncIterator[bytes]]:
        """POST, and yield the bytes of the answer as they come; leaving the context closes an unfinished connection.

        ``silence_s`` bounds the time between two pieces, not the whole answer.
        """
        limits = aiohttp.ClientTimeout(sock_connect=self._connect_timeout_s, sock_read=silence_s)
        response = await self._begin("POST", path, body, limits)
        try:
            yield _pieces(response)
        except BaseException:
            response.close()
            raise
        # The last bytes often follow the last event by a moment; without them the connection cannot be used again.
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(_LAST_BYTES_S):
                await response.read()
        response.release()

    async def _body(
        self, method: str, path: str, body: JsonObject | None, timeout_s: float, bytes_max: int = _BODY_BYTES_MAX
    ) -> bytes:
        limits = aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(self._connect_timeout_s, timeout_s))
        response = await self._begin(method, path, body, limits)
        async with response:
            return await whole(_pieces(response), bytes_max)

    async def _begin(
        self, method: str, path: str, body: JsonObject | None, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Send a request and wait for the status line of its answer."""
        url = _without_credentials(urlsplit(path)) if "://" in path else self._base_url + path
        data = msgspec.json.encode(body) if body is not None else None
        try:
            response = await self._session.request(method, url, data=data, timeout=limits, allow_redirects=False)
        except aiohttp.ConnectionTimeoutError:
            raise Unreachable(f"no connection within {limits.sock_connect:g} s") from None
        except TimeoutError:
            raise TimedOut from None
        except (aiohttp.ClientConnectionError, aiohttp.ClientHttpProxyError) as error:
            raise Unreachable(self._why(error)) from None
        except (aiohttp.ClientError, ValueError):
            raise Unreadable from None
        if 200 <= response.status < 300:
            return response
        async with response:
            raise Refused(response.status, await _beginning(response), response.headers.get("retry-after", ""))

    @property
    def _session(self) -> aiohttp.ClientSession:
        # Made by the first call: a session belongs to the event loop that it is made in.
        if self._opened is None:
            self._proxy = proxy_for(self._base_url)
            self._opened = aiohttp.ClientSession(
                headers=self._headers,
                proxy=self._proxy.url if self._proxy is not None else None,
                connector=aiohttp.TCPConnector(
                    limit=_CONNECTIONS_MAX,
                    keepalive_timeout=_KEEP_ALIVE_S,
                    ssl=_tls() if self._base_url.startswith("https:") else True,
                ),
            )
        return self._opened

    def _why(self, error: aiohttp.ClientError) -> str:
        """Say why there is no connection; empty where nothing more is known than that nobody answers."""
        match error:
            case aiohttp.ClientHttpProxyError():
                refused = f" refuses it ({error.status})"
            case aiohttp.ClientProxyConnectionError():
                refused = " does not answer"
            case aiohttp.ClientConnectorDNSError():
                return "the name of its host is not known"
            case aiohttp.ClientConnectorCertificateError():
                return "its certificate is not trusted here"
            case aiohttp.ClientConnectorSSLError():
                return "it does not speak TLS: is it http://?"
            case _:
                return ""
        return f"the proxy of {self._proxy.variable}{refused}" if self._proxy is not None else ""


async def whole(pieces: AsyncIterator[bytes], bytes_max: int) -> bytes:
    """Return what comes in pieces; raise :class:`Unreadable` for more than ``bytes_max``."""
    found: list[bytes] = []
    left = bytes_max
    async for piece in pieces:
        found.append(piece)
        left -= len(piece)
        if left < 0:
            raise Unreadable
    return b"".join(found)


async def events(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield the data of server-sent events: those that came together in one list, in their order.

    Comments and other fields than ``data`` say nothing here. An event whose empty line the end of the stream cuts off
    counts. Raises :class:`Unreadable` for what is no UTF-8, and for an event that does not end.
    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """
    rest = b""
    data: list[bytes] = []
    begun = False
    async for piece in pieces:
        if not begun:
            piece, begun = piece.removeprefix(codecs.BOM_UTF8), True
        *lines, rest = (rest + piece).split(b"\n")
        found: list[bytes] = []
        for line in lines:
            _take_line(line, data, found)
        if found:
            yield found
        if len(rest) + sum(map(len, data)) > _EVENT_BYTES_MAX:
            raise Unreadable
    found = []
    for line in (rest, b""):
        _take_line(line, data, found)
    if found:
        yield found


def _take_line(line: bytes, data: list[bytes], found: list[bytes]) -> None:
    """Add a line's data to ``data``; an empty line moves what is there to ``found``, as one event."""
    line = line.removesuffix(b"\r")
    if line.startswith(b"data:"):
        data.append(line[5:].removeprefix(b" "))
    elif not line:
        # An event without data, such as a heartbeat's bare "data:", is none.
        if any(data):
            found.append(b"\n".join(data))
        data.clear()
    else:
        try:
            line.decode()
        except UnicodeDecodeError:
            raise Unreadable from None


async def _pieces(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for piece in response.content.iter_any():
            yield piece
    except TimeoutError:
        raise TimedOut from None
    except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError):
        raise BrokenOff from None
    except aiohttp.ClientError:
        raise Unreadable from None


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of a refusal's body, as far as it comes."""
    body = b""
    with suppress(TimeoutError, aiohttp.ClientError):
        async for piece in response.content.iter_any():
            body += piece
            if len(body) >= _REFUSAL_BYTES_MAX:
                break
    return body[:_REFUSAL_BYTES_MAX]


def recordable_url(url: str) -> str:
    """Return an address without credentials: neither user nor password nor query go into the ledger."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _without_credentials(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _basic(parts: SplitResult) -> str:
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _tls() -> ssl.SSLContext:
    """Trust what the system trusts, and Mozilla's list for systems that come without one."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context

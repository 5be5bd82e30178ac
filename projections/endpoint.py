"""Calls to one OpenAI-compatible endpoint: JSON out, JSON or a stream of it back, and the few ways in which that fails.

A turn waits for four such calls, so what a call costs before and after the model's own work is part of every answer.
The official client took four times the processor time of this one, which does what a turn needs and no more: it does
not retry, build models of answers, or look into them.

    CallFailed
    ├── CallTimedOut     nothing came in time
    ├── NoConnection     the endpoint is away, or left before it had answered
    ├── BrokeOff         it left in the middle of a stream
    ├── ErrorInStream    it reported an error in the middle of a stream
    ├── Refused          it answered with a status that is no success
    └── Unreadable       its answer is no JSON
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2

from domain.errors import OpmError
from domain.events import JsonObject

_CONNECT_TIMEOUT_S = 5.0
_SILENCE_S_MAX = 600.0
_CONNECTIONS_MAX = 1000
_KEEP_ALIVE_S = 4.0
"""Shorter than the 5 s after which uvicorn, and with it vLLM, closes an idle connection: so the two never cross."""
_STREAM_ENDS = "[DONE]"


class CallFailed(OpmError):
    """A call gave nothing that can be used. The message quotes nothing of what was sent or came back."""


class CallTimedOut(CallFailed):
    """Nothing came in time."""


class NoConnection(CallFailed):
    """The endpoint cannot be reached, or hung up before it had answered."""


class BrokeOff(CallFailed):
    """The endpoint hung up in the middle of a stream."""


class ErrorInStream(CallFailed):
    """The endpoint reported an error in the middle of a stream."""


class Unreadable(CallFailed):
    """The answer is no JSON, or what was to be sent cannot be said in JSON."""


class Refused(CallFailed):
    """The endpoint answered with ``status``; ``reason`` is what its error says, in foreign words."""

    def __init__(self, status: int, reason: str | None, retry_after: str | None) -> None:
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        super().__init__(f"the endpoint answered with status {status}")


class Endpoint:
    """Calls ``base_url`` with ``api_key``; paths are relative to it unless they are whole addresses.

    ``silence_s_max`` is how long a connection may be silent, ``connect_timeout_s`` how long it may take to come about.
    To be used from one event loop. Every method raises :class:`CallFailed` and nothing else.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        silence_s_max: float = _SILENCE_S_MAX,
        connect_timeout_s: float = _CONNECT_TIMEOUT_S,
    ) -> None:
        self.base_url = base_url
        self._headers = {
            "Authorization": f"Bearer {api_key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "openpersistentmemory",
        }
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=silence_s_max)
        self._proxy = _proxy_for(base_url)
        # Trusting the same authorities as every other client of the house.
        self._tls = httpx2.create_ssl_context() if base_url.startswith("https:") else True
        self._opened: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()
            self._opened = None

    async def get(self, path: str, *, timeout_s: float) -> Any:  # any JSON value
        """Return the JSON found at ``path``, which must have come within ``timeout_s``."""
        return await self._whole("GET", path, None, timeout_s)

    async def post(self, path: str, body: JsonObject, *, timeout_s: float) -> Any:  # any JSON value
        """Return the JSON that answers ``body``, which must have come within ``timeout_s``."""
        return await self._whole("POST", path, body, timeout_s)

    @asynccontextmanager
    async def stream(self, path: str, body: JsonObject) -> AsyncIterator[AsyncIterator[Any]]:
        """Open a stream of server-sent JSON values; leaving the context closes its connection."""
        response = await self._answered("POST", path, body)
        try:
            yield _values(response)
        finally:
            response.close()

    async def _whole(self, method: str, path: str, body: JsonObject | None, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._answered(method, path, body)
                async with response:
                    return json.loads(await response.read())
        except TimeoutError:
            raise CallTimedOut(f"no answer within {timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError):
            raise _no_connection() from None
        except ValueError:
            raise _unreadable() from None

    async def _answered(self, method: str, path: str, body: JsonObject | None) -> aiohttp.ClientResponse:
        """Send a request; return its answer once the status says that it is one."""
        try:
            url = path if path.startswith("http") else self.base_url + path
            sent = None if body is None else json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
            response = await self._session().request(method, url, data=sent, proxy=self._proxy)
        except TimeoutError:
            raise CallTimedOut("the connection was silent for too long") from None
        except (aiohttp.ClientError, OSError):
            raise _no_connection() from None
        except ValueError:
            raise _unreadable() from None
        if not 200 <= response.status < 300:
            async with response:
                raise Refused(response.status, await _reason(response), response.headers.get("Retry-After"))
        return response

    def _session(self) -> aiohttp.ClientSession:
        if self._opened is None:
            connector = aiohttp.TCPConnector(ssl=self._tls, limit=_CONNECTIONS_MAX, keepalive_timeout=_KEEP_ALIVE_S)
            self._opened = aiohttp.ClientSession(connector=connector, headers=self._headers, timeout=self._timeout)
        return self._opened


async def _values(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """Read a stream of events (https://html.spec.whatwg.org/multipage/server-sent-events.html) and the JSON in them.

    It may end with ``[DONE]`` or without; whether the answer in it is whole is for its reader to tell.
    """
    pending = b""
    said: list[str] = []
    try:
        async for part in response.content.iter_any():
            *lines, pending = (pending + part).split(b"\n")
            for line in lines:
                name, _, value = line.decode().removesuffix("\r").partition(":")
                if name == "data":
                    said.append(value.removeprefix(" "))
                elif not name and not value and said:  # a blank line ends an event; ":" alone begins a comment
                    event, said = "\n".join(said), []
                    if event.startswith(_STREAM_ENDS):
                        return
                    yield _checked(json.loads(event))
    except TimeoutError:
        raise CallTimedOut("the connection was silent for too long") from None
    except (aiohttp.ClientError, OSError):
        raise BrokeOff("the endpoint broke off in the middle of its answer") from None
    except ValueError:
        raise _unreadable() from None


def _checked(value: Any) -> Any:
    if isinstance(value, dict) and value.get("error"):
        raise ErrorInStream("the endpoint reported an error in the middle of its answer")
    return value


async def _reason(response: aiohttp.ClientResponse) -> str | None:
    """Return the message of an error as OpenAI's API shapes it, None where there is none to be read."""
    try:
        body = json.loads(await response.read())
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return None
    error = body.get("error", body) if isinstance(body, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else None


def _proxy_for(base_url: str) -> str | None:
    """Return the proxy that the environment names for an address, as other programs read it."""
    parts = urlsplit(base_url)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def _no_connection() -> NoConnection:
    return NoConnection("the endpoint cannot be reached")


def _unreadable() -> Unreadable:
    return Unreadable("the answer of the endpoint is no JSON")

"""What a client sends, as it went over the wire: a proxy that listens, and the files that keep it.

In a kept request stands a mark wherever the client repeats what an answer said: ``{{id:2}}`` is the id of the answer to
the third request, ``{{text:2}}`` its text, ``{{call.0:2}}`` the id of its first tool call, ``{{item.0:2}}`` that of its
first item. :meth:`Request.filled` puts in what another service answered. Dates and paths of the machine are taken out.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web

FOLDER = Path(__file__).parent / "recorded"
LONG_TEXT_CHARS = 2_400
"""A text longer than this loses its middle."""
TOOLS_KEPT = 2
"""Of a longer list of tools the first ones are kept."""

_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length", "host", "accept-encoding"}
_UNKEPT = _HOP_BY_HOP | {"traceparent", "baggage", "sentry-trace", "date"}


@dataclass
class Answer:
    """What of an answer a client may repeat."""

    id: str = ""
    text: str = ""
    calls: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    """The ids of what a response holds."""

    def said(self) -> dict[str, str]:
        """Return what a client may repeat, by the name of its mark."""
        calls = {f"call.{number}": value for number, value in enumerate(self.calls)}
        items = {f"item.{number}": value for number, value in enumerate(self.items)}
        return {"id": self.id, "text": self.text, **calls, **items}


@dataclass
class Exchange:
    """A request of a client and what came back; times are ``time.monotonic()`` seconds."""

    step: str
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    started: float
    ended: float = 0.0
    status: int = 0
    answer: Answer = field(default_factory=Answer)
    raw_answer: bytes = b""


@dataclass
class RecordingProxy:
    """Stands before an endpoint on a port of its own, and keeps every exchange in the order of the requests."""

    target: str
    """Without ``/v1``."""
    step: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    port: int = 0

    @property
    def root_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"

    def __enter__(self) -> Self:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(started)), daemon=True)
        self._thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop.close()

    def of_step(self, step: str) -> list[Exchange]:
        return [each for each in self.exchanges if each.step == step]

    async def _serve(self, started: threading.Event) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/_step", self._begin_step)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout) as self._session:
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", self.port)
            await site.start()
            self.port = runner.addresses[0][1]
            started.set()
            await self._stopping.wait()
            await runner.cleanup()

    async def _begin_step(self, request: web.Request) -> web.Response:
        self.step = await request.text()
        return web.Response()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        exchange = Exchange(self.step, request.method, request.path_qs, headers, _json(body), time.monotonic())
        self.exchanges.append(exchange)
        passed = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        async with self._session.request(
            request.method, f"{self.target}{request.path_qs}", data=body, headers=passed, allow_redirects=False
        ) as answer:
            exchange.status = answer.status
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                exchange.raw_answer += piece
                await response.write(piece)
            exchange.answer = answer_of(exchange.raw_answer)
            exchange.ended = time.monotonic()
            await response.write_eof()
        return response


def answer_of(raw: bytes) -> Answer:
    """Return what a client may repeat of an answer of chat completions or responses, streamed or whole."""
    text = raw.decode("utf-8", "replace")
    if not text.lstrip().startswith(("{", "[")):
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ") and line != "data: [DONE]"]
    else:
        lines = [text]
    answer = Answer()
    for line in lines:
        value = _json(line.encode())
        if isinstance(value, dict):
            _read_into(answer, value)
    return answer


def _read_into(answer: Answer, value: Mapping[str, Any]) -> None:
    if str(value.get("type", "")).startswith("response."):
        if value["type"] != "response.completed":
            return
        value = value["response"]
    answer.id = answer.id or str(value.get("id", ""))
    for choice in value.get("choices") or ():
        message = choice.get("message") or choice.get("delta") or {}
        answer.text += message.get("content") or ""
        answer.calls += [call["id"] for call in message.get("tool_calls") or () if call.get("id")]
    for item in value.get("output") or ():
        answer.items.append(str(item.get("id", "")))
        if item.get("type") == "function_call":
            answer.calls.append(item["call_id"])
        answer.text += "".join(part.get("text", "") for part in item.get("content") or ())


@dataclass(frozen=True)
class Request:
    """A request as it is kept, with marks; ``comes`` are the marks that its answer fills."""

    step: str
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    status: int
    """What the scripted endpoint answered, when it was recorded."""

    def filled(self, answers: Sequence[Answer]) -> Any:
        """Return the body with what other answers said in place of its marks."""
        text = json.dumps(self.body, ensure_ascii=False)
        for number, answer in enumerate(answers):
            for name, value in answer.said().items():
                text = text.replace(f"{{{{{name}:{number}}}}}", json.dumps(value, ensure_ascii=False)[1:-1])
        return json.loads(text)


@dataclass(frozen=True)
class Recorded:
    """All that a client sent."""

    client: str
    version: str
    recorded: str
    """The day, ISO 8601."""
    requests: tuple[Request, ...]

    @classmethod
    def load(cls, path: Path) -> Recorded:
        value = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**value, "requests": tuple(Request(**each) for each in value["requests"])})

    def save(self, folder: Path = FOLDER) -> Path:
        path = folder / f"{self.client}.json"
        path.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return path


def all_recorded() -> list[Recorded]:
    return [Recorded.load(path) for path in sorted(FOLDER.glob("*.json"))]


def recorded(
    client: str, version: str, day: str, exchanges: Sequence[Exchange], replaced: Mapping[str, str]
) -> Recorded:
    """Return what is kept of exchanges; ``replaced`` are texts of this machine and what stands for them."""
    requests: list[Request] = []
    answers: list[Answer] = []
    replaced = {**replaced, **_ids_of(exchanges)}
    for exchange in exchanges:
        headers = {
            name: _clean(value, replaced) for name, value in sorted(exchange.headers.items()) if name not in _UNKEPT
        }
        body = _marked(_shortened(exchange.body), answers)
        cleaned = json.loads(_clean(json.dumps(body, ensure_ascii=False), replaced))
        requests.append(Request(exchange.step, exchange.method, exchange.path, headers, cleaned, exchange.status))
        answers.append(exchange.answer)
    return Recorded(client, version, day, tuple(requests))


def _marked(body: Any, answers: Sequence[Answer]) -> Any:
    text = json.dumps(body, ensure_ascii=False)
    for number, answer in reversed(list(enumerate(answers))):
        for name, value in answer.said().items():
            if len(value) > 4:
                text = text.replace(json.dumps(value, ensure_ascii=False)[1:-1], f"{{{{{name}:{number}}}}}")
    return json.loads(text)


def _shortened(value: Any, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _shortened(item, key) for key, item in value.items()}
    if isinstance(value, list):
        kept = value[:TOOLS_KEPT] if name == "tools" else value
        return [_shortened(item) for item in kept]
    if isinstance(value, str) and len(value) > LONG_TEXT_CHARS:
        half = LONG_TEXT_CHARS // 2
        return f"{value[:half]}\n[...]\n{value[-half:]}"
    return value


def _ids_of(exchanges: Sequence[Exchange]) -> dict[str, str]:
    """Return a made-up UUID for each that the client made or was given, so that the same stay the same."""
    said = json.dumps([[each.headers, each.body, each.path] for each in exchanges])
    found = dict.fromkeys(re.findall(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", said))
    return {each: f"00000000-0000-4000-8000-{number:012d}" for number, each in enumerate(found, 1)}


def _clean(text: str, replaced: Mapping[str, str]) -> str:
    for found, instead in replaced.items():
        text = text.replace(found, instead)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:8000", text)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return body.decode("utf-8", "replace")

"""The service in the test's own process, on a real port, and a plain HTTP client that keeps every answer.

Subprocesses (:mod:`tests.processes`) are slow to start, so tests use them only where nothing else will do.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx2
import uvicorn

from domain.events import Event, Payload, PromptReport, TurnRecorded
from domain.identity import StreamId
from domain.ledger_reader import LedgerReader
from domain.sqlite import open_engine
from service.app import create_app
from service.container import Services
from service.settings import ServiceSettings
from tests.upstream import ScriptedUpstream

P = TypeVar("P", bound=Payload)

DEADLINE_S = 20.0
_POLL_S = 0.01
_DATE = re.compile(r"\A\[\d{4}-\d\d-\d\d(?: \d\d:\d\d)?\] ")


def until(said: str, holds: Callable[[], object], patience_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds; otherwise raise :class:`TimeoutError` that names it."""
    deadline = time.monotonic() + patience_s
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {patience_s:g} s it is still not true that {said}")
        time.sleep(_POLL_S)


def settings_for(upstream: ScriptedUpstream, storage_dir: Path, **more: Any) -> ServiceSettings:
    """Return settings that point at the scripted upstream and read no ``.env``."""
    given = {
        "storage_dir": storage_dir,
        "llm_base_url": upstream.base_url,
        "llm_model": upstream.chat_model,
        "emb_base_url": upstream.base_url,
        "emb_model": upstream.embedding_model,
        "summary_attempts": 2,
        # Neighbors would add to what a test expects; their own tests turn them on.
        "neighbor_turns_default": 0,
        **more,
    }
    return ServiceSettings(_env_file=None, **given)  # type: ignore[call-arg]  # pydantic-settings' own argument


@dataclass
class Answer:
    """What a request to ``/v1/chat/completions`` gave; of a stream every event, in order."""

    status: int
    headers: httpx2.Headers
    body: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False
    """``data: [DONE]`` came last."""

    @property
    def text(self) -> str:
        if self.events:
            return "".join(c["delta"].get("content") or "" for e in self.events for c in e.get("choices", ()))
        return str(self.body["choices"][0]["message"]["content"])

    @property
    def finish_reason(self) -> str:
        if self.events:
            reasons = [c["finish_reason"] for e in self.events for c in e.get("choices", ())]
            return str(next(filter(None, reasons)))
        return str(self.body["choices"][0]["finish_reason"])

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body["error"] if not self.events else self.events[-1]["error"]
        assert set(found) == {"message", "type", "param", "code"}
        return found

    @property
    def id(self) -> str:
        return str((self.events[0] if self.events else self.body)["id"])

    def memory(self, name: str) -> Any:
        """A field of the product's own: ``retrieved``, ``memory_status`` or ``turn``."""
        found = [event[name] for event in (self.events or [self.body]) if name in event]
        assert len(found) == 1
        return found[0]

    @property
    def replayed(self) -> list[str]:
        return [item["raw_user"] for item in self.memory("retrieved")["replay"]]

    @property
    def summaries(self) -> list[str]:
        return [item["summary"] for item in self.memory("retrieved")["summary_only"]]


def chat_body(question: str, user: str, conversation: str = "c", **more: Any) -> dict[str, Any]:
    """Return a request body; names that are not fields of the API go into ``metadata``."""
    own = {
        "messages",
        "model",
        "stream",
        "stream_options",
        "temperature",
        "max_tokens",
        "max_completion_tokens",
        "metadata",
        "stop",
        "seed",
        "n",
    }
    body: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "user": user}
    body |= {name: value for name, value in more.items() if name in own}
    knobs = {name: value for name, value in more.items() if name not in own}
    return {**body, "metadata": {"conversation_id": conversation, **knobs, **body.get("metadata", {})}}


class Client:
    """An HTTP client that keeps every answer, so that a test can look for what must not be in them."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.http = httpx2.Client(base_url=base_url, timeout=60, trust_env=False)
        self.received = ""

    def ask(self, question: str, user: str, conversation: str = "c", **more: Any) -> Answer:
        """Send a question and read its whole answer."""
        return self.post(chat_body(question, user, conversation, **more))

    def post(self, body: dict[str, Any], **headers: str) -> Answer:
        with self.http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            if response.headers["content-type"].startswith("text/event-stream"):
                events, ended = [], False
                for event in events_of(response):
                    assert not ended
                    ended = event is None
                    if event is not None:
                        events.append(event)
                answer = Answer(response.status_code, response.headers, events=events, ended=ended)
            else:
                response.read()
                answer = Answer(response.status_code, response.headers, body=response.json())
        self.received += json.dumps([answer.body, answer.events], ensure_ascii=False)
        return answer

    def tell(self, question: str, user: str, conversation: str = "c", **more: Any) -> Answer:
        """Ask, and make sure that it was answered."""
        answer = self.ask(question, user, conversation, **more)
        assert answer.status == 200, answer.body
        assert not answer.events or answer.ended, answer.events[-1]
        return answer

    def get(self, path: str, **params: Any) -> httpx2.Response:
        response = self.http.get(path, params=params)
        self.received += response.text
        return response


def events_of(response: httpx2.Response) -> Iterator[dict[str, Any] | None]:
    """Yield each event of a stream as it comes, None for ``[DONE]``; comments are none."""
    for line in response.iter_lines():
        if line and not line.startswith(":"):
            assert line.startswith("data: ")
            yield None if line == "data: [DONE]" else json.loads(line[6:])


class LedgerView:
    """Reads a ledger file beside the service."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = open_engine(path, writer=False)
        self.reader = LedgerReader(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    def of_answer(self, answer: Answer) -> list[Event]:
        return self.reader.events_of_answer(answer.id)

    def stream(self, user: str, conversation: str = "c") -> list[Event]:
        events = self.reader.events_after(0, 1_000_000)
        return [event for event in events if event.stream == StreamId(user, conversation)]

    def all(self, kind: type[P], user: str, conversation: str = "c") -> list[P]:
        """Every payload of a kind in a conversation, in order."""
        return [event.payload for event in self.stream(user, conversation) if isinstance(event.payload, kind)]

    def one(self, kind: type[P], answer: Answer) -> P:
        """The one payload of a kind that belongs to an answer."""
        found = [event.payload for event in self.of_answer(answer) if isinstance(event.payload, kind)]
        assert len(found) == 1
        return found[0]

    def report(self, answer: Answer) -> PromptReport:
        """How the prompt of an answer was put together."""
        report = self.one(TurnRecorded, answer).prompt
        assert report is not None
        return report


@dataclass
class Running:
    """A running service, its upstream, its client, its ledger and its log."""

    upstream: ScriptedUpstream
    client: Client
    ledger: LedgerView
    services: Services
    _loop: asyncio.AbstractEventLoop
    _log: io.StringIO

    def log(self) -> str:
        """All that was logged since the start, at every level."""
        return self._log.getvalue()

    def settle(self) -> None:
        """Wait until everything in the background has followed the ledger's head."""

        async def caught_up() -> None:
            head = -1
            while head != (head := self.ledger.reader.head_position()) or self.services.summarizer.writing:
                for follower in self.services.followers.values():
                    await follower.caught_up()

        asyncio.run_coroutine_threadsafe(caught_up(), self._loop).result(DEADLINE_S)

    def tell_all(self, facts: Sequence[str], user: str, conversation: str = "facts") -> list[str]:
        """Tell facts one by one with memory off, and return their memory ids."""
        quiet = {"candidate_n": 0, "recent_turns": 0}
        told = [self.client.tell(fact, user, conversation, **quiet).memory("turn")["memory_id"] for fact in facts]
        return [str(memory_id) for memory_id in told]

    def messages(self) -> list[tuple[str, str]]:
        """What the chat model was sent for the newest answer."""
        sent = self.upstream.calls_of("answer")[-1].body["messages"]
        return [(message["role"], message["content"]) for message in sent]

    def said(self) -> list[str]:
        """The user's messages among those, without the dates that memories carry."""
        return [_DATE.sub("", text) for role, text in self.messages() if role == "user"]


def someone() -> str:
    """A user whom no other test knows."""
    return f"user-{uuid4().hex[:12]}"


@contextmanager
def running(upstream: ScriptedUpstream, storage_dir: Path, **settings: Any) -> Iterator[Running]:
    """Run the service in a thread until the block ends."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    app = create_app(settings_for(upstream, storage_dir, **settings))
    config = uvicorn.Config(app, port=0, log_config=None, log_level="info")
    server = uvicorn.Server(config)
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve()

    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    for noisy in ("httpx2", "httpcore2", "openai", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)

    def run() -> None:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run, name="service", daemon=True)
    thread.start()
    try:
        until("the service starts", lambda: server.started or not thread.is_alive())
        assert server.started, log.getvalue()
        port = server.servers[0].sockets[0].getsockname()[1]
        client = Client(f"http://127.0.0.1:{port}")
        ledger = LedgerView(storage_dir / "ledger.sqlite3")
        try:
            yield Running(upstream, client, ledger, app.state.services, loops[0], log)
        finally:
            client.http.close()
            ledger.close()
    finally:
        upstream.heal()
        upstream.release()
        server.should_exit = True
        thread.join(DEADLINE_S)
        root.removeHandler(handler)
        root.setLevel(before)
        assert not thread.is_alive(), "the service does not stop"

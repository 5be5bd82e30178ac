"""A real HTTP server that speaks the service's contract as far as the page uses it, and does what it is told.

It records every chat request, keeps the turns it answered (so that reopening a conversation works), can hold
a stream until the test releases it, notices a hang-up, and can fail before or in the middle of an answer.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

REQUEST_ID = "req-7f3a"
MODEL = "scripted-model"
EARLIEST = datetime(2025, 11, 3, 13, 5, tzinfo=UTC)


@dataclass
class Turn:
    """A turn as the ledger would give it back."""

    turn_id: int
    user: str
    assistant: str
    ts: datetime
    finish_reason: str = "stop"


@dataclass
class ScriptedBackend:
    """What the server does next, and what it has seen. Reset by making a new one."""

    url: str = ""
    pieces: list[str] = field(default_factory=lambda: ["Peanuts, ", "you told me ", "in November."])
    piece_delay_s: float = 0.0
    hold_after: int | None = None
    """Wait for `release` once this many pieces were sent."""
    fail_status: int | None = None
    fail_param: str | None = None
    fail_reads: bool = False
    """Whether `fail_status` meets the reads (turns, conversations) as well as the chats."""
    break_after: int | None = None
    """Send an error line in place of the piece of this number."""
    retrieved: dict[str, Any] = field(default_factory=lambda: {"replay": [], "summary_only": []})
    notice: str | None = None
    notice_code: str | None = None
    time_range: dict[str, str] | None = None
    knobs: dict[str, Any] = field(default_factory=dict)
    """The defaults that the service tells beside its model."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    turns: dict[tuple[str, str], list[Turn]] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)
    forgotten: list[tuple[str, str]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    hung_up: threading.Event = field(default_factory=threading.Event)

    def remember(self, user: str, conversation_id: str, question: str, answer: str) -> None:
        """Put a turn in the ledger."""
        turns = self.turns.setdefault((user, conversation_id), [])
        age = sum(map(len, self.turns.values()))
        turns.append(Turn(len(turns) + 1, question, answer, EARLIEST + timedelta(hours=age)))

    def app(self) -> FastAPI:
        """The HTTP face."""
        app = FastAPI()
        app.post("/v1/chat/completions")(self._chat)
        app.get("/v1/models")(self._models)
        app.get("/v1/conversations")(self._conversations)
        app.get("/v1/turns")(self._turns)
        app.get("/v1/memories/{memory_id}")(self._memory)
        app.delete("/v1/memories/{memory_id}")(self._forget)
        app.patch("/v1/memories/{memory_id}")(self._edit)
        return app

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.authorizations.append(request.headers.get("authorization"))
        if self.fail_status is not None:
            return self._failure()
        headers = {"x-request-id": REQUEST_ID}
        return StreamingResponse(self._stream(body), media_type="text/event-stream", headers=headers)

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        user, conversation_id = body["user"], body["metadata"]["conversation_id"]
        question = body["messages"][-1]["content"]
        yield _chunk({"role": "assistant"}, retrieved=self.retrieved, memory_status=self._memory_status())
        for number, piece in enumerate(self.pieces):
            if number == self.break_after:
                error = {
                    "message": "The model went away.",
                    "type": "upstream_error",
                    "param": None,
                    "code": None,
                }
                yield f"data: {json.dumps({'error': error})}\n\n"
                return
            if number == self.hold_after:
                self.held.set()
                try:
                    await asyncio.to_thread(self.release.wait)
                finally:
                    # Starlette cancels the stream when the client is gone.
                    if not self.release.is_set():
                        self.hung_up.set()
            yield _chunk({"content": piece})
            await asyncio.sleep(self.piece_delay_s)
        self.remember(user, conversation_id, question, "".join(self.pieces))
        turn_id = self.turns[user, conversation_id][-1].turn_id
        turn = {
            "conversation_id": conversation_id,
            "turn_id": turn_id,
            "memory_id": f"{conversation_id}-{turn_id}",
        }
        yield _chunk({}, finish_reason="stop", turn=turn)
        yield "data: [DONE]\n\n"

    def _memory_status(self) -> dict[str, Any]:
        return {
            "retrieval": "degraded" if self.notice else "ok",
            "gate": {"strategy": "llm", "outcome": "ok"},
            "rerank": {"outcome": "ok"},
            "code": self.notice_code,
            "notice": self.notice,
            "time_range": self.time_range,
        }

    def _models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": MODEL, "object": "model", "knobs": self.knobs}]}

    def _conversations(self, user: str) -> Response:
        if self.fail_reads:
            return self._failure()
        mine = [(conversation, turns) for (owner, conversation), turns in self.turns.items() if owner == user]
        mine.sort(key=lambda item: item[1][-1].ts, reverse=True)
        data = [
            {
                "conversation_id": conversation,
                "turns": len(turns),
                "last_ts": turns[-1].ts.isoformat(),
                "title": turns[0].user,
            }
            for conversation, turns in mine
        ]
        return JSONResponse({"object": "list", "data": data})

    def _turns(self, user: str, conversation_id: str, limit: int) -> Response:
        if self.fail_reads:
            return self._failure()
        data = [
            {
                "turn_id": turn.turn_id,
                "memory_id": f"{conversation_id}-{turn.turn_id}",
                "ts": turn.ts.isoformat(),
                "user": turn.user,
                "assistant": turn.assistant,
                "finish_reason": turn.finish_reason,
                "retrieved": self.retrieved,
                "memory_status": self._memory_status(),
            }
            for turn in self.turns.get((user, conversation_id), [])[-limit:]
        ]
        return JSONResponse({"object": "list", "data": data})

    def _memory(self, user: str, memory_id: str) -> Response:
        if self.fail_reads:
            return self._failure()
        return JSONResponse({"memory_id": memory_id, "summary": self.summaries.get(memory_id)})

    def _forget(self, user: str, memory_id: str) -> Response:
        if self.fail_reads:
            return self._failure()
        self.forgotten.append((user, memory_id))
        for (owner, conversation), turns in self.turns.items():
            if owner == user:
                turns[:] = [turn for turn in turns if f"{conversation}-{turn.turn_id}" != memory_id]
        self.retrieved = {
            part: [memory for memory in memories if memory["memory_id"] != memory_id]
            for part, memories in self.retrieved.items()
        }
        return JSONResponse({"memory_id": memory_id, "deleted": True})

    async def _edit(self, request: Request, memory_id: str) -> Response:
        if self.fail_reads:
            return self._failure()
        body = await request.json()
        self.summaries[memory_id] = body["summary"]
        for memory in self.retrieved["summary_only"]:
            if memory["memory_id"] == memory_id:
                memory["summary"] = body["summary"]
        return JSONResponse({"memory_id": memory_id, "summary": body["summary"]})

    def _failure(self) -> Response:
        assert self.fail_status is not None
        error = {
            "message": "Said by the service.",
            "type": "scripted_error",
            "param": self.fail_param,
            "code": None,
        }
        return JSONResponse({"error": error}, self.fail_status, headers={"x-request-id": REQUEST_ID})


@contextmanager
def serve(backend: ScriptedBackend) -> Iterator[ScriptedBackend]:
    """Run the server on a free port of this machine; `backend.url` is its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    backend.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(backend.app(), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="scripted-backend")
    thread.start()
    try:
        yield backend
    finally:
        backend.release.set()
        server.should_exit = True
        thread.join()
        listener.close()


def neighbors_of_november() -> list[dict[str, Any]]:
    """The turns before and after the replayed one of `some_history`, as the service adds them."""
    return [
        {
            "memory_id": f"m-{turn_id}",
            "conv_id": "november",
            "turn_id": turn_id,
            "ts": EARLIEST.isoformat(),
            "score": None,
            "neighbor_of": "m-1",
            "raw_user": said,
            "raw_assistant": "I see.",
        }
        for turn_id, said in ((2, "I had a rash."), (4, "And cashews, too."))
    ]


def some_history() -> dict[str, Any]:
    """A `retrieved` with one replayed exchange and one summary, both of another conversation."""
    return {
        "replay": [
            {
                "memory_id": "m-1",
                "conv_id": "november",
                "turn_id": 3,
                "ts": EARLIEST.isoformat(),
                "score": 0.8312,
                "neighbor_of": None,
                "raw_user": "I am allergic to peanuts.",
                "raw_assistant": "Noted: **no peanuts**.",
            }
        ],
        "summary_only": [
            {
                "memory_id": "m-2",
                "conv_id": "october",
                "turn_id": 1,
                "ts": (EARLIEST - timedelta(days=20)).isoformat(),
                "score": 0.6149,
                "summary": "Ada plans a trip to Kyoto.",
            }
        ],
    }


def _chunk(delta: dict[str, str], finish_reason: str | None = None, **extra: object) -> str:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1762175100,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}],
        **extra,
    }
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"

"""The scripted upstream itself: a thread with an event loop, its routes, its answers, whole or streamed."""

import asyncio
import math
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from tests.upstream import responders, wire
from tests.upstream.dialect import Dialect
from tests.upstream.http import Connection, HttpRequest
from tests.upstream.responders import ChatRequest, Reply
from tests.upstream.script import Fault, Kind, OpenCall, Script

Responder = Callable[[ChatRequest], Reply]


@dataclass
class ScriptedUpstream(Dialect, Script):
    """An OpenAI-compatible server under the test's control. What a responder raises comes out on exit."""

    port: int = 0
    responders: dict[Kind, Responder] = field(
        default_factory=lambda: {
            "gate": responders.gate_by_shared_words,
            "rerank": responders.rerank_by_shared_words,
            "summary": responders.summary_in_one_sentence,
            "answer": responders.answer_from_memory,
        }
    )

    def __post_init__(self) -> None:
        Script.__init__(self)
        self._released = asyncio.Event()
        self._connections: set[Connection] = set()
        self._errors: list[BaseException] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def root_url(self) -> str:
        """Without `/v1`: where `/tokenize` and `/health` are."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.root_url}/v1"

    @property
    def embedding_model(self) -> str:
        return self.embedding_models[0]

    def start(self) -> None:
        """Listens; after `stop`, on the same port. Raises `OSError` when the port is taken."""
        started = threading.Event()
        failure: list[OSError] = []

        def run() -> None:
            try:
                asyncio.run(self._serve(started))
            except OSError as error:
                failure.append(error)
            finally:
                started.set()

        self._thread = threading.Thread(target=run, name="scripted-upstream", daemon=True)
        self._thread.start()
        started.wait()
        if failure:
            self._thread.join()
            raise failure[0]

    def stop(self) -> None:
        """Closes the port and every connection, as a server that dies; no call counts as cancelled."""
        if self._loop is None or self._stopping is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._loop = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        if self._errors and error is None:
            raise self._errors[0]

    async def _serve(self, started: threading.Event) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._released, self._stopping = asyncio.Event(), asyncio.Event()
        server = await loop.create_server(
            lambda: Connection(self._handle, self._connections, self._errors),
            "127.0.0.1",
            self.port,
            backlog=1024,
        )
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopping.wait()
        server.close()
        for connection in tuple(self._connections):
            connection.abort()
        await server.wait_closed()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        await asyncio.gather(*others, return_exceptions=True)

    def release(self) -> None:
        """Lets every call that hangs now go on to its answer."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._release)

    def say(self, kind: Kind, text: str) -> None:
        """Answers every call of a kind with this text."""
        self.responders[kind] = lambda _: Reply(text)

    def _release(self) -> None:
        self._released.set()
        self._released = asyncio.Event()

    async def _handle(self, http: HttpRequest, connection: Connection) -> None:
        match http.method, http.path:
            case _, path if path in self.answers_at:
                return connection.send(200, wire.encode(self.answers_at[path]))
            case "POST", "/v1/embeddings":
                kind: Kind = "embed"
            case "POST", "/v1/chat/completions":
                kind = "answer"
            case "POST", "/v1/completions":
                kind = "completion"
            case "POST", "/tokenize" if self.tokenize:
                kind = "tokenize"
            case "POST", "/rerank" | "/v1/rerank" | "/v2/rerank":
                kind = "scores"
            case "GET", "/v1/models":
                kind = "models"
            case "GET", "/health":
                return connection.send(200, b"")
            case "GET", "/_calls":
                rows = [[call.kind, call.started, call.ended, call.cancelled] for call in self.calls]
                return connection.send(200, wire.encode(rows))
            case "DELETE", "/_calls":
                self.forget_calls()
                return connection.send(200, b"{}")
            case _:
                return connection.send(404, wire.encode({"detail": "Not Found"}))
        body = wire.decode(http.body) or {}
        if kind == "answer":
            kind = wire.chat_kind(body)
        with self.logged(kind, body if self.keep_bodies else {}, http, connection) as call:
            if call.fault.after_chunks is None or not body.get("stream"):
                await self._pause(call.fault.hang_s)
                if call.fault.close:
                    return connection.close()
            if call.fault.raw is not None:
                call.status = call.fault.status or 200
                return connection.send_raw(call.status, call.fault.raw, call.fault.raw_type, ends=call.fault.raw_ends)
            try:
                self.admit(http, call.fault)
                if kind == "embed":
                    answer = self.embeddings(body, call.fault)
                elif kind == "tokenize":
                    answer = self.tokenized(body)
                elif kind == "models":
                    answer = self.models()
                elif kind == "scores":
                    answer = self.scores(body)
                elif kind == "completion":
                    answer = self.completion(body)
                else:
                    self.check_chat(body)
                    return await self._chat(ChatRequest(kind, body, wire.messages(body)), call, connection)
            except wire.BadRequestError as error:
                call.status = error.status
                headers = {"retry-after": call.fault.retry_after} if call.fault.retry_after else {}
                return connection.send(error.status, wire.encode(wire.refusal(error, self.refusal_shape)), headers)
            call.status = 200
            if kind == "completion" and body.get("stream"):
                return await self._stream_completion(answer, call.fault, connection)
        # Logged as ended first: a quick client would otherwise look at the log before that is written.
        return self._send(connection, answer, call.fault)

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0:
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(self._released.wait(), None if math.isinf(seconds) else seconds)

    def _send(self, connection: Connection, answer: Mapping[str, Any], fault: Fault) -> None:
        body = wire.encode(answer) if fault.content is None else fault.content.encode()
        if fault.garbage:
            body = b"\xff\xfe\x00<html>\x80 not json"
        elif fault.malformed:
            body = body[: len(body) // 2]
        if fault.cut:
            connection.send_cut(body)
        else:
            connection.send(200, body)

    async def _chat(self, request: ChatRequest, call: OpenCall, connection: Connection) -> None:
        fault, reply = replace(call.fault, content=None), self.responders[call.call.kind](request)
        text = reply.content if call.fault.content is None else call.fault.content
        if fault.think is not None:
            text = f"<think>{fault.think}</think>{text}"
        reply = replace(
            reply,
            content=text,
            finish_reason=fault.finish_reason or reply.finish_reason,
            reasoning=fault.reasoning or reply.reasoning,
            reasoning_field=fault.reasoning_field if fault.reasoning else reply.reasoning_field,
        )
        usage = {**wire.usage(request.messages, f"{reply.reasoning or ''} {text}"), **reply.usage}
        head: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": self.answers_as,
            "system_fingerprint": self.fingerprint,
            **reply.answer,
        }
        call.status = 200
        if request.body.get("stream"):
            head["object"] = "chat.completion.chunk"
            wants_usage = (request.body.get("stream_options") or {}).get("include_usage", False)
            return await self._stream(request, head, reply, usage if wants_usage else None, fault, connection)
        message = {"role": "assistant", "content": text, **reply.message}
        if reply.reasoning is not None:
            message[reply.reasoning_field] = reply.reasoning
        logprobs = wire.logprobs(wire.pieces(text)) if request.body.get("logprobs") else None
        shared = {"message": message, "logprobs": logprobs, "finish_reason": reply.finish_reason, **reply.choice}
        choices = [{"index": index, **shared} for index in range(request.body.get("n") or 1)]
        answer = {**head, "object": "chat.completion", "usage": usage}
        answer["choices"] = [] if fault.empty_choices else choices
        return self._send(connection, answer, fault)

    async def _stream(
        self,
        request: ChatRequest,
        head: Mapping[str, Any],
        reply: Reply,
        usage: Mapping[str, int] | None,
        fault: Fault,
        connection: Connection,
    ) -> None:
        def event(delta: Mapping[str, Any], finish_reason: str | None = None) -> bytes:
            said = [delta["content"]] if request.body.get("logprobs") and delta.get("content") else None
            shared = {"delta": delta, "logprobs": wire.logprobs(said) if said else None, "finish_reason": finish_reason}
            more = reply.choice if finish_reason is not None else {}
            chunks = []
            for index in range(request.body.get("n") or 1):
                choices = [] if fault.empty_choices else [{"index": index, **shared, **more}]
                data = wire.encode({**head, "choices": choices})
                chunks.append(b"data: %b\n\n" % (data[: len(data) // 2] if fault.malformed else data))
            return b"\xff\xfe\x00<html>\x80 not an event\n\n" if fault.garbage else b"".join(chunks)

        connection.start_stream()
        connection.chunk(event({"role": "assistant", "content": ""}))
        deltas: list[Mapping[str, Any]] = []
        deltas += [{reply.reasoning_field: piece} for piece in wire.pieces(reply.reasoning or "")]
        deltas += [{"content": piece} for piece in wire.pieces(reply.content)]
        deltas += reply.deltas
        for index, delta in enumerate(deltas):
            if index == fault.after_chunks and await self._break_off(fault, connection):
                return
            if fault.chunk_delay_s:
                await asyncio.sleep(fault.chunk_delay_s)
            connection.chunk(event(delta))
        if fault.after_chunks is not None and fault.after_chunks >= len(deltas):
            raise ValueError(f"after_chunks={fault.after_chunks} but the answer has {len(deltas)} chunks")
        connection.chunk(event({}, reply.finish_reason))
        if usage is not None:
            connection.chunk(b"data: %b\n\n" % wire.encode({**head, "choices": [], "usage": usage}))
        connection.chunk(b"data: [DONE]\n\n")
        connection.end_stream()

    async def _stream_completion(self, answer: dict[str, Any], fault: Fault, connection: Connection) -> None:
        """Stream a completion of the old API: each chunk is a whole answer with a piece of the text."""
        connection.start_stream()
        [choice] = answer["choices"]
        for index, text in enumerate(wire.pieces(choice["text"])):
            if index == fault.after_chunks and await self._break_off(fault, connection):
                return
            said = [{**choice, "text": text, "finish_reason": None}]
            connection.chunk(b"data: %b\n\n" % wire.encode({**answer, "choices": said, "usage": None}))
        connection.chunk(b"data: %b\n\n" % wire.encode({**answer, "choices": [{**choice, "text": ""}]}))
        connection.chunk(b"data: [DONE]\n\n")
        connection.end_stream()

    async def _break_off(self, fault: Fault, connection: Connection) -> bool:
        await self._pause(fault.hang_s)
        if fault.error:
            failure = wire.error(wire.BadRequestError("scripted failure", 500))
            connection.chunk(b"data: %b\n\n" % wire.encode(failure))
            connection.end_stream()
        elif fault.close:
            connection.close()
        return fault.error or fault.close

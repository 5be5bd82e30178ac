"""The page's HTTP client of the service.

Reads are plain calls with short timeouts. A chat is an async generator of chunks: leaving it, or cancelling the task
that reads it, closes the connection at once, which tells the service that the person pressed Stop. (A blocking read
cannot be interrupted from another thread: closing a socket does not wake `recv`.) Nothing is retried: a second chat
request would be a second turn in the ledger, so that is the person's choice.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from frontend.backend_errors import (
    AnswerBrokenError,
    BackendError,
    BackendSilentError,
    BackendUnreachableError,
    UnreadableAnswerError,
    error_body,
    error_for_status,
    kind_of_event,
)
from frontend.knobs import KnobValue, answer_parameters, memory_metadata
from frontend.settings import FrontendSettings
from frontend.wire import (
    Chunk,
    ConversationInfo,
    ConversationList,
    MemoryGone,
    MemoryInfo,
    ModelInfo,
    ModelList,
    StoredTurn,
    TurnList,
)

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 15.0
# A small model on a laptop may take minutes before its first word; the page has a Stop button.
CHAT_SILENCE_TIMEOUT_S = 600.0
TURNS_SHOWN_MAX = 50

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True)
class ChatRequest:
    """One question: its user, conversation and text, the knobs by name (see `knobs`), and the browser's time zone."""

    user: str
    conversation_id: str
    text: str
    model: str
    knobs: Mapping[str, KnobValue] = field(hash=False)
    timezone: str | None = None

    def body(self) -> dict[str, object]:
        """The JSON of `POST /v1/chat/completions`, without history: the service has it in its ledger."""
        days = {"timezone": self.timezone} if self.timezone is not None else {}
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": self.text}],
            "user": self.user,
            "stream": True,
            "metadata": {"conversation_id": self.conversation_id, **days, **memory_metadata(self.knobs)},
            **answer_parameters(self.knobs),
        }


@dataclass(frozen=True)
class ChatPiece:
    """One chunk of an answer, and the request id from the response's header."""

    chunk: Chunk
    request_id: str | None


log = logging.getLogger(__name__)


class Backend:
    """The service at `settings.backend_url`. For any HTTP failure, its methods raise a `BackendError`."""

    def __init__(self, settings: FrontendSettings) -> None:
        self.address = settings.address
        self._root = settings.backend_url
        key = settings.backend_api_key
        self._headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if key else {}
        # Nothing that is sent from here is a task of the page's own, whatever a person writes.
        self._headers["X-OPM-Task"] = ""
        self._trust_env = not settings.is_loopback and _proxies_can_be_used()

    def model(self) -> ModelInfo | None:
        """The chat model the service answers with; None if it names none."""
        models = self._read("/v1/models", {}, ModelList).data
        return models[0] if models else None

    def conversations(self, user: str) -> tuple[ConversationInfo, ...]:
        """The user's conversations, newest first."""
        return self._read("/v1/conversations", {"user": user}, ConversationList).data

    def turns(self, user: str, conversation_id: str) -> tuple[StoredTurn, ...]:
        """The newest `TURNS_SHOWN_MAX` exchanges, oldest first; empty for a conversation that is new."""
        query = {"user": user, "conversation_id": conversation_id, "limit": str(TURNS_SHOWN_MAX)}
        return self._read("/v1/turns", query, TurnList).data

    def memory(self, user: str, memory_id: str) -> MemoryInfo:
        """One memory as it stands now."""
        return self._read(_memory_path(memory_id), {"user": user}, MemoryInfo)

    def forget(self, user: str, memory_id: str) -> None:
        """Withdraw a memory."""
        self._call("DELETE", _memory_path(memory_id), MemoryGone, query={"user": user})

    def edit(self, user: str, memory_id: str, summary: str) -> None:
        """Replace a memory's summary with the person's own."""
        self._call("PATCH", _memory_path(memory_id), MemoryInfo, body={"user": user, "summary": summary})

    async def chat(self, request: ChatRequest) -> AsyncGenerator[ChatPiece, None]:
        """Ask, and yield the answer as it streams in, up to `[DONE]`; raises `AnswerBrokenError` if cut short."""
        timeout = httpx2.Timeout(CHAT_SILENCE_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        request_id: str | None = None
        try:
            async with (
                httpx2.AsyncClient(
                    base_url=self._root, headers=self._headers, trust_env=self._trust_env, timeout=timeout
                ) as client,
                client.stream("POST", "/v1/chat/completions", json=request.body()) as response,
            ):
                request_id = response.headers.get("x-request-id")
                if response.status_code != httpx2.codes.OK:
                    raise error_for_status(response.status_code, await response.aread(), request_id)
                async with aclosing(_chunks(response, request_id)) as chunks:
                    async for chunk in chunks:
                        yield ChatPiece(chunk, request_id)
        except httpx2.HTTPError as error:
            raise _as_backend_error(error, request_id) from error

    def _read(self, path: str, query: Mapping[str, str], shape: type[Answer]) -> Answer:
        return self._call("GET", path, shape, query=query)

    def _call(
        self,
        method: str,
        path: str,
        shape: type[Answer],
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
    ) -> Answer:
        timeout = httpx2.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        try:
            with httpx2.Client(
                base_url=self._root, headers=self._headers, trust_env=self._trust_env, timeout=timeout
            ) as client:
                response = client.request(method, path, params=query, json=body)
        except httpx2.HTTPError as error:
            raise _as_backend_error(error, None) from error
        request_id = response.headers.get("x-request-id")
        if response.status_code != httpx2.codes.OK:
            raise error_for_status(response.status_code, response.content, request_id)
        try:
            return shape.model_validate_json(response.content)
        except ValidationError as error:
            raise UnreadableAnswerError(status=response.status_code, request_id=request_id) from error


def _proxies_can_be_used() -> bool:
    """Whether the proxies of the environment are of a kind that httpx2 knows; it makes a client of all or fails."""
    try:
        httpx2.Client().close()
    except (ValueError, ImportError):
        log.warning("a proxy of the environment, such as a SOCKS one, is not supported: the service is called directly")
        return False
    return True


def _memory_path(memory_id: str) -> str:
    return f"/v1/memories/{quote(memory_id, safe='')}"


async def _chunks(response: httpx2.Response, request_id: str | None) -> AsyncGenerator[Chunk, None]:
    """The chunks of a server-sent event stream with one `data:` line per event, as OpenAI writes it."""
    begun = finished = False
    async with aclosing(_lines(response)) as lines:
        async for line in lines:
            if not line.startswith(b"data:"):
                continue
            payload = line.removeprefix(b"data:").strip()
            if payload == b"[DONE]":
                return
            if (body := error_body(payload)) is not None:
                kind = AnswerBrokenError if begun else kind_of_event(body)
                raise kind(body.message, param=body.param, request_id=request_id)
            begun = True
            try:
                chunk = Chunk.model_validate_json(payload)
            except ValidationError as error:
                raise UnreadableAnswerError(status=response.status_code, request_id=request_id) from error
            finished = finished or chunk.finish_reason is not None
            yield chunk
    if not finished:
        raise AnswerBrokenError(request_id=request_id)


async def _lines(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    # Not `aiter_lines`, which also splits at U+2028 and the like; JSON strings may contain these unescaped.
    rest = b""
    async for block in response.aiter_bytes():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line
    yield rest


def _as_backend_error(error: httpx2.HTTPError, request_id: str | None) -> BackendError:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return BackendUnreachableError()
    if isinstance(error, httpx2.TimeoutException):
        return BackendSilentError(request_id=request_id)
    return AnswerBrokenError(request_id=request_id)

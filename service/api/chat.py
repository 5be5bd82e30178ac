"""``POST /v1/chat/completions`` and ``GET /v1/models``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import ValidationError

from domain.errors import InvalidInput
from domain.identity import check_id
from domain.retrieval import Candidate
from service.answers import Answering, Placed
from service.api.connection import FIRST_BYTES_S, ClientGone, EventStream, begun_while_connected, while_connected
from service.api.dependencies import AskerDep, OriginDep, ServicesDep, key_caller
from service.api.errors import body_of, log_error, service_stopped
from service.api.memory_fields import Scored, memory_status, retrieved, shown
from service.api.openai_types import ChatCompletionRequest
from service.api.responses import ChatCompletion, ModelList, TurnReference
from service.chat_answers import Delta
from service.knobs import Knobs
from service.turn import PassedOn, Started
from service.turn_recorder import Finished

router = APIRouter(prefix="/v1")

_CLIENT_CLOSED_REQUEST = 499
_LINE_ENDS = {char.encode(): f"\\u{ord(char):04x}".encode() for char in "\u0085\u2028\u2029"}

Beginning = Started | PassedOn


@router.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses={
        200: {
            "description": "The answer; with `stream` as server-sent events, one chunk each, then `[DONE]`.",
            "content": {"text/event-stream": {"schema": {"$ref": "#/components/schemas/ChatCompletionChunk"}}},
        }
    },
)
async def chat_completions(
    body: ChatCompletionRequest, request: Request, services: ServicesDep, asker: AskerDep, origin: OriginDep
) -> Response:
    """Answer with memory; stream when asked to."""
    persons = services.ledger.persons
    person = asker.person(body.user, (body.model_extra or {}).get("safety_identifier"))
    asked = body.as_turn(person.user_id, _knobs(body.metadata or {}), persons.has_conversation, origin, request.headers)
    if asked.conversation_id is None and person.conversation is not None:
        asked = replace(asked, conversation_id=check_id("user", person.conversation))
    if asker.caller.read_only and asked.memory != "off":
        asked = replace(asked, memory="read")
    turn = services.answers.begin(asked)
    try:
        headers = _headers(await _placed(turn))
        if not body.stream:
            answer = await while_connected(request, _whole_answer(turn))
            return Response(msgspec.json.encode(answer), media_type="application/json", headers=headers)
        # The status line waits a moment for the first sign of an answer, since an error before it has its own status.
        beginning = await begun_while_connected(request, _begin(turn), patience_s=FIRST_BYTES_S)
    except ClientGone:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)
    waits = not beginning.done()
    if not waits:
        beginning.result()
    events = _events(turn, beginning, request.state.request_id, include_usage=body.wants_usage)
    return EventStream(events, cut_off=_sse(service_stopped()), silent_at_first=waits, headers=headers)


@router.get("/models", dependencies=[Depends(key_caller)])
async def models(services: ServicesDep) -> ModelList:
    """List the one chat model that answers, with the knobs of a request that sets none."""
    return {
        "object": "list",
        "data": [
            {
                "id": services.settings.llm_model,
                "object": "model",
                "created": services.started_at,
                "owned_by": "openpersistentmemory",
                "max_model_len": services.turns.context.tokens if services.turns.context.known else None,
                "knobs": services.turns.effective(Knobs()),
            }
        ],
    }


def _knobs(metadata: dict[str, Any]) -> Knobs:
    own = {"conversation_id", "conv_id", "session_id", "memory", "task"}
    try:
        return Knobs.model_validate({key: value for key, value in metadata.items() if key not in own})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["metadata", *map(str, first["loc"])])
        value = first["input"] if first["loc"] else list(metadata)
        raise InvalidInput(field, value, str(first["msg"]).removeprefix("Value error, ")) from None


async def _placed(turn: Answering) -> Placed:
    first = await anext(turn)
    assert isinstance(first, Placed)
    return first


def _headers(placed: Placed) -> dict[str, str]:
    return {"x-opm-conversation-id": quote(placed.conversation_id)} if placed.conversation_id else {}


async def _begin(turn: Answering) -> Beginning:
    first = await anext(turn)
    assert isinstance(first, Started | PassedOn)
    return first


async def _whole_answer(turn: Answering) -> dict[str, Any]:
    try:
        started = await _begin(turn)
        text, reasoning = "", ""
        async for part in turn:
            if isinstance(part, Delta):
                text += part.text
                reasoning += part.reasoning
            elif isinstance(part, Finished):
                finished = part
    finally:
        await turn.aclose()
    message = {"role": "assistant", "content": text}
    if reasoning:
        message["reasoning_content"] = reasoning
    return {
        **_head(started, "chat.completion"),
        "choices": [{"index": 0, "message": message, "finish_reason": finished.finish_reason, "logprobs": None}],
        "usage": finished.usage.model_dump() if finished.usage is not None else None,
        **_memory_fields(started),
        "turn": _turn_field(finished),
    }


async def _events(
    turn: Answering, beginning: asyncio.Task[Beginning], request_id: str, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Render a turn as chunks. The one with the finish reason leaves only after the turn is on the disk."""
    try:
        started = await beginning
        head = _head(started, "chat.completion.chunk")
        yield _sse({**head, "choices": [_choice({"role": "assistant", "content": ""})], **_memory_fields(started)})
        async for part in turn:
            if isinstance(part, Delta):
                delta = {"content": part.text} if part.text else {}
                if part.reasoning:
                    delta["reasoning_content"] = part.reasoning
                if delta:
                    yield _sse({**head, "choices": [_choice(delta)]})
            elif isinstance(part, Finished):
                yield _sse({**head, "choices": [_choice({}, part.finish_reason)], "turn": _turn_field(part)})
                if include_usage and part.usage is not None:
                    yield _sse({**head, "choices": [], "usage": part.usage.model_dump()})
        yield b"data: [DONE]\n\n"
    except Exception as error:  # noqa: BLE001 - the outermost loop of a stream: logged, and told in OpenAI's shape
        log_error(error, request_id)
        yield _sse(body_of(error)[1])
    finally:
        await turn.aclose()


def _head(started: Beginning, kind: str) -> dict[str, Any]:
    return {
        "id": started.answer_id,
        "object": kind,
        "created": int(started.created.timestamp()),
        "model": started.model,
    }


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}


def _sse(value: object) -> bytes:
    line = msgspec.json.encode(value)
    # Many clients split a stream with `str.splitlines`, which also ends a line at these three.
    for char, escaped in _LINE_ENDS.items():
        line = line.replace(char, escaped)
    return b"data: " + line + b"\n\n"


def _turn_field(finished: Finished) -> TurnReference | None:
    if finished.turn is None or finished.memory_id is None:
        return None
    return {
        "conversation_id": finished.conversation_id,
        "turn_id": finished.turn.turn_id,
        "memory_id": finished.memory_id,
    }


def _memory_fields(started: Beginning) -> dict[str, Any]:
    if isinstance(started, PassedOn):
        return {}
    return {
        "retrieved": retrieved(map(_scored, started.replayed), map(_scored, started.summarised), started.neighbors),
        "memory_status": memory_status(
            started.retrieval,
            started.gate,
            started.rerank,
            shown(
                started.rerank,
                [candidate.memory.memory_id for candidate in started.replayed],
                [candidate.memory.memory_id for candidate in started.summarised],
                [*(neighbor.memory.memory_id for neighbor in started.neighbors), *started.window],
                started.prompt,
            ),
            started.notice,
        ),
    }


def _scored(candidate: Candidate) -> Scored:
    return candidate.memory, candidate.scores

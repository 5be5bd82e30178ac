"""``POST /v1/chat/completions``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ValidationError

from domain.errors import InvalidInput
from domain.events import JsonObject
from domain.origin import Origin
from domain.retrieval import Candidate
from service.answers import Answering, Placed
from service.api.access import Asker
from service.api.connection import (
    CLIENT_CLOSED_REQUEST,
    FIRST_BYTES_S,
    ClientGone,
    EventStream,
    as_event,
    begun_while_connected,
    while_connected,
)
from service.api.dependencies import AskerDep, OriginDep, ServicesDep
from service.api.errors import body_of, log_error, service_stopped
from service.api.memory_fields import Scored, memory_status, retrieved, shown
from service.api.openai_types import ChatCompletionRequest
from service.api.responses import ChatCompletion, TurnReference
from service.chat_answers import Delta, joined
from service.container import Services
from service.knobs import Knobs
from service.tool_calls import whole_calls
from service.turn import PassedOn, Started
from service.turn_recorder import Finished, TurnRequest

router = APIRouter(prefix="/v1")


Beginning = Started | PassedOn
_OWN_FIELDS = {"retrieved", "memory_status", "turn"}
_INSTEAD_OF_TEXT = {"tool_calls", "function_call", "refusal", "audio"}
"""What an answer without a text consists of; then its content is null."""


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
    turn = services.answers.begin(await turn_request(body, request, services, asker, origin))
    try:
        headers = headers_of(await placed(turn))
        if not body.stream:
            answer = await while_connected(request, _whole_answer(turn))
            return Response(msgspec.json.encode(answer), media_type="application/json", headers=headers)
        # The status line waits a moment for the first sign of an answer, since an error before it has its own status.
        beginning = await begun_while_connected(request, begin(turn), patience_s=FIRST_BYTES_S)
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    waits = not beginning.done()
    if not waits:
        beginning.result()
    events = _events(turn, beginning, request.state.request_id, include_usage=body.wants_usage)
    return EventStream(events, cut_off=lambda: as_event(service_stopped()), silent_at_first=waits, headers=headers)


def _knobs(metadata: dict[str, Any]) -> Knobs:
    own = {"conversation_id", "conv_id", "session_id", "memory", "task"}
    try:
        return Knobs.model_validate({key: value for key, value in metadata.items() if key not in own})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["metadata", *map(str, first["loc"])])
        value = first["input"] if first["loc"] else list(metadata)
        raise InvalidInput(field, value, str(first["msg"]).removeprefix("Value error, ")) from None


async def turn_request(
    body: ChatCompletionRequest, request: Request, services: Services, asker: Asker, origin: Origin
) -> TurnRequest:
    """Return the request of a turn, for the person and the conversation that it is of."""
    person = asker.person(body.user, (body.model_extra or {}).get("safety_identifier"))
    asked = body.as_turn(
        person.user_id,
        _knobs(body.metadata or {}),
        services.ledger.persons.has_conversation,
        origin,
        request.headers,
        person.conversation,
    )
    return replace(asked, memory="read") if asker.caller.read_only and asked.memory != "off" else asked


async def placed(turn: Answering) -> Placed:
    """Return where a turn is answered, the first that it says."""
    first = await anext(turn)
    assert isinstance(first, Placed)
    return first


def headers_of(placed: Placed) -> dict[str, str]:
    """Return the headers of an answer."""
    return {"x-opm-conversation-id": quote(placed.conversation_id)} if placed.conversation_id else {}


async def begin(turn: Answering) -> Beginning:
    """Return the beginning of a turn's answer, once the model begins to say something."""
    first = await anext(turn)
    assert isinstance(first, Started | PassedOn)
    return first


async def _whole_answer(turn: Answering) -> dict[str, Any]:
    try:
        started = await begin(turn)
        said: list[Delta] = []
        async for part in turn:
            if isinstance(part, Delta):
                said.append(part)
            elif isinstance(part, Finished):
                finished = part
    finally:
        await turn.aclose()
    first, *others = joined(said)
    return {
        **_foreign(first),
        **_head(started, "chat.completion"),
        **_answered_with(first),
        "choices": [_whole_choice(choice) for choice in (first, *others)],
        "usage": first.spent,
        **memory_fields(started),
        "turn": turn_field(finished),
    }


async def _events(
    turn: Answering, beginning: asyncio.Task[Beginning], request_id: str, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """Render a turn as chunks. Those with a finish reason leave only after the turn is on the disk."""
    try:
        started = await beginning
        head = _head(started, "chat.completion.chunk")
        yield as_event({**head, "choices": [_beginning(0)], **memory_fields(started)})
        begun = {0}
        waiting: JsonObject = {}
        ends: dict[int, Delta] = {}
        usage: JsonObject | None = None
        async for part in turn:
            if isinstance(part, Delta):
                head |= _answered_with(part)
                waiting |= _foreign(part)
                usage = part.spent or usage
                if part.finish_reason is not None:
                    ends[part.index] = part
                if part.says or part.logprobs is not None or (part.choice and part.finish_reason is None):
                    if part.index not in begun:
                        # A chunk of its own, as OpenAI sends it: openai-python takes what else it held twice.
                        begun.add(part.index)
                        yield as_event({**head, "choices": [_beginning(part.index)]})
                    yield as_event({**waiting, **head, "choices": [_choice(part)]})
                    waiting = {}
            elif isinstance(part, Finished):
                own: JsonObject = {"turn": turn_field(part)}
                for index in sorted(ends):
                    yield as_event({**waiting, **head, "choices": [_end(ends[index])], **own})
                    waiting, own = {}, {}
                if include_usage and usage is not None:
                    yield as_event({**head, "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"
    except Exception as error:  # noqa: BLE001 - the outermost loop of a stream: logged, and told in OpenAI's shape
        log_error(error, request_id)
        yield as_event(body_of(error)[1])
    finally:
        await turn.aclose()


def _head(started: Beginning, kind: str) -> dict[str, Any]:
    return {
        "id": started.answer_id,
        "object": kind,
        "created": int(started.created.timestamp()),
        "model": started.model,
    }


def _answered_with(said: Delta) -> JsonObject:
    """Return what the endpoint tells of itself; from then on each chunk says it."""
    tier = {"service_tier": said.answer["service_tier"]} if "service_tier" in said.answer else {}
    return {**tier, "system_fingerprint": said.fingerprint} if said.fingerprint is not None else tier


def _foreign(said: Delta) -> JsonObject:
    """Return the endpoint's own fields of an answer, as far as they are no names of ours."""
    return {name: value for name, value in said.answer.items() if name not in _OWN_FIELDS}


def _said(piece: Delta) -> JsonObject:
    """Return what a piece of an answer says, as the delta of a chunk."""
    delta: JsonObject = {"content": piece.text} if piece.text else {}
    if piece.reasoning:
        delta["reasoning_content"] = piece.reasoning
    if piece.tool_calls:
        delta["tool_calls"] = piece.tool_calls
    return {**piece.more, **delta}


def _whole_choice(said: Delta) -> JsonObject:
    message = {**_said(said), "role": "assistant"}
    if said.tool_calls:
        message["tool_calls"] = whole_calls(said.tool_calls)
    if not said.text:
        message["content"] = None if message.keys() & _INSTEAD_OF_TEXT else ""
    return {
        **said.choice,
        "index": said.index,
        "message": message,
        "finish_reason": said.finish_reason,
        "logprobs": said.logprobs,
    }


def _beginning(index: int) -> JsonObject:
    """Return the choice of the first chunk of a choice."""
    delta = {"role": "assistant", "content": ""}
    return {"index": index, "delta": delta, "finish_reason": None, "logprobs": None}


def _choice(piece: Delta) -> JsonObject:
    """Return the choice of a chunk that carries a piece of it, and never its end."""
    more = piece.choice if piece.finish_reason is None else {}
    return {**more, "index": piece.index, "delta": _said(piece), "finish_reason": None, "logprobs": piece.logprobs}


def _end(piece: Delta) -> JsonObject:
    """Return the choice of the chunk that ends it."""
    return {
        **piece.choice,
        "index": piece.index,
        "delta": {},
        "finish_reason": piece.finish_reason,
        "logprobs": None,
    }


def turn_field(finished: Finished) -> TurnReference | None:
    """Return where the ledger holds a turn, None where it holds none."""
    if finished.turn is None or finished.memory_id is None:
        return None
    return {
        "conversation_id": finished.conversation_id,
        "turn_id": finished.turn.turn_id,
        "memory_id": finished.memory_id,
    }


def memory_fields(started: Beginning) -> dict[str, Any]:
    """Return what an answer says of memory."""
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

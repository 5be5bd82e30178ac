"""``/v1/responses``: OpenAI's Responses API, answered by the same turn as a chat completion."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from domain.errors import InvalidInput
from domain.events import JsonObject
from domain.origin import Origin
from service.answers import Answering
from service.api import chat
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
from service.api.responses import DeletedResponse, InputItems, ResponseAnswer, ResponseTurn
from service.chat_answers import Delta
from service.container import Services
from service.responses_api.events import ResponseEvents, objects
from service.responses_api.frame import frame
from service.responses_api.request import Earlier, ResponsesRequest, Translated, named_as_sent, translated
from service.responses_api.stored import StoredResponse, StoredResponses
from service.turn_recorder import Finished, TurnRequest

log = logging.getLogger(__name__)

router = APIRouter(prefix="/v1")

LEFT_OUT = "x-opm-tools-left-out"
"""Names the types of tools that a request offered and that cannot be had."""


@router.post(
    "/responses",
    response_model=ResponseAnswer,
    responses={
        200: {
            "description": "The response; with `stream` as server-sent events, each named after its type.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def create(
    body: ResponsesRequest, request: Request, services: ServicesDep, asker: AskerDep, origin: OriginDep
) -> Response:
    """Answer with memory; stream when asked to."""
    asked, meant = await _asked(body, request, services, asker, origin)
    headers = {LEFT_OUT: ", ".join(meant.tools.left_out)} if meant.tools.left_out else {}
    turn = services.answers.begin(asked)
    telling = _Telling(body, meant, is_kept=asked.memory in {"on", "write"})
    try:
        headers |= chat.headers_of(await chat.placed(turn))
        if not body.stream:
            answer = await while_connected(request, telling.whole(turn))
            return _json(answer, headers)
        beginning = await begun_while_connected(request, chat.begin(turn), patience_s=FIRST_BYTES_S)
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    waits = not beginning.done()
    if not waits:
        beginning.result()
    events = telling.events(turn, beginning, request.state.request_id)
    return EventStream(events, cut_off=telling.cut_off, silent_at_first=waits, headers=headers)


@router.get("/responses/{response_id}", response_model=ResponseAnswer)
async def read(
    services: ServicesDep,
    request: Request,
    asker: AskerDep,
    response_id: str,
    user: str | None = None,
    stream: bool = False,
) -> Response:
    """Give a response back."""
    if stream:
        raise InvalidInput("stream", stream, "a response that is kept is given back whole: leave it out")
    found = await _found(services, request, asker, response_id, user)
    turn: ResponseTurn = {"conversation_id": found.event.conversation_id, "memory_id": found.memory_id}
    return _json({**found.response, "turn": turn})


@router.delete("/responses/{response_id}")
async def delete(
    services: ServicesDep,
    request: Request,
    asker: AskerDep,
    origin: OriginDep,
    response_id: str,
    user: str | None = None,
) -> DeletedResponse:
    """Delete a response; the memory that it is, is forgotten."""
    found = await _found(services, request, asker, response_id, user)
    await asyncio.to_thread(StoredResponses(services.ledger, found.event.user_id).delete, found, origin)
    return {"id": response_id, "object": "response", "deleted": True}


@router.get("/responses/{response_id}/input_items", response_model=InputItems)
async def input_items(
    services: ServicesDep,
    request: Request,
    asker: AskerDep,
    response_id: str,
    user: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: str | None = None,
) -> Response:
    """List what the model was shown of the client's own, the newest first unless asked otherwise."""
    found = await _found(services, request, asker, response_id, user)
    items = found.input_items if order == "asc" else found.input_items[::-1]
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise InvalidInput("after", after, "name an item of this list")
    first = ids.index(after) + 1 if after is not None else 0
    page = items[first : first + limit]
    return _json(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else "",
            "last_id": page[-1]["id"] if page else "",
            "has_more": first + limit < len(items),
        }
    )


async def _asked(
    body: ResponsesRequest, request: Request, services: Services, asker: Asker, origin: Origin
) -> tuple[TurnRequest, Translated]:
    """Return the request of a turn, and how it was translated."""
    stored = StoredResponses(services.ledger, asker.person(body.user, body.safety_identifier).user_id)
    earlier: Earlier | None = None
    if body.previous_response_id:
        earlier = await asyncio.to_thread(stored.earlier, body.previous_response_id)
    referred: Mapping[str, Sequence[JsonObject]] = {}
    if body.referred_ids:
        referred = await asyncio.to_thread(stored.referred, body.referred_ids)
    meant = translated(body, earlier, referred.get)
    if meant.tools.left_out:
        log.info("request %s: tools left out: %s", request.state.request_id, ", ".join(meant.tools.left_out))
    try:
        asked = await chat.turn_request(meant.body, request, services, asker, origin)
    except InvalidInput as error:
        raise named_as_sent(error, meant.fields) from None
    return replace(asked, response=meant.repeated, previous=earlier.turn_id if earlier is not None else None), meant


class _Telling:
    """Tells a turn as a response, whole or as it comes."""

    def __init__(self, body: ResponsesRequest, meant: Translated, *, is_kept: bool) -> None:
        self._meant = meant
        self._is_kept = is_kept
        self._instructions = body.instructions
        self._events = ResponseEvents(meant.tools.custom)

    async def whole(self, turn: Answering) -> JsonObject:
        """Return the response of a turn that has come to its end."""
        try:
            started = await chat.begin(turn)
            self._begun(started)
            own = chat.memory_fields(started)
            async for part in turn:
                if isinstance(part, Delta):
                    self._said(part)
                elif isinstance(part, Finished):
                    self._finished(part)
                    own["turn"] = chat.turn_field(part)
        finally:
            await turn.aclose()
        return {**self._events.response, **own}

    async def events(
        self, turn: Answering, beginning: asyncio.Task[chat.Beginning], request_id: str
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events of a turn. The last items are done, and the response, only after the turn is on the disk."""
        try:
            started = await beginning
            own = chat.memory_fields(started)
            for event in self._begun(started):
                yield _sse(_with(event, own))
            async for part in turn:
                if isinstance(part, Delta):
                    for event in self._said(part):
                        yield _sse(event)
                elif isinstance(part, Finished):
                    own["turn"] = chat.turn_field(part)
                    for event in self._finished(part):
                        yield _sse(_with(event, own))
        except Exception as error:  # noqa: BLE001 - the outermost loop of a stream: logged, and told in OpenAI's shape
            log_error(error, request_id)
            status, body, _ = body_of(error)
            for event in self._events.failed(status, body["error"]):
                yield _sse(event)
        finally:
            await turn.aclose()

    def cut_off(self) -> bytes:
        """Return what a client is told whose stream the end of the service cuts off."""
        return b"".join(map(_sse, self._events.failed(503, service_stopped()["error"])))

    def _begun(self, started: chat.Beginning) -> list[JsonObject]:
        made = frame(
            started.answer_id,
            int(started.created.timestamp()),
            started.model,
            self._meant.repeated,
            instructions=self._instructions,
            tools=self._meant.tools.body.get("tools", ()),
        )
        return self._events.begun({**made, "store": self._is_kept})

    def _said(self, piece: Delta) -> list[JsonObject]:
        if piece.index != 0:
            return []  # a response is one answer
        refusal = piece.more.get("refusal")
        return self._events.said(
            reasoning=piece.reasoning,
            text=piece.text,
            refusal=refusal if isinstance(refusal, str) else "",
            annotations=objects(piece.more.get("annotations")),
            logprobs=objects((piece.logprobs or {}).get("content")),
            calls=piece.tool_calls,
        )

    def _finished(self, finished: Finished) -> list[JsonObject]:
        return self._events.finished(finished.finish_reason, finished.usage, int(time.time()))


def _with(event: JsonObject, own: JsonObject) -> JsonObject:
    """Return an event with the service's own fields in its response, if it has one."""
    return {**event, "response": {**event["response"], **own}} if "response" in event else event


def _json(answer: object, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json", headers=headers)


def _sse(event: JsonObject) -> bytes:
    return f"event: {event['type']}\n".encode() + as_event(event)


async def _found(
    services: Services, request: Request, asker: Asker, response_id: str, user: str | None
) -> StoredResponse:
    """Return a response that the caller may see.

    Clients name no user where they ask for a response by its id. Nobody guesses such an id, so that a key which may
    speak for any user needs no more.
    """
    stored = StoredResponses(services.ledger, asker.named(user))
    found = await asyncio.to_thread(stored.find, response_id)
    request.state.user_id = found.event.user_id
    return found

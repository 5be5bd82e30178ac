"""``POST /v1/embeddings`` and the old ``POST /v1/completions``: sent on as they are, without memory, unrecorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from service.api.connection import (
    CLIENT_CLOSED_REQUEST,
    FIRST_BYTES_S,
    ClientGone,
    EventStream,
    as_event,
    begun_while_connected,
    event_of,
    while_connected,
)
from service.api.dependencies import ServicesDep, key_caller
from service.api.errors import body_of, log_error, service_stopped
from service.api.responses import CompletionAnswer, EmbeddingAnswer
from service.passthrough import DONE

router = APIRouter(prefix="/v1", dependencies=[Depends(key_caller)])


@router.post("/embeddings", response_model=EmbeddingAnswer)
async def embeddings(body: dict[str, Any], request: Request, services: ServicesDep) -> Response:
    """Embed texts with `EMB_MODEL`, or with the model that the request names."""
    try:
        answer = await while_connected(request, services.passthrough.embeddings(body))
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    return Response(answer, media_type="application/json")


@router.post("/completions", response_model=CompletionAnswer)
async def completions(body: dict[str, Any], request: Request, services: ServicesDep) -> Response:
    """Complete a text with the chat model, as the older API did; stream when asked to."""
    try:
        if not body.get("stream"):
            answer = await while_connected(request, services.passthrough.completion(body))
            return Response(answer, media_type="application/json")
        events = services.passthrough.completion_events(body)
        beginning = await begun_while_connected(request, _first(events), patience_s=FIRST_BYTES_S)
    except ClientGone:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    waits = not beginning.done()
    if not waits:
        beginning.result()
    told = _told(beginning, events, request.state.request_id)
    return EventStream(told, cut_off=lambda: as_event(service_stopped()), silent_at_first=waits)


async def _first(events: AsyncGenerator[bytes]) -> bytes:
    return await anext(events)


async def _told(
    beginning: asyncio.Task[bytes], events: AsyncGenerator[bytes], request_id: str
) -> AsyncGenerator[bytes, None]:
    """Yield the events, and as the last one the error that ends them, if one does."""
    try:
        data = await beginning
        yield event_of(data)
        while data != DONE:
            data = await anext(events)
            yield event_of(data)
    except Exception as error:  # noqa: BLE001 - the outermost loop of a stream: logged, and told in OpenAI's shape
        log_error(error, request_id)
        yield as_event(body_of(error)[1])
    finally:
        await events.aclose()

"""What a chat page needs to show a person their conversations again."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from domain.history_reader import AnswerMemory
from domain.identity import DEFAULT_CONVERSATION, StreamId, check_id
from service.api.access import user_of
from service.api.memory_fields import memory_status, retrieved, timestamp

router = APIRouter(prefix="/v1")

_TITLE_CHARS = 80


@router.get("/conversations")
async def conversations(
    request: Request,
    user: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """List a user's conversations, the one used last first."""
    history = request.app.state.services.ledger.history
    found = await asyncio.to_thread(history.conversations, user_of(request, user), limit)
    data = [
        {
            "conversation_id": conversation.conversation_id,
            "turns": conversation.turns,
            "last_ts": timestamp(conversation.last_ts),
            "title": " ".join(conversation.title.split())[:_TITLE_CHARS],
        }
        for conversation in found
    ]
    return {"object": "list", "data": data}


@router.get("/turns")
async def turns(
    request: Request,
    user: str | None = None,
    conversation_id: str = DEFAULT_CONVERSATION,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before_turn: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> dict[str, Any]:
    """List the newest turns of a conversation, oldest first, each with the memories it was given and how they came."""
    stream = StreamId(user_of(request, user), check_id("conversation_id", conversation_id))
    ledger = request.app.state.services.ledger
    found = await asyncio.to_thread(ledger.reader.recent_turns, stream, limit, before_turn)
    positions = [turn.position for turn in found]
    given = await asyncio.to_thread(ledger.history.answered_with, stream.user_id, positions)
    data = [
        {
            "turn_id": turn.turn_id,
            "memory_id": turn.memory_id,
            "ts": timestamp(turn.ts),
            "user": turn.user,
            "assistant": turn.assistant,
            "finish_reason": turn.finish_reason,
            "summary": turn.summary,
            **_memory_fields(given.get(turn.position)),
        }
        for turn in found
    ]
    return {"object": "list", "data": data}


def _memory_fields(given: AnswerMemory | None) -> dict[str, Any]:
    if given is None:  # nothing but an import writes a turn without its decisions beside it
        return {"retrieved": retrieved((), ()), "memory_status": None}
    return {
        "retrieved": retrieved(given.replayed, given.summarised, given.neighbors),
        "memory_status": memory_status(given.retrieval, given.gate, given.rerank),
    }

"""What a chat page needs to show a person their conversations again."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from domain.identity import DEFAULT_CONVERSATION, StreamId, check_id
from domain.reader import MemoriesUsed
from service.api.access import user_of
from service.api.memory_fields import retrieved, timestamp

router = APIRouter(prefix="/v1")

_TITLE_CHARS = 80


@router.get("/conversations")
async def conversations(
    request: Request,
    user: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """List a user's conversations, the one used last first."""
    reader = request.app.state.house.ledger.reader
    found = await asyncio.to_thread(reader.conversations, user_of(request, user), limit)
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
    """List the newest turns of a conversation, oldest first, each with the memories it was answered with."""
    stream = StreamId(user_of(request, user), check_id("conversation_id", conversation_id))
    reader = request.app.state.house.ledger.reader
    found = await asyncio.to_thread(reader.recent_turns, stream, limit, before_turn)
    used = await asyncio.to_thread(reader.memories_used, stream.user_id, [turn.position for turn in found])
    data = [
        {
            "turn_id": turn.turn_id,
            "memory_id": turn.memory_id,
            "ts": timestamp(turn.ts),
            "user": turn.user,
            "assistant": turn.assistant,
            "finish_reason": turn.finish_reason,
            "summary": turn.summary,
            "retrieved": _retrieved(used.get(turn.position)),
        }
        for turn in found
    ]
    return {"object": "list", "data": data}


def _retrieved(used: MemoriesUsed | None) -> dict[str, Any]:
    # Nothing but an import writes a turn without a retrieval beside it.
    return retrieved(used.replayed, used.summarised, used.neighbours) if used is not None else retrieved((), ())

"""A person's conversations and their turns, as a chat page lists them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query

from domain.history_reader import AnswerMemory
from domain.identity import DEFAULT_CONVERSATION, StreamId, check_id
from domain.memory import Memory
from service.api.dependencies import ServicesDep, UserDep
from service.api.memory_fields import memory_status, retrieved, shown, timestamp
from service.api.responses import ConversationList, MemoryStatus, Turn, TurnList

router = APIRouter(prefix="/v1")

_TITLE_CHARS = 80


@router.get("/conversations")
async def conversations(
    services: ServicesDep,
    user_id: UserDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> ConversationList:
    """List a user's conversations, the one used last first."""
    found = await asyncio.to_thread(services.ledger.history.conversations, user_id, limit)
    return {
        "object": "list",
        "data": [
            {
                "conversation_id": conversation.conversation_id,
                "turns": conversation.turns,
                "last_ts": timestamp(conversation.last_ts),
                "title": " ".join(conversation.title.split())[:_TITLE_CHARS],
            }
            for conversation in found
        ],
    }


@router.get("/turns")
async def turns(
    services: ServicesDep,
    user_id: UserDep,
    conversation_id: str = DEFAULT_CONVERSATION,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before_turn: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> TurnList:
    """List the newest turns of a conversation, oldest first, with the memories each was answered from."""
    ledger = services.ledger

    def kept(spelling: str) -> bool:
        return ledger.persons.has_conversation(StreamId(user_id, spelling))

    stream = StreamId(user_id, check_id("conversation_id", conversation_id, kept))
    found = await asyncio.to_thread(ledger.reader.recent_turns, stream, limit, before_turn)
    positions = [turn.position for turn in found]
    answered = await asyncio.to_thread(ledger.history.answered_with, user_id, positions)
    return {"object": "list", "data": [_shown(turn, answered.get(turn.position)) for turn in found]}


def _shown(turn: Memory, given: AnswerMemory | None) -> Turn:
    # An imported turn has no decisions beside it.
    return {
        "turn_id": turn.turn_id,
        "memory_id": turn.memory_id,
        "ts": timestamp(turn.ts),
        "user": turn.user,
        "assistant": turn.assistant,
        "finish_reason": turn.finish_reason,
        "summary": turn.summary,
        "retrieved": retrieved(given.replayed, given.summarised, given.neighbors)
        if given is not None
        else retrieved((), ()),
        "memory_status": _status(given) if given is not None else None,
    }


def _status(given: AnswerMemory) -> MemoryStatus:
    turn = given.turn
    shown_then = shown(given.rerank, turn.replayed, turn.summarised, [*turn.neighbours, *turn.window], turn.prompt)
    return memory_status(given.retrieval, given.gate, given.rerank, shown_then)

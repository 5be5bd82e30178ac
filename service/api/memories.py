"""What a person sees and does of their own memory: list it, correct it, withdraw it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict

from domain.errors import UnknownMemory
from domain.memory import Memory
from domain.person_reader import PersonReader
from domain.statements import LATEST
from service.api.access import user_of
from service.api.memory_fields import timestamp
from service.memory_commands import MemoryCommands

router = APIRouter(prefix="/v1")


class Correction(BaseModel):
    """The body of a correction."""

    model_config = ConfigDict(extra="forbid")

    user: str | None = None
    summary: str


@router.get("/memories")
async def memories(
    request: Request,
    user: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: str | None = None,
) -> dict[str, Any]:
    """List a user's memories, newest first; ``before`` is the id of the last one of the page in front of this."""
    reader = request.app.state.services.ledger.persons
    found, has_more = await asyncio.to_thread(_page, reader, user_of(request, user), limit, before)
    return {"object": "list", "data": [_shown(memory) for memory in found], "has_more": has_more}


@router.get("/memories/{memory_id}")
async def memory(request: Request, memory_id: str, user: str | None = None) -> dict[str, Any]:
    """Show one memory."""
    persons = request.app.state.services.ledger.persons
    found = await asyncio.to_thread(persons.memory, user_of(request, user), memory_id)
    if found is None:
        raise UnknownMemory(memory_id)
    return _shown(found)


@router.patch("/memories/{memory_id}")
async def edit(request: Request, memory_id: str, correction: Correction) -> dict[str, Any]:
    """Put a person's own summary in the place of a memory's."""
    ledger = request.app.state.services.ledger
    user_id = user_of(request, correction.user)
    changed = await asyncio.to_thread(MemoryCommands(ledger).edit, user_id, memory_id, correction.summary)
    found = await asyncio.to_thread(ledger.persons.memory, user_id, memory_id)
    if found is None:  # forgotten or erased in between
        raise UnknownMemory(memory_id)
    return {**_shown(found), "changed": changed}


@router.delete("/memories/{memory_id}")
async def forget(
    request: Request, memory_id: str, user: str | None = None, reason: str | None = None
) -> dict[str, Any]:
    """Withdraw a memory from every search, window and list; ``changed`` is false where it already was."""
    user_id = user_of(request, user)
    changed = await asyncio.to_thread(
        MemoryCommands(request.app.state.services.ledger).forget, user_id, memory_id, reason
    )
    return {"object": "memory.deleted", "memory_id": memory_id, "deleted": True, "changed": changed}


def _page(reader: PersonReader, user_id: str, limit: int, before: str | None) -> tuple[list[Memory], bool]:
    position = LATEST
    if before is not None:
        place = reader.place_of(user_id, before)
        if place is None:
            raise UnknownMemory(before)
        position = place.position
    found = reader.memories_before(user_id, position, limit + 1)
    return found[:limit], len(found) > limit


def _shown(memory: Memory) -> dict[str, Any]:
    return {
        "object": "memory",
        "memory_id": memory.memory_id,
        "conversation_id": memory.conversation_id,
        "turn_id": memory.turn_id,
        "ts": timestamp(memory.ts),
        "user": memory.user,
        "assistant": memory.assistant,
        "summary": memory.summary,
        "edited": memory.edited,
    }

"""A person's own memories: list them, correct one, withdraw one, take that back."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from domain import memory
from domain.errors import UnknownMemory
from domain.person_reader import PersonReader
from domain.statements import LATEST
from service.api.dependencies import AskerDep, OriginDep, ServicesDep, UserDep
from service.api.memory_fields import timestamp
from service.api.openai_types import Named
from service.api.responses import EditedMemory, ForgottenMemory, Memory, MemoryList, RestoredMemory
from service.memory_commands import MemoryCommands

router = APIRouter(prefix="/v1")


class Correction(BaseModel):
    """The body of a correction."""

    model_config = ConfigDict(extra="forbid")

    user: Named = None
    summary: str


@router.get("/memories")
async def memories(
    services: ServicesDep,
    user_id: UserDep,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: str | None = None,
) -> MemoryList:
    """List a user's memories, newest first; ``before`` is the id of the last memory on the previous page."""
    found, has_more = await asyncio.to_thread(_page, services.ledger.persons, user_id, limit, before)
    return {"object": "list", "data": [_shown(each) for each in found], "has_more": has_more}


@router.get("/memories/{memory_id}")
async def read(services: ServicesDep, user_id: UserDep, memory_id: str) -> Memory:
    """Show one memory."""
    found = await asyncio.to_thread(services.ledger.persons.memory, user_id, memory_id)
    if found is None:
        raise UnknownMemory(memory_id)
    return _shown(found)


@router.patch("/memories/{memory_id}")
async def edit(
    services: ServicesDep, asker: AskerDep, origin: OriginDep, memory_id: str, correction: Correction
) -> EditedMemory:
    """Put a person's own summary in the place of a memory's."""
    ledger = services.ledger
    user_id = asker.user(correction.user)
    changed = await asyncio.to_thread(MemoryCommands(ledger, origin).edit, user_id, memory_id, correction.summary)
    found = await asyncio.to_thread(ledger.persons.memory, user_id, memory_id)
    if found is None:  # hidden or erased in between
        raise UnknownMemory(memory_id)
    return {**_shown(found), "changed": changed}


@router.delete("/memories/{memory_id}")
async def forget(
    services: ServicesDep, user_id: UserDep, origin: OriginDep, memory_id: str, reason: str | None = None
) -> ForgottenMemory:
    """Withdraw a memory from every search, window and list; ``changed`` is false where it already was."""
    changed = await asyncio.to_thread(MemoryCommands(services.ledger, origin).forget, user_id, memory_id, reason)
    return {"object": "memory.deleted", "memory_id": memory_id, "deleted": True, "changed": changed}


@router.post("/memories/{memory_id}/restore")
async def restore(
    services: ServicesDep, user_id: UserDep, origin: OriginDep, memory_id: str, reason: str | None = None
) -> RestoredMemory:
    """Take back that a memory was withdrawn; ``changed`` is false where it was not."""
    ledger = services.ledger
    changed = await asyncio.to_thread(MemoryCommands(ledger, origin).restore, user_id, memory_id, reason)
    place = await asyncio.to_thread(ledger.persons.place_of, user_id, memory_id)
    if place is None:  # erased in between
        raise UnknownMemory(memory_id)
    return {
        "object": "memory.restored",
        "memory_id": memory_id,
        "restored": True,
        "changed": changed,
        "superseded": place.superseded,
    }


def _page(reader: PersonReader, user_id: str, limit: int, before: str | None) -> tuple[list[memory.Memory], bool]:
    position = LATEST
    if before is not None:
        place = reader.place_of(user_id, before)
        if place is None:
            raise UnknownMemory(before)
        position = place.position
    found = reader.memories_before(user_id, position, limit + 1)
    return found[:limit], len(found) > limit


def _shown(found: memory.Memory) -> Memory:
    return {
        "object": "memory",
        "memory_id": found.memory_id,
        "conversation_id": found.conversation_id,
        "turn_id": found.turn_id,
        "ts": timestamp(found.ts),
        "user": found.user,
        "assistant": found.assistant,
        "summary": found.summary,
        "edited": found.edited,
    }

"""Vectors at a position are what a service would have searched there, however one comes to that position."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

from domain.events import MemoryEdited, MemoryForgotten, NewEvent
from domain.identity import StreamId
from domain.ledger import Ledger
from projections.dense.user_index import DenseHit
from projections.embedding.endpoint import EmbeddingSpace
from projections.search.dense_as_of import DenseAsOf
from tests.projections.world import MODEL, World, many, opened, remember, settings_for
from tests.upstream import ScriptedUpstream

SPACE = EmbeddingSpace(MODEL, 64, "")
QUERY = "Entry 3 of the blue shelf"


def past_of(world: World, user: str = "ann") -> DenseAsOf:
    return DenseAsOf(world.ledger.reader, world.client, world.cache, SPACE, user, batch=8)


async def found_at(world: World, past: DenseAsOf, position: int) -> list[DenseHit]:
    await past.advance(position)
    return list((await past.search(QUERY, 7, timeout_s=5)).hits)


def change(ledger: Ledger, turn_position: int, summary: str | None) -> int:
    """Correct or withdraw a memory; return the position at which that happened."""
    memory_id = ledger.reader.events_after(turn_position - 1, 1)[0].event_id
    payload = (
        MemoryForgotten(memory_id=memory_id, turn_id=1)
        if summary is None
        else MemoryEdited(memory_id=memory_id, turn_id=1, summary=summary)
    )
    event = NewEvent(str(uuid4()), payload, None, memory_id)
    return ledger.append(StreamId("ann", "chat"), lambda _head: [event]).result()[0].position


async def test_at_the_head_it_is_what_the_service_searches(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        turns = remember(world.ledger, "ann", many(40))
        remember(world.ledger, "bob", many(5))
        change(world.ledger, turns[3], "Entry 3 stands on the blue shelf.")
        change(world.ledger, turns[5], None)
        await world.index.maintain("ann")
        served = await world.index.search("ann", QUERY, 7)
        head = world.ledger.reader.head_position()
        assert await found_at(world, past_of(world), head) == served.hits
        assert turns[3] == served.hits[0].turn_position


async def test_step_by_step_it_is_what_it_is_at_once(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        turns = remember(world.ledger, "ann", many(12))
        change(world.ledger, turns[3], "Entry 3 stands on the blue shelf.")
        change(world.ledger, turns[2], None)
        remember(world.ledger, "ann", many(4), summarised=False)
        change(world.ledger, turns[3], None)
        stepping = past_of(world)
        for position in range(0, world.ledger.reader.head_position() + 1, 3):
            assert await found_at(world, stepping, position) == await found_at(world, past_of(world), position)


async def test_an_edit_and_a_withdrawal_count_from_where_they_stand(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        [first, second] = remember(world.ledger, "ann", ["The shelf is red.", "Nothing of note."])
        edited = change(world.ledger, second, "Entry 3 stands on the blue shelf.")
        gone = change(world.ledger, second, None)
        past = past_of(world)
        before = await found_at(world, past, edited - 1)
        assert {hit.turn_position: hit.matched for hit in before}.keys() == {first, second}
        corrected = await found_at(world, past, edited)
        assert (corrected[0].turn_position, corrected[0].matched) == (second, "summary")
        assert [hit.turn_position for hit in await found_at(world, past, gone)] == [first]


async def test_only_what_the_cache_lacks_is_embedded(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", many(20))
        head = world.ledger.reader.head_position()
        first = past_of(world)
        await first.advance(head)
        assert first.embedded == 40
        calls = len(upstream.calls_of("embed"))
        again = past_of(world)
        await again.advance(head)
        assert again.embedded == 0
        assert len(upstream.calls_of("embed")) == calls

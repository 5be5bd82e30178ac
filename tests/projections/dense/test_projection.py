"""What was recorded is embedded once, in order, and the checkpoint says how far that is true."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from domain.errors import EmbeddingUnavailable
from projections.dense.projection import DenseProjection
from projections.rebuild.generation import rebuild
from tests.projections.world import FACTS, OTHER_MODEL, World, opened, remember, settings_for
from tests.upstream import Fault, ScriptedUpstream


async def follow(world: World) -> DenseProjection:
    follower = DenseProjection(world.ledger, world.index, world.cache)
    while await follower.advance():
        pass
    return follower


async def checkpoint(world: World) -> int:
    return world.cache.position(world.index.embedder(await world.index.space_of("ann")).space_id)


def texts_asked(upstream: ScriptedUpstream) -> list[str]:
    return [text for call in upstream.calls_of("embed") if call.status == 200 for text in call.body["input"]]


async def test_it_embeds_every_text_once_and_goes_on_where_it_was(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        await world.index.space_of("ann")
        upstream.forget_calls()
        remember(world.ledger, "ann", FACTS[:5])
        await follow(world)
        assert await checkpoint(world) == world.ledger.reader.head_position()
        assert len(texts_asked(upstream)) == 10
    async with opened(settings_for(storage, upstream)) as world:
        remember(world.ledger, "bob", FACTS[5:])
        await follow(world)
        assert await checkpoint(world) == world.ledger.reader.head_position()
    asked = texts_asked(upstream)
    assert len(asked) == len(set(asked)) == 16


async def test_a_failing_endpoint_holds_the_checkpoint(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        await world.index.space_of("ann")
        before = await checkpoint(world)
        remember(world.ledger, "ann", FACTS)
        upstream.fail("embed", Fault(), Fault(status=503))
        follower = DenseProjection(world.ledger, world.index, world.cache)
        with pytest.raises(EmbeddingUnavailable):
            await follower.advance()
        assert await checkpoint(world) == before
        assert await follower.advance()
        assert await checkpoint(world) == world.ledger.reader.head_position()
    asked = texts_asked(upstream)
    assert len(asked) == len(set(asked)), "what came before the failure was kept"


@pytest.mark.parametrize("status", [400, 402, 409, 423])
async def test_what_an_ailing_endpoint_refused_is_found_once_it_is_well(
    storage: Path, upstream: ScriptedUpstream, status: int
) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        await world.index.space_of("ann")
        (ferry,) = remember(world.ledger, "ann", FACTS[:1])
        upstream.fail_always("embed", Fault(status=status))
        follower = DenseProjection(world.ledger, world.index, world.cache)
        with pytest.raises(EmbeddingUnavailable):
            await follower.advance()
        upstream.heal()
        assert await follower.advance()
        assert [position for position, _ in await world.found("ann", "When does the ferry leave?")] == [ferry]


async def test_a_mismatch_is_said_once_and_held(
    storage: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        await world.index.space_of("ann")
    async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
        follower = DenseProjection(world.ledger, world.index, world.cache)
        for _ in range(3):
            remember(world.ledger, "ann", FACTS[:1])
            await follower.advance()
        assert "python -m projections.rebuild" in (follower.mismatch or "")
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert len(warnings) == 1
        await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=None)
        remember(world.ledger, "ann", FACTS[1:2])
        await follower.advance()
        assert follower.mismatch is None
        assert await checkpoint(world) == world.ledger.reader.head_position()


async def test_a_user_rebuilt_alone_is_served_while_the_others_wait(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        await world.index.space_of("ann")
        remember(world.ledger, "ann", FACTS[:3])
        remember(world.ledger, "bob", FACTS[:3])
    async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
        follower = DenseProjection(world.ledger, world.index, world.cache)
        await rebuild(world.ledger, world.client, world.cache, world.settings, user_id="ann")
        upstream.forget_calls()
        upstream.embedding_models = (OTHER_MODEL,)
        (new,) = remember(world.ledger, "ann", ["The night ferry is cheaper."])
        remember(world.ledger, "bob", ["Bob's diary."])
        await follower.advance()
        assert "emb-old" in (follower.mismatch or "")
        asked = texts_asked(upstream)
        assert asked
        assert not any("Bob" in text for text in asked)
        upstream.forget_calls()
        assert (await world.found("ann", "night ferry", 1))[0][0] == new
        assert len(texts_asked(upstream)) == 1, "the query alone: the memory was embedded in the background"

"""Memory is found at once, by its own user alone, and whatever can be thrown away may be thrown away."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import projections.dense.catch_up
from domain.errors import EmbeddingMisfit, EmbeddingUnavailable, IndexCatchingUp
from domain.events import EmbeddingModelActivated
from projections.dense.index_files import IndexFiles, Manifest
from projections.dense.index_store import IndexKey, IndexStore
from projections.dense.projection import DenseProjection
from projections.dense.user_index import UserIndex
from projections.embedding.active_model import ActiveModel
from projections.embedding.cache import Cached
from projections.embedding.endpoint import Vectors
from projections.erasure import erase_user
from projections.rebuild.generation import rebuild
from tests.ledgers import ROOT, until
from tests.projections.world import FACTS, OTHER_MODEL, World, many, opened, remember, settings_for
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

QUESTION = "When does the ferry leave?"
QUESTIONS = (QUESTION, "violin in Vienna", "Which paint is cobalt?", "entry 17 of shelf 3", "chess on Thursday")


async def follow(world: World) -> None:
    follower = DenseProjection(world.ledger, world.index, world.cache)
    while await follower.advance():
        pass


async def answers(world: World, user_id: str = "ann") -> list[list[tuple[int, float]]]:
    return [await world.found(user_id, question, 10) for question in QUESTIONS]


def batch_sizes(upstream: ScriptedUpstream) -> list[int]:
    return [len(call.body["input"]) for call in upstream.calls_of("embed")]


def kill_maintainer_after(steps: int, storage: Path, upstream: ScriptedUpstream) -> None:
    command = [sys.executable, "-m", "tests.projections.maintainer", str(storage), upstream.base_url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline().strip() for _ in range(steps)]
        process.kill()
    assert seen == (["embed"] * 13 + ["advance"] * 9)[:steps]


class TestFoundAtOnce:
    async def test_before_any_background_work_and_in_one_request(
        self, storage: Path, upstream: ScriptedUpstream
    ) -> None:
        async with opened(settings_for(storage, upstream)) as world:
            assert await world.found("ann", QUESTION) == []
            upstream.forget_calls()
            (ferry,) = remember(world.ledger, "ann", FACTS[:1], summarised=False)
            assert (await world.found("ann", QUESTION))[0][0] == ferry
            assert batch_sizes(upstream) == [2]
            await world.found("ann", QUESTION)
            assert batch_sizes(upstream) == [2, 1], "what was embedded with a query is kept"

    async def test_what_the_cache_has_is_not_embedded_again(self, storage: Path, upstream: ScriptedUpstream) -> None:
        async with opened(settings_for(storage, upstream)) as world:
            positions = remember(world.ledger, "ann", FACTS)
            await follow(world)
            expected = await answers(world)
        async with opened(settings_for(storage, upstream)) as world:
            upstream.forget_calls()
            assert await answers(world) == expected
            assert batch_sizes(upstream) == [1] * len(QUESTIONS)
        assert expected[0][0][0] == positions[0]

    async def test_more_than_a_query_takes_along_comes_bit_by_bit(
        self, storage: Path, upstream: ScriptedUpstream
    ) -> None:
        async with opened(settings_for(storage, upstream)) as world:
            remember(world.ledger, "ann", many(30), summarised=False)
            upstream.forget_calls()
            found = [len(await world.found("ann", QUESTION, 100)) for _ in range(5)]
            assert found == [8, 16, 24, 30, 30]
            assert max(batch_sizes(upstream)) == 9

    async def test_a_memory_the_model_refuses_does_not_hide_the_others(
        self, storage: Path, upstream: ScriptedUpstream
    ) -> None:
        upstream.max_input_chars = 60
        async with opened(settings_for(storage, upstream)) as world:
            (ferry,) = remember(world.ledger, "ann", FACTS[:1], summarised=False)
            await follow(world)
            (winter,) = remember(world.ledger, "ann", ["Winter. " * 30], summarised=False)
            # One long text among short ones is known by its beginning at once, and refused no more from then on.
            assert [position for position, _ in await world.found("ann", QUESTION)] == [ferry, winter]
            upstream.forget_calls()
            await follow(world)
            assert {call.status for call in upstream.calls_of("embed")} <= {200}
            assert [position for position, _ in await world.found("ann", "winter")] == [winter, ferry]

    async def test_by_the_first_search_of_all_where_the_endpoint_came_late(
        self, storage: Path, upstream: ScriptedUpstream
    ) -> None:
        upstream.fail("embed", Fault(status=503))
        async with opened(settings_for(storage, upstream)) as world:
            with pytest.raises(EmbeddingUnavailable):
                await world.found("ann", QUESTION)
            (ferry,) = remember(world.ledger, "ann", FACTS[:1], summarised=False)
            assert [position for position, _ in await world.found("ann", QUESTION)] == [ferry]

    async def test_beside_one_whose_vector_is_not_finite(self, storage: Path, upstream: ScriptedUpstream) -> None:
        upstream.nan_word = "Zanzibar"
        async with opened(settings_for(storage, upstream)) as world:
            (ferry,) = remember(world.ledger, "ann", FACTS[:1], summarised=False)
            await follow(world)
            remember(world.ledger, "ann", ["Zanzibar is an island."], summarised=False)
            (bob,) = remember(world.ledger, "bob", FACTS[:1], summarised=False)
            assert [position for position, _ in await world.found("ann", QUESTION)] == [ferry]
            await follow(world)
            assert [position for position, _ in await world.found("ann", QUESTION)] == [ferry]
            assert [position for position, _ in await world.found("bob", QUESTION)] == [bob]

    async def test_by_a_reader_whose_batch_another_was_quicker_to_add_in_part(
        self, storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with opened(settings_for(storage, upstream)) as world:
            positions = remember(world.ledger, "ann", FACTS)
            await follow(world)
        extend = UserIndex.extend
        others: list[bool] = []

        def after_another(
            index: UserIndex,
            after: int,
            rows: list[int],
            keys: list[int],
            vectors: Vectors,
            position: int,
            *,
            withdrawn: list[tuple[int, int]],
        ) -> bool:
            if not others:
                others.append(extend(index, after, rows[:1], keys[:1], vectors[:1], rows[0]))
            return extend(index, after, rows, keys, vectors, position, withdrawn=withdrawn)

        monkeypatch.setattr(UserIndex, "extend", after_another)
        async with opened(settings_for(storage, upstream)) as world:
            assert {position for position, _ in await world.found("ann", QUESTION, 100)} == set(positions)
        assert others == [True]


class TestThrownAway:
    @pytest.mark.parametrize("cache_too", [False, True])
    async def test_the_same_searches_give_the_same_results(
        self, storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, cache_too: bool
    ) -> None:
        monkeypatch.setattr("projections.dense.user_index._CHANGES_MIN", 16)
        settings = settings_for(storage, upstream)
        async with opened(settings) as world:
            for start in range(0, 60, 7):
                remember(world.ledger, "ann", many(60)[start : start + 7])
                remember(world.ledger, "ann", ["Thank you!"] * 3)
                await follow(world)
            expected = await answers(world)
            assert list(settings.users_dir.rglob("*.faiss"))
        shutil.rmtree(settings.users_dir)
        if cache_too:
            settings.vector_cache_path.unlink()
        async with opened(settings) as world:
            if cache_too:
                await follow(world)
            assert await answers(world) == expected

    async def test_killed_at_any_point(self, storage: Path, upstream: ScriptedUpstream) -> None:
        """A process that embeds, extends and takes snapshots is killed again and again; the result is whole."""
        settings = settings_for(storage, upstream)
        async with opened(settings) as world:
            remember(world.ledger, "ann", many(400))
        # 13 steps embed, each after that adds a batch and takes a snapshot.
        for steps in (6, 14, 16):
            await asyncio.to_thread(kill_maintainer_after, steps, storage, upstream)
        async with opened(settings) as world:
            await follow(world)
            await world.index.maintain("ann")
            survived = await answers(world)
        shutil.rmtree(settings.users_dir, ignore_errors=True)
        settings.vector_cache_path.unlink()
        async with opened(settings) as world:
            await follow(world)
            assert await answers(world) == survived


class TestOneUserAtATime:
    async def test_nobody_finds_what_another_said(self, storage: Path, upstream: ScriptedUpstream) -> None:
        users = ("a/b", "a_b", "A_B", "../ann", "用户")
        async with opened(settings_for(storage, upstream)) as world:
            own = {user: set(remember(world.ledger, user, [f"{fact} {user}" for fact in FACTS])) for user in users}
            await follow(world)
            for user in users:
                await rebuild(world.ledger, world.client, world.cache, world.settings, user_id=user)
        async with opened(settings_for(storage, upstream)) as world:
            for user in users:
                assert {position for position, _ in await world.found(user, QUESTION, 100)} == own[user]
            assert await world.found("nobody", QUESTION) == []

    async def test_a_small_budget_evicts_and_loads_again(
        self, storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loads: list[str] = []
        load = IndexStore._load

        def counted(store: IndexStore, key: IndexKey) -> UserIndex:
            loads.append(key.user_id)
            return load(store, key)

        monkeypatch.setattr(IndexStore, "_load", counted)
        upstream.dims = 8192  # forty vectors take more than a mebibyte
        users = ("ann", "bob", "cem")
        async with opened(settings_for(storage, upstream, index_cache_mb=1)) as world:
            own = {user: remember(world.ledger, user, [f"{user}'s ferry {n}" for n in range(20)]) for user in users}
            await follow(world)
            loads.clear()
            for _ in range(2):
                for user in users:
                    assert {position for position, _ in await world.found(user, QUESTION, 20)} == set(own[user])
            assert loads == [*users, *users]
            await world.found("cem", QUESTION)
            assert len(loads) == 6, "the one used last stays"

    async def test_one_that_is_closed_during_the_embedding_is_searched_whole(
        self, storage: Path, upstream: ScriptedUpstream
    ) -> None:
        upstream.dims = 8192  # forty vectors take more than a mebibyte
        async with opened(settings_for(storage, upstream, index_cache_mb=1)) as world:
            own = {user: remember(world.ledger, user, many(20)) for user in ("ann", "bob")}
            await follow(world)
            upstream.forget_calls()
            upstream.fail("embed", Fault(hang_s=UNTIL_RELEASED))
            searching = asyncio.create_task(world.found("ann", QUESTION, 100))
            await upstream.await_for("embed")
            assert {position for position, _ in await world.found("bob", QUESTION, 100)} == set(own["bob"])
            assert [key.user_id for key in world.index.store.held] == ["bob"]
            upstream.release()
            assert {position for position, _ in await searching} == set(own["ann"])

    async def test_one_that_makes_room_again_and_again_is_caught_up_with_all_the_same(
        self, storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the budget holds less than what is asked for at once, everybody's search pushes the others' out."""
        monkeypatch.setattr("projections.dense.catch_up._EVENTS_PER_READ", 8)
        monkeypatch.setattr("projections.dense.catch_up._EVENTS_PER_SEARCH_MAX", 64)
        monkeypatch.setattr("projections.dense.user_index._CHANGES_MIN", 16)
        async with opened(settings_for(storage, upstream)) as world:
            own = remember(world.ledger, "ann", many(25))
            await world.index.embedder(await world.index.space_of("ann")).embed_missing(
                [text.text for text in world.ledger.reader.facet_texts("ann", 0, 100)[0] if text.text is not None]
            )
            known = world.cache.get

            def pushed_out(space_id: int, hashes: Sequence[bytes]) -> dict[bytes, Cached]:
                world.index.store.held.drop_where(lambda _key: True)
                return known(space_id, hashes)

            monkeypatch.setattr(world.cache, "get", pushed_out)
            assert {position for position, _ in await world.found("ann", QUESTION, 100)} == set(own)
            await world.index.maintain("ann")
            files = IndexFiles(world.settings.users_dir, "ann", await world.index.space_of("ann"))
            manifest = files.manifest()
            assert manifest is not None
            assert manifest.position == world.ledger.reader.facets_at("ann"), "what was taken in is not lost again"

    @pytest.mark.parametrize("speaks_again", [True, False])
    async def test_who_is_erased_while_texts_are_embedded_leaves_nothing_in_the_index(
        self, storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, speaks_again: bool
    ) -> None:
        monkeypatch.setattr("projections.dense.catch_up._EVENTS_PER_READ", 10)
        monkeypatch.setattr("projections.dense.user_index._CHANGES_MIN", 4)
        async with opened(settings_for(storage, upstream)) as world:
            remember(world.ledger, "ann", many(40), summarised=False)
            space = await world.index.space_of("ann")
            embedder = world.index.embedder(space)
            embed, rounds, again, saved = embedder.embed_missing, [0], [], [0]
            save = IndexFiles.save

            async def interrupted(texts: Sequence[str]) -> int:
                rounds[0] += 1
                embedded = await embed(texts)
                if rounds[0] == 3:
                    await asyncio.to_thread(erase_user, world.ledger, storage, "ann")
                    again.extend(remember(world.ledger, "ann", ["A new life."] if speaks_again else []))
                return embedded

            def counted(files: IndexFiles, snapshot: Any, *more: Any) -> Manifest:
                saved[0] = max(saved[0], snapshot.ntotal)
                return save(files, snapshot, *more)

            monkeypatch.setattr(embedder, "embed_missing", interrupted)
            monkeypatch.setattr(IndexFiles, "save", counted)
            await world.index.maintain("ann")
            assert rounds[0] >= 3
            assert saved[0] <= 2 * len(again), "nothing of the erased is written, not even for a moment"
            assert {position for position, _ in await world.found("ann", QUESTION, 50)} == set(again)
            key, index = world.index._open("ann", space)
            assert len(index) == 2 * len(again)
            assert all(held == key for held in world.index.store.held)


class TestModels:
    async def test_the_first_use_activates_the_model_once(self, storage: Path, upstream: ScriptedUpstream) -> None:
        async with opened(settings_for(storage, upstream)) as world:
            await asyncio.gather(*(world.index.space_of(f"user {number}") for number in range(8)))
            assert len(upstream.calls_of("embed")) == 1
            assert world.ledger.reader.head_position() == 1
            active = world.ledger.reader.active_embedding_model("anybody")
            assert active is not None
            assert (active.model, active.dimensions) == ("emb-old", 64)

    async def test_all_who_wait_for_the_first_use_share_one_attempt(
        self, storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        activate = ActiveModel._activate
        waiting: list[ActiveModel] = []

        async def noted(active: ActiveModel) -> EmbeddingModelActivated:
            waiting.append(active)
            return await activate(active)

        monkeypatch.setattr(ActiveModel, "_activate", noted)
        upstream.fail("embed", Fault(hang_s=UNTIL_RELEASED, status=503))
        upstream.fail_always("embed", Fault(status=503))
        async with opened(settings_for(storage, upstream, emb_timeout_s=60)) as world:
            searches = [asyncio.create_task(world.found(f"user {number}", QUESTION)) for number in range(6)]
            await upstream.await_for("embed")
            await until(lambda: len(waiting) == 6)
            upstream.release()
            ends = await asyncio.gather(*searches, return_exceptions=True)
            assert [type(end) for end in ends] == [EmbeddingUnavailable] * 6
            assert len(upstream.calls_of("embed")) == 1

    async def test_without_an_endpoint_nothing_is_activated(self, storage: Path, upstream: ScriptedUpstream) -> None:
        upstream.fail("embed", Fault(status=503))
        async with opened(settings_for(storage, upstream)) as world:
            with pytest.raises(EmbeddingUnavailable):
                await world.found("ann", QUESTION)
            assert world.ledger.reader.head_position() == 0
            assert await world.found("ann", QUESTION) == []

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"emb_model": OTHER_MODEL}, "emb-new"),
            ({"embedding_dims": 32}, "32 dimensions"),
            ({"emb_passage_prefix": "passage: "}, "passage: "),
        ],
    )
    async def test_another_configured_model_changes_nothing_before_a_rebuild_but_is_told(
        self, storage: Path, upstream: ScriptedUpstream, change: dict[str, object], says: str
    ) -> None:
        async with opened(settings_for(storage, upstream)) as world:
            remember(world.ledger, "ann", FACTS)
            await follow(world)
            expected = await answers(world)
        async with opened(settings_for(storage, upstream, **change)) as world:
            assert await answers(world) == expected
            await follow(world)
            for part in ("emb-old", says, "run `python -m projections.rebuild`"):
                assert part in (world.index.notice or "")
        async with opened(settings_for(storage, upstream)) as world:
            assert await answers(world) == expected
            await follow(world)
            assert world.index.notice is None

    async def test_another_model_under_the_same_name(self, storage: Path, upstream: ScriptedUpstream) -> None:
        async with opened(settings_for(storage, upstream)) as world:
            remember(world.ledger, "ann", FACTS)
            await world.found("ann", QUESTION)
            upstream.fail_always("embed", Fault(vector_length=48))
            with pytest.raises(EmbeddingMisfit, match="vectors of 48 numbers"):
                await world.found("ann", QUESTION)
            upstream.heal()
            assert len(await world.found("ann", QUESTION)) == 5


async def test_too_far_behind_to_wait_for_is_said_and_then_caught_up(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        positions = remember(world.ledger, "ann", many(60))
        await follow(world)
    monkeypatch.setattr(projections.dense.catch_up, "_EVENTS_PER_READ", 16)
    monkeypatch.setattr(projections.dense.catch_up, "_EVENTS_PER_SEARCH_MAX", 64)
    async with opened(settings_for(storage, upstream)) as world:
        with pytest.raises(IndexCatchingUp):
            await world.found("ann", QUESTION)
        await world.index.maintain("ann")
        assert {position for position, _ in await world.found("ann", QUESTION, 100)} == set(positions)


async def test_snapshots_are_not_taken_on_each_turn(storage: Path, upstream: ScriptedUpstream) -> None:
    turns, each = 2_000, 20
    settings = settings_for(storage, upstream, emb_batch=256)
    written: list[str] = []
    async with opened(settings) as world:
        folder = IndexFiles(settings.users_dir, "ann", world.client.space(64)).folder
        said = many(turns)
        for start in range(0, turns, each):
            remember(world.ledger, "ann", said[start : start + each])
            await world.index.maintain("ann")
            files = [path.name for path in folder.glob("*.faiss")]
            assert len(files) <= 1, "the snapshot before is removed"
            written += [name for name in files if name not in written]
        assert {position for position, _ in await world.found("ann", QUESTION, turns)} == {
            text.turn_position for text in world.ledger.reader.facet_texts("ann", 0, 2 * turns)[0]
        }
    # A quarter of what is there, between 256 and 1,024 vectors, is gathered before it is written again.
    assert 4 <= len(written) <= 12

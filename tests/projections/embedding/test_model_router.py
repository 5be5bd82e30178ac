"""A question is embedded by the model of the index it searches, wherever that answers, and by no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from domain.errors import EmbeddingMisfit, EmbeddingModelMismatch, EmbeddingUnavailable
from domain.events import EmbeddingModelActivated
from domain.identity import SYSTEM_STREAM
from projections.dense.projection import DenseProjection
from projections.embedding.known_addresses import remember_address
from projections.http_client import recordable_url
from tests.ledgers import record
from tests.projections.world import FACTS, MODEL, OTHER_MODEL, World, opened, remember, settings_for
from tests.upstream import Fault, ScriptedUpstream

QUESTION = "When does the ferry leave?"


@pytest.fixture
def other() -> Iterator[ScriptedUpstream]:
    """The endpoint of the new model, at an address of its own."""
    with ScriptedUpstream(dims=64, embedding_models=(OTHER_MODEL,)) as other:
        yield other


async def history(storage: Path, upstream: ScriptedUpstream) -> list[tuple[int, float]]:
    """Record memories under the old model; return what a question finds."""
    async with opened(settings_for(storage, upstream)) as world:
        await world.index.space_of("ann")
        remember(world.ledger, "ann", FACTS)
        await follow(world)
        return await world.found("ann", QUESTION)


async def follow(world: World) -> DenseProjection:
    follower = DenseProjection(world.ledger, world.index, world.cache)
    while await follower.advance():
        pass
    return follower


async def test_the_old_models_own_endpoint_is_asked_for_questions_and_for_new_memories(
    storage: Path, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    expected = await history(storage, upstream)
    async with opened(settings_for(storage, other, emb_model=OTHER_MODEL)) as world:
        assert await world.found("ann", QUESTION) == expected
        (new,) = remember(world.ledger, "ann", ["A second ferry leaves at noon."])
        await follow(world)
        assert (await world.found("ann", "second ferry at noon"))[0][0] == new
    assert other.calls == ()


@pytest.mark.parametrize(("before", "after"), [(MODEL, f"{MODEL}:latest"), (f"{MODEL}:latest", MODEL)])
async def test_a_name_that_gained_or_lost_latest_is_the_same_model(
    storage: Path, upstream: ScriptedUpstream, before: str, after: str
) -> None:
    upstream.embedding_models, upstream.loaded_model = (before,), before
    async with opened(settings_for(storage, upstream, emb_model=before)) as world:
        await world.index.space_of("ann")
        remember(world.ledger, "ann", FACTS)
        await follow(world)
        expected = await world.found("ann", QUESTION)
    upstream.forget_calls()
    async with opened(settings_for(storage, upstream, emb_model=after)) as world:
        await world.index.check_endpoint()
        assert await world.found("ann", QUESTION) == expected
        assert world.index.notice is None, "nothing is to be rebuilt"
        assert upstream.calls_of("embed")[-1].body["input"] == [QUESTION], "the configured model is not watched"
        (new,) = remember(world.ledger, "ann", ["A second ferry leaves at noon."], summarised=False)
        assert (await follow(world)).mismatch is None
        assert (await world.found("ann", "second ferry at noon"))[0][0] == new
        assert [space.model for _, space in world.cache.spaces()] == [before], "no vector is made twice"


async def test_it_may_go_and_come_back(storage: Path, upstream: ScriptedUpstream, other: ScriptedUpstream) -> None:
    expected = await history(storage, upstream)
    async with opened(settings_for(storage, other, emb_model=OTHER_MODEL)) as world:
        remember(world.ledger, "ann", ["A second boat leaves at noon."])
        upstream.stop()
        with pytest.raises(EmbeddingModelMismatch, match=r"emb-old.*run `python -m projections\.rebuild`"):
            await world.found("ann", QUESTION)
        follower = await follow(world)
        assert "no endpoint gives now" in (follower.mismatch or "")
        upstream.start()
        assert (await world.found("ann", QUESTION))[0] == expected[0]


async def test_after_a_swap_every_setting_that_differs_is_named(
    storage: Path, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    await history(storage, upstream)
    async with opened(settings_for(storage, upstream)) as world:
        swapped = EmbeddingModelActivated(
            model=OTHER_MODEL,
            dimensions=64,
            passage_prefix="passage: ",
            query_prefix="query: ",
            base_url=recordable_url(other.base_url),
            memories=8,
            vectors=16,
            ledger_position=16,
        )
        record(world.ledger, SYSTEM_STREAM, swapped)
        said = world.index.notice_of(await world.index.space_of("ann")) or ""
        for setting in (
            f"EMB_MODEL='{OTHER_MODEL}'",
            f"EMB_BASE_URL='{other.base_url}'",
            "EMB_QUERY_PREFIX='query: '",
            "EMB_PASSAGE_PREFIX='passage: '",
        ):
            assert setting in said
        assert "EMBEDDING_DIMS" not in said
        assert "would go back to the old model" in said


async def test_the_configured_endpoint_may_serve_the_old_model_too(storage: Path, upstream: ScriptedUpstream) -> None:
    expected = await history(storage, upstream)
    upstream.stop()
    with ScriptedUpstream(dims=64, embedding_models=(MODEL, OTHER_MODEL)) as both:
        async with opened(settings_for(storage, both, emb_model=OTHER_MODEL)) as world:
            assert await world.found("ann", QUESTION) == expected
            assert [call.body["input"] for call in both.calls_of("embed")] == [["dimension", QUESTION]]


@pytest.mark.parametrize(("dims", "says"), [(64, "another model"), (48, "vectors of 48 numbers")])
async def test_a_server_that_ignores_the_name_is_not_believed(
    storage: Path, upstream: ScriptedUpstream, dims: int, says: str
) -> None:
    expected = await history(storage, upstream)
    upstream.loaded_model, upstream.dims = OTHER_MODEL, dims
    async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
        for _ in range(2):
            with pytest.raises(EmbeddingModelMismatch, match=says):
                await world.found("ann", QUESTION)
        upstream.loaded_model, upstream.dims = MODEL, 64
        assert await world.found("ann", QUESTION) == expected
        upstream.loaded_model, upstream.dims = OTHER_MODEL, dims
        with pytest.raises(EmbeddingModelMismatch, match=says):
            await world.found("ann", QUESTION)


async def test_the_start_notices_other_weights_under_the_configured_name(
    storage: Path, upstream: ScriptedUpstream
) -> None:
    expected = await history(storage, upstream)
    upstream.salt = "other weights"
    async with opened(settings_for(storage, upstream)) as world:
        with pytest.raises(EmbeddingMisfit, match="another model"):
            await world.index.check_endpoint()
        with pytest.raises(EmbeddingMisfit, match="another model"):
            await world.found("ann", QUESTION)
        upstream.salt = ""
        assert await world.found("ann", QUESTION) == expected
        assert world.index.trouble(await world.index.space_of("ann")) is None


async def test_the_start_costs_one_request(storage: Path, upstream: ScriptedUpstream) -> None:
    await history(storage, upstream)
    upstream.forget_calls()
    async with opened(settings_for(storage, upstream)) as world:
        await world.index.check_endpoint()
        await world.found("ann", QUESTION)
    assert [call.body["input"] for call in upstream.calls_of("embed")] == [["dimension"], [QUESTION]]


class TestLedgersOfEarlierVersions:
    """Their activations say neither an address nor a prefix, and no probe is kept."""

    def activate(self, world: World, **more: str) -> None:
        payload = EmbeddingModelActivated(
            model=MODEL, dimensions=64, passage_prefix="", memories=0, vectors=0, ledger_position=0, **more
        )
        record(world.ledger, SYSTEM_STREAM, payload)

    async def test_the_model_is_recognised_by_a_memory(self, storage: Path, upstream: ScriptedUpstream) -> None:
        async with opened(settings_for(storage, upstream)) as world:
            self.activate(world)
            remember(world.ledger, "ann", FACTS)
            await follow(world)
            expected = await world.found("ann", QUESTION)
        async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
            assert await world.found("ann", QUESTION) == expected
        upstream.loaded_model = OTHER_MODEL
        async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
            with pytest.raises(EmbeddingModelMismatch, match="another model"):
                await world.found("ann", QUESTION)

    async def test_a_question_too_long_is_watched_by_its_beginning(
        self, storage: Path, upstream: ScriptedUpstream
    ) -> None:
        async with opened(settings_for(storage, upstream)) as world:
            self.activate(world)
            remember(world.ledger, "ann", FACTS)
            await follow(world)
            expected = await world.found("ann", QUESTION)
        upstream.max_input_chars = 60
        async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
            # The memory that goes along is long as well, and only apart from it is the question cut.
            found = await world.found("ann", f"{QUESTION} {'Please tell me. ' * 20}")
            assert found[0][0] == expected[0][0]
            upstream.loaded_model = OTHER_MODEL
            with pytest.raises(EmbeddingModelMismatch, match="another model"):
                await world.found("ann", f"{QUESTION} {'Please tell me. ' * 20}")

    async def test_without_a_vector_to_compare_only_the_named_endpoint_is_believed(
        self, storage: Path, upstream: ScriptedUpstream
    ) -> None:
        async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
            self.activate(world)
            (ferry,) = remember(world.ledger, "ann", FACTS[:1], summarised=False)
            with pytest.raises(EmbeddingModelMismatch, match="no vector is left"):
                await world.found("ann", QUESTION)
            self.activate(world, base_url=upstream.base_url, query_prefix="")
            assert [position for position, _ in await world.found("ann", QUESTION)] == [ferry]

    @pytest.mark.parametrize("model", ["e5-small", "org/multilingual-e5-small"])
    async def test_the_family_tells_the_prefix(self, storage: Path, model: str) -> None:
        with ScriptedUpstream(dims=64, embedding_models=(model, OTHER_MODEL)) as upstream:
            async with opened(settings_for(storage, upstream, emb_model=OTHER_MODEL)) as world:
                payload = EmbeddingModelActivated(
                    model=model,
                    dimensions=64,
                    passage_prefix="passage: ",
                    base_url=upstream.base_url,
                    memories=0,
                    vectors=0,
                    ledger_position=0,
                )
                record(world.ledger, SYSTEM_STREAM, payload)
                remember(world.ledger, "ann", FACTS[:1], summarised=False)
                await world.found("ann", QUESTION)
                texts = upstream.calls_of("embed")[-1].body["input"]
                assert texts[1:] == [f"query: {QUESTION}", f"passage: {FACTS[0]}\nNoted."]


class TestAnAddressThatNobodyConfigured:
    """It comes with a ledger from somewhere else, and is sent neither the key nor a question nor a memory."""

    def activate(self, world: World, elsewhere: ScriptedUpstream) -> None:
        payload = EmbeddingModelActivated(
            model=MODEL,
            dimensions=64,
            passage_prefix="",
            base_url=elsewhere.base_url,
            memories=0,
            vectors=0,
            ledger_position=0,
        )
        record(world.ledger, SYSTEM_STREAM, payload)

    async def test_it_is_not_asked_and_a_line_names_the_setting(
        self, storage: Path, upstream: ScriptedUpstream, other: ScriptedUpstream, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with opened(settings_for(storage, other, emb_model=OTHER_MODEL)) as world:
            self.activate(world, upstream)
            remember(world.ledger, "ann", FACTS)
            with pytest.raises(EmbeddingModelMismatch, match=r"was never configured here.*set EMB_BASE_URL"):
                await world.found("ann", QUESTION)
            follower = await follow(world)
            assert "never configured here" in (follower.mismatch or "")
        assert upstream.calls == ()
        assert upstream.base_url in caplog.text

    async def test_it_counts_again_after_a_rebuild_that_was_set_to_it(
        self, storage: Path, upstream: ScriptedUpstream, other: ScriptedUpstream
    ) -> None:
        async with opened(settings_for(storage, other, emb_model=OTHER_MODEL)) as world:
            self.activate(world, upstream)
            (ferry,) = remember(world.ledger, "ann", FACTS[:1])
            with pytest.raises(EmbeddingModelMismatch):
                await world.found("ann", QUESTION)
            remember_address(settings_for(storage, upstream))
            self.activate(world, upstream)
            assert [position for position, _ in await world.found("ann", QUESTION)] == [ferry]

    async def test_a_damaged_list_trusts_nobody(
        self, storage: Path, upstream: ScriptedUpstream, other: ScriptedUpstream
    ) -> None:
        await history(storage, upstream)
        (storage / "embedding-endpoints.json").write_text('{"not": "a list"')
        upstream.forget_calls()
        async with opened(settings_for(storage, other, emb_model=OTHER_MODEL)) as world:
            with pytest.raises(EmbeddingModelMismatch, match="never configured here"):
                await world.found("ann", QUESTION)
        assert upstream.calls == ()


async def test_a_silent_endpoint_does_not_cost_its_time_twice(
    storage: Path, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    await history(storage, upstream)
    for endpoint in (upstream, other):
        endpoint.fail_always("embed", Fault(hang_s=60))
    settings = settings_for(storage, other, emb_model=OTHER_MODEL, emb_timeout_s=0.4)
    async with opened(settings) as world:
        with pytest.raises(EmbeddingModelMismatch, match=r"did not answer within 0\.2 s"):
            await world.found("ann", QUESTION)
    upstream.release()
    other.release()


async def test_trouble_of_the_configured_endpoint_stays_what_it_is(storage: Path, upstream: ScriptedUpstream) -> None:
    await history(storage, upstream)
    upstream.fail("embed", Fault(status=503))
    async with opened(settings_for(storage, upstream)) as world:
        with pytest.raises(EmbeddingUnavailable, match="503"):
            await world.found("ann", QUESTION)


@pytest.mark.parametrize(
    ("url", "recorded"),
    [
        ("http://localhost:8002/v1", "http://localhost:8002/v1"),
        ("https://user:pass%40word@host:8443/v1", "https://host:8443/v1"),
        ("https://host/v1?api-key=secret#part", "https://host/v1"),
        ("http://key@[::1]:80/v1", "http://[::1]:80/v1"),
    ],
)
def test_no_credentials_go_into_the_ledger(url: str, recorded: str) -> None:
    assert recordable_url(url) == recorded

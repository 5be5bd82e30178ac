"""Texts that the model refuses neither stop the others nor are asked about again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from domain.errors import EmbeddingMisfit, EmbeddingUnavailable
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.caching_embedder import CachingEmbedder
from tests.projections.world import opened, settings_for
from tests.upstream import Fault, ScriptedUpstream


@asynccontextmanager
async def embedder(
    storage: Path, upstream: ScriptedUpstream, batch: int = 8
) -> AsyncIterator[tuple[CachingEmbedder, VectorCache]]:
    async with opened(settings_for(storage, upstream)) as world:
        yield CachingEmbedder(world.client, world.cache, world.client.space(64), batch=batch, timeout_s=10), world.cache


def inputs(upstream: ScriptedUpstream) -> list[list[str]]:
    return [call.body["input"] for call in upstream.calls_of("embed")]


async def test_each_text_is_embedded_once(storage: Path, upstream: ScriptedUpstream) -> None:
    async with embedder(storage, upstream, batch=2) as (embed, _):
        assert await embed.embed_missing(["a b", "c d", "a b", "e f"]) == 3
        assert await embed.embed_missing(["e f", "g h"]) == 1
    assert inputs(upstream) == [["a b", "c d"], ["e f"], ["g h"]]


async def test_a_long_text_is_known_by_its_beginning(
    storage: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.max_input_chars = 100
    long = "The ferry to Lisbon leaves at nine. " * 10
    async with embedder(storage, upstream) as (embed, cache):
        await embed.embed_missing([long])
        assert cache.get(embed.space_id, [text_hash(long)])[text_hash(long)] is not None
    lengths = [len(texts[0]) for texts in inputs(upstream)]
    assert lengths[0] == 360
    assert lengths == sorted(set(lengths), reverse=True)
    assert 50 < lengths[-1] <= 100
    assert "Lisbon" not in caplog.text
    assert "no more than about 16 tokens of a text are embedded" in caplog.text


@pytest.mark.parametrize(("long", "batches"), [(1, [8, 8]), (2, [8, 4, 4, 2, 2, 1, 1, 1])])
async def test_refused_texts_do_not_hurt_their_batch(
    storage: Path, upstream: ScriptedUpstream, long: int, batches: list[int]
) -> None:
    upstream.max_input_chars = 40
    texts = [f"short text {number}" for number in range(8 - long)] + [f"{number} long " * 10 for number in range(long)]
    async with embedder(storage, upstream) as (embed, cache):
        assert await embed.embed_missing(texts) == 8
        known = cache.get(embed.space_id, [text_hash(text) for text in texts])
    assert all(known[text_hash(text)] is not None for text in texts)
    assert [len(batch) for batch in inputs(upstream)] == batches


async def test_what_is_refused_at_any_length_is_marked_and_not_asked_again(
    storage: Path, upstream: ScriptedUpstream
) -> None:
    upstream.max_input_chars = 5  # a word, but not the shortest beginning of a text
    async with embedder(storage, upstream) as (embed, cache):
        await embed.embed_missing(["The spare key hangs behind the clock."])
        known = cache.get(embed.space_id, [text_hash("The spare key hangs behind the clock.")])
        assert list(known.values()) == [None]
        asked = len(upstream.calls_of("embed"))
        assert await embed.embed_missing(["The spare key hangs behind the clock."]) == 0
    assert len(upstream.calls_of("embed")) == asked


async def test_what_was_embedded_before_a_failure_is_kept(storage: Path, upstream: ScriptedUpstream) -> None:
    upstream.fail("embed", Fault(), Fault(status=503))
    async with embedder(storage, upstream, batch=2) as (embed, _):
        with pytest.raises(EmbeddingUnavailable):
            await embed.embed_missing(["a b", "c d", "e f", "g h"])
        assert await embed.embed_missing(["a b", "c d", "e f", "g h"]) == 2


async def test_vectors_of_another_length_never_reach_the_cache(storage: Path, upstream: ScriptedUpstream) -> None:
    upstream.fail("embed", Fault(vector_length=32))
    async with embedder(storage, upstream) as (embed, cache):
        with pytest.raises(EmbeddingMisfit, match="32 numbers, the index holds 64"):
            await embed.embed_missing(["a b"])
        assert cache.get(embed.space_id, [text_hash("a b")]) == {}


async def test_an_endpoint_that_refuses_everything_marks_no_text(
    storage: Path, upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    text = "The spare key hangs behind the clock."
    upstream.fail_always("embed", Fault(status=400))
    async with embedder(storage, upstream) as (embed, cache):
        with pytest.raises(EmbeddingUnavailable, match="refuses even a single word"):
            await embed.embed_missing([text, "a b"])
        assert cache.get(embed.space_id, [text_hash(text), text_hash("a b")]) == {}
        assert "left out" not in caplog.text
        upstream.heal()
        assert await embed.embed_missing([text, "a b"]) == 2
        known = cache.get(embed.space_id, [text_hash(text), text_hash("a b")])
        assert [vector is None for vector in known.values()] == [False, False]


async def test_a_text_whose_vector_is_not_finite_does_not_hurt_its_batch(
    storage: Path, upstream: ScriptedUpstream
) -> None:
    upstream.nan_word = "Zanzibar"
    texts = ["Zanzibar is an island.", *(f"short text {number}" for number in range(5))]
    async with embedder(storage, upstream) as (embed, cache):
        assert await embed.embed_missing(texts) == 6
        known = cache.get(embed.space_id, [text_hash(text) for text in texts])
        assert [known[text_hash(text)] is None for text in texts] == [True, *[False] * 5]

"""Memory searched by meaning and by words at once, and by one of them where the other is ill."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from domain.errors import EmbeddingUnavailable, IndexCatchingUp, IndexUnavailable
from domain.events import RetrievalMode
from domain.fusion import Fusion
from domain.sqlite import DRIVER
from projections.lexical import index_files as lexical_files
from projections.lexical.index_files import LexicalFiles
from projections.search.as_of import SearchAsOf
from projections.search.dense_as_of import DenseAsOf
from projections.search.memory_search import MemorySearch, SearchResult
from tests.ledgers import until
from tests.projections.world import FACTS, World, many, opened, remember, settings_for
from tests.upstream import Fault, ScriptedUpstream


@asynccontextmanager
async def searching(storage: Path, upstream: ScriptedUpstream) -> AsyncIterator[tuple[World, MemorySearch]]:
    async with opened(settings_for(storage, upstream)) as world:
        words = LexicalFiles(world.ledger.reader, world.settings.users_dir)
        search = MemorySearch(world.ledger.reader, world.index, words)
        yield world, search
        await search.close()
        words.close()


def positions(searched: SearchResult) -> list[int]:
    return [candidate.memory.position for candidate in searched.candidates]


async def test_both_indices_propose_and_the_candidate_says_what_each_said(
    storage: Path, upstream: ScriptedUpstream
) -> None:
    async with searching(storage, upstream) as (world, search):
        ferry, *_ = remember(world.ledger, "ann", FACTS)
        found = await search.search("ann", "When does the ferry to Lisbon leave?", 3, "hybrid")
    best = found.candidates[0]
    assert best.memory.position == ferry
    assert (best.rank, best.dense_rank, best.lexical_rank) == (1, 1, 1)
    assert best.dense_score is not None
    assert 0 < best.dense_score <= 1
    assert best.lexical_score is not None
    assert best.lexical_score > 0
    assert [candidate.rank for candidate in found.candidates] == [1, 2, 3]
    assert (found.mode, found.fusion, found.trouble) == ("hybrid", Fusion(), None)
    assert all(candidate.dense_score is not None for candidate in found.candidates), "the gate goes by it"


async def test_a_search_that_takes_in_new_memories_waits_for_no_disk(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, normal = 2, 1
    connected: list[Any] = []
    flushed: list[int] = []
    connect = DRIVER.connect

    def connect_seen(*arguments: Any, **named: Any) -> Any:
        connected.append(connect(*arguments, **named))
        return connected[-1]

    monkeypatch.setattr(DRIVER, "connect", connect_seen)
    async with searching(storage, upstream) as (world, search):
        remember(world.ledger, "ann", FACTS)
        monkeypatch.setattr(os, "fsync", flushed.append)
        found = await search.search("ann", "When does the ferry to Lisbon leave?", 3, "hybrid")
        assert len(found.candidates) == 3
        modes: dict[str, tuple[int, int]] = {}
        for connection in connected:
            if connection.execute("PRAGMA query_only").fetchone() == (0,):
                file = Path(connection.execute("PRAGMA database_list").fetchone()[2]).name
                (flushes,) = connection.execute("PRAGMA synchronous").fetchone()
                (copies_after,) = connection.execute("PRAGMA wal_autocheckpoint").fetchone()
                modes[file] = (flushes, copies_after)
    assert modes == {"ledger.sqlite3": (full, 0), "vectors.sqlite3": (normal, 0), "lexical.sqlite3": (normal, 0)}
    assert flushed == [], "no snapshot is written while a question waits"


async def test_what_is_beside_a_good_memory_comes_up(storage: Path, upstream: ScriptedUpstream) -> None:
    async with searching(storage, upstream) as (world, search):
        said = ["Where did you stay in Lisbon?", "In the Pensao.", *many(30)]
        _, answer, *_ = remember(world.ledger, "ann", said, summarised=False)
        found = await search.search("ann", "Lisbon stay", 5, "hybrid")
        alone = await search.search("ann", "Lisbon stay", 5, "lexical")
    assert answer in positions(found)[:3]
    assert answer not in positions(alone)
    (beside,) = [candidate for candidate in found.candidates if candidate.memory.position == answer]
    assert beside.lexical_rank is None
    assert beside.dense_score is not None


@pytest.mark.parametrize(("mode", "scored"), [("dense", "dense_score"), ("lexical", "lexical_score")])
async def test_one_index_alone_orders_by_its_own_score(
    storage: Path, upstream: ScriptedUpstream, mode: RetrievalMode, scored: str
) -> None:
    async with searching(storage, upstream) as (world, search):
        remember(world.ledger, "ann", many(20))
        await world.index.space_of("ann")
        upstream.forget_calls()
        found = await search.search("ann", "Who plays the violin?", 4, mode)
    assert found.mode == mode
    assert found.fusion is None
    scores = [getattr(candidate, scored) for candidate in found.candidates]
    assert scores == sorted(scores, reverse=True)
    assert scores == [candidate.score for candidate in found.candidates]
    assert bool(upstream.calls_of("embed")) == (mode == "dense")


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
async def test_without_the_embedding_model_words_serve(
    storage: Path, upstream: ScriptedUpstream, mode: RetrievalMode
) -> None:
    async with searching(storage, upstream) as (world, search):
        ferry, *_ = remember(world.ledger, "ann", FACTS)
        await world.index.space_of("ann")
        upstream.fail_always("embed", Fault(status=503))
        found = await search.search("ann", "the ferry", 3, mode)
    assert positions(found)[0] == ferry
    assert found.mode == "lexical"
    assert isinstance(found.trouble, EmbeddingUnavailable)


async def test_without_the_words_vectors_serve_until_those_are_indexed(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexical_files, "_EVENTS_PER_READ", 4)
    async with searching(storage, upstream) as (world, search):
        remember(world.ledger, "ann", many(30))
        await world.index.maintain("ann")
        found = await search.search("ann", "violin", 3, "hybrid")
        assert found.mode == "dense"
        assert isinstance(found.trouble, IndexCatchingUp)
        assert len(found.candidates) == 3
        await until(lambda: not len(search._catching_up))
        assert (await search.search("ann", "violin", 3, "hybrid")).mode == "hybrid"


async def test_words_are_checked_whole_after_the_first_question(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    monkeypatch.setattr(LexicalFiles, "check", lambda _files, user_id: checked.append(user_id))
    async with searching(storage, upstream) as (world, search):
        for user in ("ann", "bob"):
            remember(world.ledger, user, FACTS)
        for user in ("ann", "bob", "ann"):
            await search.search(user, "violin", 3, "hybrid")
            await until(lambda: not len(search._checking))
    assert checked == ["ann", "bob"], "once since the start"


async def test_checks_that_are_still_to_come_hold_up_no_end(
    storage: Path, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    reading, read_on = threading.Event(), threading.Event()

    def slow(_files: LexicalFiles, user_id: str) -> None:
        checked.append(user_id)
        reading.set()
        assert read_on.wait(60)

    monkeypatch.setattr(LexicalFiles, "check", slow)
    async with searching(storage, upstream) as (world, search):
        for user in ("ann", "bob"):
            remember(world.ledger, user, FACTS)
            await search.search(user, "violin", 3, "lexical")
        assert await asyncio.to_thread(reading.wait, 60)
        closing = asyncio.create_task(search.close())
        await asyncio.sleep(0)
        assert not closing.done(), "a file is not closed under whoever reads it"
        read_on.set()
        await asyncio.wait_for(closing, 60)
    assert checked == ["ann"], "one at a time, and the next one never begins"


async def test_what_is_asked_once_the_service_stops_gets_a_reason(storage: Path, upstream: ScriptedUpstream) -> None:
    async with searching(storage, upstream) as (world, search):
        ferry, *_ = remember(world.ledger, "ann", FACTS)
        await search.close()
        found = await search.search("ann", "When does the ferry to Lisbon leave?", 1, "hybrid")
        assert (positions(found), found.mode, str(found.trouble)) == ([ferry], "dense", "the service is stopping")
        with pytest.raises(IndexUnavailable, match="the service is stopping"):
            await search.search("ann", "ferry", 1, "lexical")


async def test_with_neither_the_reason_is_raised(storage: Path, upstream: ScriptedUpstream) -> None:
    async with searching(storage, upstream) as (world, search):
        remember(world.ledger, "ann", FACTS)
        await world.index.space_of("ann")
        (storage / "users" / "ann").parent.mkdir(exist_ok=True)
        (storage / "users" / "ann").write_text("a file where the folder should be")
        upstream.fail_always("embed", Fault(status=503))
        with pytest.raises(EmbeddingUnavailable):
            await search.search("ann", "ferry", 3, "hybrid")


async def test_the_past_is_searched_as_it_was_then(storage: Path, upstream: ScriptedUpstream) -> None:
    async with searching(storage, upstream) as (world, search):
        remember(world.ledger, "ann", many(40))
        await world.index.maintain("ann")
        question = "Which shelf is the violin on?"
        then = await search.search("ann", question, 8, "hybrid")
        remember(world.ledger, "ann", ["The violin is on no shelf."] * 5)
        assert positions(await search.search("ann", question, 8, "hybrid")) != positions(then)
        space = await world.index.space_of("ann")
        vectors = DenseAsOf(world.ledger.reader, world.client, world.cache, space, "ann", batch=8)
        with closing(SearchAsOf(world.ledger.reader, "ann", vectors)) as past:
            again = await past.search(question, 8, position=then.position, mode="hybrid", timeout_s=5)
    assert [(item.memory.memory_id, item.scores) for item in again] == [
        (item.memory.memory_id, item.scores) for item in then.candidates
    ]

"""The past is searched by vectors or by words, and what is found is shown as it stood."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from domain.errors import EmbeddingMisfit, InvalidInput
from domain.events import RetrievalMode
from projections.search.as_of import SearchAsOf
from tests.projections.search.test_dense_as_of import change, past_of
from tests.projections.world import opened, remember, settings_for
from tests.upstream import ScriptedUpstream

QUERY = "violin in Vienna"


@pytest.mark.parametrize("mode", ["dense", "lexical", "hybrid"])
async def test_what_is_found_is_shown_as_it_stood(
    storage: Path, upstream: ScriptedUpstream, mode: RetrievalMode
) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        [first, second] = remember(world.ledger, "ann", ["The violin is in Vienna.", "Nothing of note."])
        edited = change(world.ledger, first, "The violin went to Vienna and Graz.")
        gone = change(world.ledger, first, None)
        with closing(SearchAsOf(world.ledger.reader, "ann", past_of(world))) as memory:
            seen = []
            for position in (edited - 1, edited, gone):
                found = await memory.search(QUERY, 1, position=position, mode=mode, timeout_s=5)
                seen.append([candidate.memory.summary for candidate in found])
    assert seen[:2] == [["ann noted: The violin is in Vienna."], ["The violin went to Vienna and Graz."]]
    assert second not in (first, gone)
    assert all("violin" not in (summary or "") for summary in seen[2])


async def test_without_vectors_words_are_all_there_is(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        [first, _] = remember(world.ledger, "ann", ["The violin is in Vienna.", "Nothing of note."])
        head = world.ledger.reader.head_position()
        with closing(SearchAsOf(world.ledger.reader, "ann", None)) as memory:
            found = await memory.search(QUERY, 5, position=head, mode="lexical", timeout_s=5)
            assert [candidate.memory.position for candidate in found] == [first]
            assert memory.space is None
            with pytest.raises(InvalidInput, match="dense"):
                await memory.search(QUERY, 5, position=head, mode="dense", timeout_s=5)
    assert not upstream.calls


async def test_vectors_that_have_changed_their_length_are_named(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", ["The violin is in Vienna."])
        head = world.ledger.reader.head_position()
        with closing(SearchAsOf(world.ledger.reader, "ann", past_of(world))) as memory:
            await memory.search(QUERY, 5, position=head, mode="dense", timeout_s=5)
            upstream.dims = 32
            with pytest.raises(EmbeddingMisfit, match="32 numbers now"):
                await memory.search(QUERY, 5, position=head, mode="dense", timeout_s=5)

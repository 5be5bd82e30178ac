"""An index belongs to the epoch it was opened in: after an erasure nobody finds it or adds to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.ledger import Ledger
from domain.ledger_reader import Erasures
from projections.dense.catch_up import CatchUp, EpochEnded
from projections.dense.index_store import IndexKey, IndexStore, epoch_of
from projections.dense.user_index import UserIndex
from projections.embedding.endpoint import EmbeddingSpace
from projections.erasure import erase_user
from tests.projections.world import FACTS, opened, remember, settings_for
from tests.upstream import ScriptedUpstream

SPACE = EmbeddingSpace("m", 16, "")


@pytest.fixture
def store(ledger: Ledger, storage: Path) -> IndexStore:
    return IndexStore(ledger.reader, storage / "users", "fp16", 1 << 20)


def test_epochs_grow_with_each_step_of_an_erasure() -> None:
    steps = [Erasures(0, 0), Erasures(1, 1), Erasures(2, 2), Erasures(2, 1), Erasures(2, 0), Erasures(3, 1)]
    epochs = [epoch_of(erasures) for erasures in steps]
    assert epochs == sorted(set(epochs))


def test_a_new_epoch_lets_go_of_all_earlier_ones(store: IndexStore) -> None:
    before = {user: store.open(IndexKey(user, SPACE, (0, 0))) for user in ("ann", "bob")}
    after = store.open(IndexKey("ann", SPACE, (1, -1)))
    assert after is not before["ann"]
    assert [(key.user_id, key.epoch) for key in store.held] == [("ann", (1, -1))]
    assert store.open(IndexKey("ann", SPACE, (1, -1))) is after


def test_an_index_of_an_earlier_epoch_is_not_held_again(store: IndexStore) -> None:
    old = IndexKey("ann", SPACE, (0, 0))
    index = store.open(old)
    store.open(IndexKey("bob", SPACE, (1, 0)))
    store.hold(old, index)
    assert [key.user_id for key in store.held] == ["bob"]


def test_of_two_the_one_that_has_read_further_is_held(store: IndexStore) -> None:
    key = IndexKey("ann", SPACE, (0, 0))
    behind, ahead = store.open(key), UserIndex(SPACE.dimensions, "fp16", position=9)
    store.hold(key, ahead)
    assert store.open(key) is ahead
    store.hold(key, behind)
    assert store.open(key) is ahead


async def test_nothing_is_added_to_an_index_once_its_epoch_has_ended(storage: Path, upstream: ScriptedUpstream) -> None:
    async with opened(settings_for(storage, upstream)) as world:
        remember(world.ledger, "ann", FACTS)
        await world.index.maintain("ann")
        space = await world.index.space_of("ann")
        key, index = world.index._open("ann", space)
        held, position = len(index), index.position
        erase_user(world.ledger, storage, "ann")
        remember(world.ledger, "ann", ["A new life."])
        with pytest.raises(EpochEnded):
            CatchUp(world.ledger.reader, world.cache).step(key, index)
        assert (len(index), index.position) == (held, position)

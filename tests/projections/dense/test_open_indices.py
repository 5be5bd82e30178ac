"""Indices are held up to a budget, whatever they grow to and whichever thread asks for them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from projections.dense.open_indices import _OVERHEAD_BYTES, OpenIndices


class Growing:
    """An index that holds as much as it is told."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


KEYS = st.sampled_from("abcdef")
SIZES = st.integers(0, 60_000)
BUDGET = 100_000


@given(st.lists(st.tuples(KEYS, SIZES), max_size=60))
def test_the_least_recently_used_make_room(steps: list[tuple[str, int]]) -> None:
    """The model adds everything up each time; an index that grew is found out when it is used next."""
    open_indices: OpenIndices[str, Growing] = OpenIndices(BUDGET)
    model: OrderedDict[str, tuple[Growing, int]] = OrderedDict()
    for key, size in steps:
        fresh = Growing(size)
        index = open_indices.get(key, lambda fresh=fresh: fresh)  # type: ignore[misc]
        known = model.pop(key, None)
        assert index is (known[0] if known is not None else fresh)
        model[key] = (index, index.nbytes + _OVERHEAD_BYTES)
        while len(model) > 1 and sum(counted for _, counted in model.values()) > BUDGET:
            model.popitem(last=False)
        assert open_indices.nbytes == sum(counted for _, counted in model.values())
        assert len(open_indices) == len(model)
        index.nbytes = size


def test_two_threads_that_load_the_same_get_one() -> None:
    open_indices: OpenIndices[str, Growing] = OpenIndices(BUDGET)
    both_load = threading.Barrier(2)

    def load() -> Growing:
        both_load.wait(10)
        return Growing(1000)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: open_indices.get("ann", load), range(2))
    assert first is second
    assert open_indices.nbytes == 1000 + _OVERHEAD_BYTES


def test_what_is_dropped_is_loaded_again_and_another_stays() -> None:
    open_indices: OpenIndices[str, Growing] = OpenIndices(BUDGET)
    first = open_indices.get("ann", lambda: Growing(1000))
    open_indices.drop("ann", Growing(1000))
    assert open_indices.get("ann", lambda: Growing(1)) is first
    open_indices.drop("ann", first)
    assert (len(open_indices), open_indices.nbytes) == (0, 0)
    assert open_indices.get("ann", lambda: Growing(1)) is not first


def test_one_that_has_grown_makes_room_whoever_asks_for_it() -> None:
    open_indices: OpenIndices[str, Growing] = OpenIndices(20_000)
    grows = open_indices.get("ann", lambda: Growing(1000))
    open_indices.get("bob", lambda: Growing(1000))
    grows.nbytes = 18_000
    assert open_indices.get_held("ann") is grows
    assert list(open_indices) == ["ann"]
    assert open_indices.get_held("bob") is None

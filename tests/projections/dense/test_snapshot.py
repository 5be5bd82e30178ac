"""A large snapshot is read by two threads, and gives what one would find."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.dense import snapshot
from projections.dense.snapshot import Storage, empty_snapshot, nearest_rows


@given(
    rows=st.integers(4, 40),
    count=st.integers(1, 50),
    storage=st.sampled_from(["fp16", "fp32"]),
    seed=st.integers(0, 2**32 - 1),
    best_in=st.sampled_from(["first half", "second half", "both"]),
)
def test_two_halves_give_what_the_whole_gives(rows: int, count: int, storage: Storage, seed: int, best_in: str) -> None:
    numbers = np.random.default_rng(seed)
    vectors = numbers.standard_normal((rows, 8)).astype(np.float32)
    query = numbers.standard_normal(8).astype(np.float32)
    near = {"first half": slice(0, rows // 2), "second half": slice(rows // 2, rows), "both": slice(0, 0)}[best_in]
    vectors[near] += 10 * query
    built = empty_snapshot(8, storage)
    built.add_with_ids(vectors, np.arange(rows))
    built.index = faiss.downcast_index(built.index)
    count = min(count, rows)
    whole = nearest_rows(built, query, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "_ROWS_FOR_TWO_THREADS", 1)
        halves = nearest_rows(built, query, count)
    np.testing.assert_array_equal(halves[1], whole[1])
    np.testing.assert_array_equal(halves[0], whole[0])

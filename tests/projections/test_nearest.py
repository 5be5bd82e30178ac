"""A coarse look never misses a row that could be among the nearest, whatever the vectors are like."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.embedding.client import Vectors
from projections.vectors.nearest import CoarseLook, nearest_rows

DIMENSIONS = 32
ROUNDING = 1e-5


def stored_rows(rows: Vectors, storage: str) -> Any:
    index: Any = faiss.IndexFlatIP(rows.shape[1])
    if storage == "fp16":
        kind = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexScalarQuantizer(rows.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    index.add(rows)
    return index


def unit(rows: Vectors) -> Vectors:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    made: Vectors = (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return made


@st.composite
def collections(draw: st.DrawFn) -> tuple[Vectors, Vectors]:
    """Return unit vectors of every awkward kind, and a query that may be one of them or no relation to any."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count = draw(st.sampled_from([1, 2, 3, 17, 200, 1500]))
    rows = random.standard_normal((count, DIMENSIONS)).astype(np.float32)
    kind = draw(st.sampled_from(["random", "crowded", "near ties", "sparse", "spike", "axes", "one value"]))
    if kind == "crowded":
        rows += 9 * random.standard_normal(DIMENSIONS).astype(np.float32)
    elif kind == "near ties":
        rows = rows[:1] + rows * draw(st.sampled_from([0, 1e-7, 1e-4, 1e-2]))
    elif kind == "sparse":
        rows[random.random(rows.shape) < 0.9] = 0
        rows[:, : DIMENSIONS // 2] = 0
    elif kind == "spike":
        rows[:, 3] = 40
        rows[0] = 0
        rows[0, 5] = 1
    elif kind == "axes":
        rows = np.eye(DIMENSIONS, dtype=np.float32)[random.integers(DIMENSIONS, size=count)]
    elif kind == "one value":
        rows[:] = 1
    rows = unit(rows)
    rows[random.integers(count, size=count // 3)] = rows[0]
    near = rows[random.integers(count)] + random.standard_normal(DIMENSIONS) * draw(st.sampled_from([0, 1e-3, 0.1, 9]))
    return rows, unit(near.astype(np.float32))


@pytest.mark.parametrize("storage", ["fp16", "fp32"])
@settings(max_examples=150, deadline=None)
@given(
    collection=collections(), wanted=st.sampled_from([1, 2, 10, 100, 5000]), widening=st.sampled_from([1, 2, 8, 10**6])
)
def test_no_row_left_out_scores_above_the_floor(
    storage: str, collection: tuple[Vectors, Vectors], wanted: int, widening: int
) -> None:
    rows, query = collection
    stored = stored_rows(rows, storage)
    wanted = min(wanted, len(rows))
    scores = stored.reconstruct_n(0, len(rows)).astype(np.float64) @ query
    found, floor = CoarseLook(stored).nearest(query, wanted, wanted * widening)
    assert len(set(found.tolist())) == wanted
    others = np.delete(scores, found)
    if len(others):
        assert others.max() <= floor + ROUNDING
    else:
        assert floor == -np.inf


def test_a_look_at_unrelated_vectors_proves_enough() -> None:
    """Were the bound so loose that it never proves anything, the promise above would be worth nothing."""
    random = np.random.default_rng(5)
    rows = unit(random.standard_normal((20_000, 256)).astype(np.float32))
    stored = stored_rows(rows, "fp16")
    query = unit(rows[7] + random.standard_normal(256).astype(np.float32) / 8)
    found, floor = CoarseLook(stored).nearest(query, 50, 400)
    exact, nearest = nearest_rows(stored, query, 50)
    assert floor == pytest.approx(exact[-1], abs=ROUNDING), "the floor is the last row's own score"
    assert found.tolist() == nearest.tolist()


def test_a_query_of_small_numbers_is_not_cut_to_nothing() -> None:
    """With codes that FAISS multiplies as whole numbers it takes the digits behind the point off a query too."""
    rows = unit(np.random.default_rng(1).standard_normal((50, DIMENSIONS)).astype(np.float32))
    found, floor = CoarseLook(stored_rows(rows, "fp32")).nearest(rows[11], 3, 3)
    assert found[0] == 11
    assert 0.2 < floor < 0.9


def test_two_threads_find_what_one_finds() -> None:
    rows = unit(np.random.default_rng(2).standard_normal((20_001, 8)).astype(np.float32))
    stored = stored_rows(rows, "fp32")
    products, found = nearest_rows(stored, rows[20_000], 300)
    expected = np.argsort(-(rows @ rows[20_000]), kind="stable")[:300]
    assert found[0] == 20_000
    assert set(found.tolist()) == set(expected.tolist())
    assert (np.diff(products) <= 0).all()

"""A coarse look is right about every row within the bounds that it gives, whatever the vectors are like."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from projections.dense.nearest import CoarseLook, codes_of, highest, nearest_rows, read_rows
from projections.embedding.endpoint import Vectors

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
@given(collection=collections())
def test_no_row_scores_outside_its_bounds(storage: str, collection: tuple[Vectors, Vectors]) -> None:
    rows, query = collection
    stored = stored_rows(rows, storage)
    scores = stored.reconstruct_n(0, len(rows)).astype(np.float64) @ query
    about, off = CoarseLook(stored).scores(query)
    assert np.abs(about - scores).max() <= off + ROUNDING


@pytest.mark.parametrize("dimensions", [256, 384])
def test_few_of_unrelated_vectors_need_to_be_read(dimensions: int) -> None:
    """Were the bound so loose that every row reached up to the best, the promise above would be worth nothing."""
    random = np.random.default_rng(5)
    rows = unit(random.standard_normal((20_000, dimensions)).astype(np.float32))
    rows[:, 3] += np.linspace(0, 0.7, len(rows), dtype=np.float32)  # as in many models, one dimension stands out
    rows = unit(rows)
    query = unit(rows[7] + random.standard_normal(dimensions).astype(np.float32) / 8)
    about, off = CoarseLook(stored_rows(rows, "fp16")).scores(query)
    fiftieth = np.sort(rows @ query)[-50]
    assert 50 <= (about + off >= fiftieth).sum() < 400


def test_a_query_of_small_numbers_is_not_cut_to_nothing() -> None:
    rows = unit(np.random.default_rng(1).standard_normal((50, DIMENSIONS)).astype(np.float32))
    about, off = CoarseLook(stored_rows(rows, "fp32")).scores(rows[11] / 1000)
    assert about.argmax() == 11
    assert 0.9 < (about[11] + off) * 1000 < 1.1


def test_a_query_of_zeros_scores_nothing() -> None:
    rows = unit(np.random.default_rng(1).standard_normal((50, DIMENSIONS)).astype(np.float32))
    about, off = CoarseLook(stored_rows(rows, "fp32")).scores(np.zeros(DIMENSIONS, np.float32))
    assert np.abs(about).max() <= off + ROUNDING


@given(
    scores=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]) | st.floats(-1, 1), min_size=1, max_size=300),
    count=st.integers(1, 400),
    times=st.sampled_from([1, 10]),
)
def test_the_highest_are_found_wherever_they_stand(scores: list[float], count: int, times: int) -> None:
    values = np.array(scores * times)
    found = highest(values, count)
    assert len(set(found.tolist())) == min(count, len(values))
    assert sorted(values[found].tolist()) == sorted(values.tolist())[-count:]


def test_the_highest_are_found_where_a_sample_has_none_of_them() -> None:
    values = np.zeros(32_000)
    values[1::32] = np.arange(1000)
    assert sorted(values[highest(values, 700)].tolist()) == list(range(300, 1000))


def test_numbers_of_two_bytes_are_read_as_they_are() -> None:
    """Every one of them, the smallest and the largest too."""
    patterns = np.arange(2**16, dtype=np.uint16).view(np.float16)
    every = patterns[np.isfinite(patterns)].reshape(-1, 2**6)
    stored = stored_rows(np.zeros((len(every), 2**6), np.float32), "fp16")
    codes_of(stored)[:] = every.view(np.uint8)
    picked = np.array([7, 3, 3, len(every) - 1])
    assert (read_rows(stored, picked) == every[picked].astype(np.float32)).all()
    assert (read_rows(stored, slice(0, None)) == every.astype(np.float32)).all()
    assert read_rows(stored, np.empty(0, np.int64)).shape == (0, 2**6)


def test_two_threads_find_what_one_finds() -> None:
    rows = unit(np.random.default_rng(2).standard_normal((20_001, 8)).astype(np.float32))
    stored = stored_rows(rows, "fp32")
    products, found = nearest_rows(stored, rows[20_000], 300)
    expected = np.argsort(-(rows @ rows[20_000]), kind="stable")[:300]
    assert found[0] == 20_000
    assert set(found.tolist()) == set(expected.tolist())
    assert (np.diff(products) <= 0).all()

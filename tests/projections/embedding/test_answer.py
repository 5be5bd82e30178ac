"""Vectors are read in every shape in which endpoints give them; errors and nonsense are told apart."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.embedding.answer import Reported, rows_of

ONE, TWO = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]


def coded(vector: list[float]) -> str:
    return base64.b64encode(np.array(vector, "<f4").tobytes()).decode()


def item(vector: Any, **more: Any) -> dict[str, Any]:
    return {"object": "embedding", "embedding": vector, **more}


SHAPES: dict[str, Any] = {
    "openai": {"data": [item(ONE, index=0), item(TWO, index=1)]},
    "out of order": {"data": [item(TWO, index=1), item(ONE, index=0)]},
    "no index": {"data": [item(ONE), item(TWO)]},
    "null index": {"data": [item(ONE, index=None), item(TWO, index=None)]},
    "one index for all": {"data": [item(ONE, index=0), item(TWO, index=0)]},
    "base64": {"data": [item(coded(ONE), index=0), item(coded(TWO), index=1)]},
    "nested": {"data": [item([ONE], index=0), item([TWO], index=1)]},
    "llama.cpp": [{"index": 0, "embedding": [ONE]}, {"index": 1, "embedding": [TWO]}],
    "ollama": {"model": "m", "embeddings": [ONE, TWO]},
    "bare": [ONE, TWO],
    "error null": {"error": None, "data": [item(ONE, index=0), item(TWO, index=1)]},
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_gives_the_vectors_in_the_order_of_their_texts(name: str) -> None:
    rows = rows_of(json.dumps(SHAPES[name]).encode())
    np.testing.assert_array_equal(np.stack(rows), np.array([ONE, TWO], np.float32))


@pytest.mark.parametrize(
    "answer",
    [
        {"error": {"message": "out of memory"}},
        {"error": "out of memory"},
        {"detail": "out of memory"},
        {"message": "out of memory"},
        {"error": "out of memory", "data": []},
    ],
)
def test_an_error_inside_an_answer_is_told(answer: Any) -> None:
    with pytest.raises(Reported, match="out of memory"):
        rows_of(json.dumps(answer).encode())


@pytest.mark.parametrize("data", [[], None, [item(None)], [{"index": 0}], [item({"a": 1})], [item("no base64")], 7])
def test_what_is_no_list_of_vectors_is_refused(data: Any) -> None:
    with pytest.raises((ValueError, TypeError, LookupError)):
        rows_of(json.dumps({"data": data}).encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["data", "embedding", "index", "error", "embeddings"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_answer_raises_anything_else(answer: Any) -> None:
    try:
        rows = rows_of(json.dumps(answer).encode())
    except (Reported, ValueError, TypeError, LookupError):
        return
    assert all(isinstance(row, np.ndarray) for row in rows)

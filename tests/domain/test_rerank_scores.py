"""A rerank endpoint's answer is read as far as it can be read, whichever of the usual shapes it has."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.rerank_scores import LINE_CHARS_MAX, QUESTION_CHARS_MAX, read_scores, rerank_request
from tests.ledgers import START
from tests.memories import memory


def test_the_request_holds_dated_lines_of_limited_length() -> None:
    memories = [memory(1, summary="First."), memory(2, "x" * 5000)]
    body = rerank_request("m", "q" * 5000, START, memories)
    assert (body["model"], body["top_n"], len(body["query"])) == ("m", 2, QUESTION_CHARS_MAX)
    assert body["documents"][0] == f"({memories[0].ts:%Y-%m-%d}) First."
    assert len(body["documents"][1]) == LINE_CHARS_MAX + len("(2026-01-01) ")


@pytest.mark.parametrize(
    "raw",
    [
        {"results": [{"index": 2, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}]},
        {"id": "x", "results": [{"index": 0, "relevance_score": 0.1}, {"index": 2, "relevance_score": 0.9}]},
        {"data": [{"index": 2, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.1}], "object": "list"},
        {"results": [{"index": 2, "score": 0.9, "document": {"text": "x"}}, {"index": 0, "score": 0.1}]},
        [{"index": 2, "score": 0.9, "text": None}, {"index": 0, "score": 0.1}],
    ],
    ids=["vLLM, Jina, Cohere", "not in order", "data", "score", "bare list"],
)
def test_the_usual_shapes(raw: object) -> None:
    assert read_scores(json.dumps(raw), 3) == [(3, 0.9), (1, 0.1)]


def test_unknown_indices_and_scores_that_are_not_numbers_are_ignored() -> None:
    items: list[object] = [
        {"index": 0, "relevance_score": 0.5},
        {"index": 0, "relevance_score": 0.9},
        {"index": 3, "relevance_score": 0.9},
        {"index": -1, "relevance_score": 0.9},
        {"index": "1", "relevance_score": 0.9},
        {"index": True, "relevance_score": 0.9},
        {"index": 1, "relevance_score": "high"},
        {"index": 1, "relevance_score": float("nan")},
        {"index": 1},
        {"relevance_score": 1},
        None,
        7,
        {"index": 2, "relevance_score": -4},
    ]
    assert read_scores(json.dumps({"results": items}), 3) == [(1, 0.5), (3, -4.0)]


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "sorry",
        "null",
        "7",
        "[]",
        "{}",
        '{"results": []}',
        '{"results": {"index": 0}}',
        '{"results": [{"in',
        "[" * 9999,
    ],
)
def test_an_unreadable_answer_has_no_scores(raw: str) -> None:
    assert read_scores(raw, 3) is None


@given(st.lists(st.tuples(st.integers(-2, 8), st.floats(-10, 10)), max_size=12), st.integers(0, 6))
def test_each_number_comes_once_in_range_best_first(pairs: list[tuple[int, float]], count: int) -> None:
    raw = json.dumps([{"index": index, "score": score} for index, score in pairs])
    found = read_scores(raw, count) or []
    assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert {number for number, _ in found} == {index + 1 for index, _ in pairs if 0 <= index < count}
    assert len(found) == len({number for number, _ in found})

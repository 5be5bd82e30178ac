"""What an erasure takes for words about a memory, and what for the numbers that a decision consists of."""

from __future__ import annotations

import json
from typing import Any

import pytest

from domain.decisions import gate_format, rerank_format
from domain.quotes import has_words, repeats_documents

SCORED = [{"index": 0, "relevance_score": 0.9}, {"index": 1, "relevance_score": -3e-5}]


@pytest.mark.parametrize("form", [gate_format(9, reasons=False), rerank_format(9, 3)])
def test_a_form_filled_in_with_numbers_has_no_words(form: dict[str, Any]) -> None:
    fields = form["json_schema"]["schema"]["properties"]
    filled_in = json.dumps({field: [1, 2] for field in fields})
    assert not has_words(filled_in)
    assert not has_words(f"```json\n{filled_in}\n```")
    assert not has_words(filled_in[:-2])
    assert has_words(f"{filled_in} Ann's cat.")
    assert has_words(json.dumps({field: ["猫"] for field in fields}))


def test_reasons_are_words_and_their_form_is_not() -> None:
    assert not has_words(json.dumps({"keep": [], "reasons": [{"n": 1, "why": ""}]}))
    assert has_words(json.dumps({"keep": [], "reasons": [{"n": 1, "why": "cat"}]}))


@pytest.mark.parametrize(
    "answer",
    [
        {"id": "rerank-1", "model": "bge-reranker", "results": SCORED, "usage": {"total_tokens": 9}},
        {"id": "x", "results": SCORED, "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}},
        {"object": "list", "data": [{"index": 0, "score": 1}], "usage": {"prompt_tokens": 1, "total_tokens": 1}},
        SCORED,
        [],
    ],
)
def test_scores_repeat_no_document(answer: Any) -> None:
    assert not repeats_documents(json.dumps(answer))


@pytest.mark.parametrize(
    "raw",
    [
        json.dumps({"results": [{**SCORED[0], "document": {"text": "Ann's cat."}}]}),
        json.dumps({"results": [{**SCORED[0], "document": "猫"}]}),
        json.dumps({"results": [{**SCORED[0], "index": "Ann's cat."}]}),
        json.dumps({"Ann's cat.": 1}),
        json.dumps({"id": ["Ann's cat."]}),
        "no JSON, but a cat",
        "[" * 5000 + "cat",
    ],
)
def test_whatever_else_it_says_may(raw: str) -> None:
    assert repeats_documents(raw)


def test_who_was_not_asked_said_nothing() -> None:
    assert not has_words(None)
    assert not repeats_documents(None)

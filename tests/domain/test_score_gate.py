"""What stands out among the candidates of one question is kept, wherever the model's scores happen to lie."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.repeats import asks_the_same
from domain.score_gate import NEAREST_KEPT, SPREAD_MIN, rule_for, score_rule
from tests.memories import memory, ranked

FUSED = (2.1, 1.9, 0.2, 0.1, 0.0, -0.1)
SCORES = st.lists(st.floats(min_value=-1, max_value=1), min_size=1, max_size=60)


@given(SCORES)
def test_the_best_is_always_kept(scores: list[float]) -> None:
    assert score_rule(scores, None).threshold <= max(scores)


@given(SCORES, st.floats(min_value=-0.5, max_value=0.5))
def test_the_place_of_the_band_does_not_matter(scores: list[float], shift: float) -> None:
    here, there = score_rule(scores, None), score_rule([score + shift for score in scores], None)
    assert there.threshold == pytest.approx(here.threshold + shift, abs=1e-9)


def test_one_that_stands_out_is_kept_alone() -> None:
    scores = [0.90, 0.80, 0.79, 0.80, 0.81, 0.80]
    assert [score >= score_rule(scores, None).threshold for score in scores] == [True] + [False] * 5


def test_under_the_floor_nothing_is_kept() -> None:
    candidates = ranked([memory(1), memory(2)])
    assert candidates[0].dense_score is not None
    floor = candidates[0].dense_score + 0.001
    assert not any(rule_for("?", candidates, "dense", floor).keeps(candidate) for candidate in candidates)
    assert rule_for("?", candidates, "dense", None).keeps(candidates[0])


@given(SCORES, st.floats(min_value=0.01, max_value=100))
def test_the_scale_of_fused_scores_does_not_matter(scores: list[float], factor: float) -> None:
    here = score_rule(scores, None, "fused")
    there = score_rule([score * factor for score in scores], None, "fused")
    assert there.threshold == pytest.approx(here.threshold * factor, abs=1e-6)


def test_the_rule_is_made_of_the_scores_that_order_the_candidates() -> None:
    candidates = [
        replace(item, score=score, dense_score=None)
        for item, score in zip(ranked([memory(n) for n in range(1, 7)]), FUSED, strict=True)
    ]
    rule = rule_for("?", candidates, "hybrid", None)
    assert rule.scale == "fused"
    assert [rule.keeps(candidate) for candidate in candidates] == [True, True, False, False, False, False]


def test_the_nearest_in_meaning_are_kept_whatever_stands_out() -> None:
    asked = memory(1, "Where do I live?", "I do not know.")
    old, new = memory(2, "I live in Rome."), memory(3, "We moved, our home is Oslo now.")
    others = [memory(number) for number in range(4, 10)]
    found = ranked([asked, old, *others, new])
    cosines = (0.99, 0.90, *[0.79] * 4, 0.81, 0.80, 0.86)
    candidates = [
        replace(item, score=3.0 if item.memory is old else 0.0, dense_score=cosine)
        for item, cosine in zip(found, cosines, strict=True)
    ]
    rule = rule_for("Where do I live?", candidates, "hybrid", None)
    # The question itself, asked before, takes none of the places.
    kept = [candidate.dense_score for candidate in candidates if rule.keeps(candidate)]
    assert kept == [0.99, 0.90, 0.81, 0.80, 0.86]
    assert len(kept) == 1 + NEAREST_KEPT
    assert rule.as_event()["near"] == 0.80


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=20))
def test_the_nearest_add_to_what_stands_out(scores: list[tuple[float, float]]) -> None:
    found = ranked([memory(n) for n in range(1, len(scores) + 1)])
    candidates = [
        replace(item, score=score, dense_score=cosine) for item, (score, cosine) in zip(found, scores, strict=True)
    ]
    rule = rule_for("?", candidates, "hybrid", None)
    standing_out = score_rule([score for score, _ in scores], None, "fused")
    dropped = [candidate for candidate in candidates if not rule.keeps(candidate)]
    assert not any(standing_out.keeps(candidate) for candidate in dropped)
    assert len(candidates) - len(dropped) >= min(NEAREST_KEPT, len(candidates))


@given(SCORES)
def test_a_short_list_found_by_words_alone_is_kept_whole(scores: list[float]) -> None:
    rule = score_rule(scores, None, "bm25")
    kept = [score for score in scores if score >= rule.threshold]
    assert (kept == scores) if len(scores) < SPREAD_MIN else (max(scores) in kept)


def test_the_question_asked_before_does_not_push_out_the_fact() -> None:
    asked, fact = memory(1, "What is my dog called?"), memory(2, "My dog is called Rex.")
    others = [memory(number) for number in range(3, 9)]
    candidates = [
        replace(item, score=score, dense_score=None)
        for item, score in zip(ranked([asked, fact, *others]), (9.0, 2.0, *[0.5] * 6), strict=True)
    ]
    assert rule_for("What is my dog called?", candidates, "hybrid", None).keeps(candidates[1])
    assert not rule_for("And now?", candidates, "hybrid", None).keeps(candidates[1])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is my dog called?", "what is  my dog called", True),
        ("我的猫叫什么名字？", "我的猫叫什么名字", True),
        ("What is my dog called?", "What is my cat called?", False),
        ("What is my dog called?", "My dog is called Rex.", False),
    ],
)
def test_a_question_asked_again_is_recognised(one: str, other: str, same: bool) -> None:
    assert asks_the_same(one, other) is same

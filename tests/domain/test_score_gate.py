"""What stands out among the candidates of one question is kept, wherever the model's scores happen to lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.score_gate import asks_the_same, score_rule

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
    assert score_rule([0.70, 0.71], 0.75).threshold == 0.75


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

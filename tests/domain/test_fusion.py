"""Two rankings are fused: whatever the rule, both count, and a good memory boosts its neighbors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.fusion_rules import MinMax, ReciprocalRank
from domain.fusion import Fusion

RULES = (Fusion, MinMax, ReciprocalRank)
SCORES = st.dictionaries(st.integers(1, 30), st.floats(-1, 1), max_size=15)
MATCHES = st.dictionaries(st.integers(1, 30), st.floats(0.001, 20), max_size=15)


def best_first(scores: dict[int, float]) -> list[int]:
    return sorted(scores, key=lambda key: (-scores[key], key))


@pytest.mark.parametrize("rule", RULES)
class TestFuse:
    @given(dense=SCORES, lexical=MATCHES)
    def test_everything_found_has_one_score(
        self, rule: type[Fusion], dense: dict[int, float], lexical: dict[int, float]
    ) -> None:
        assert set(rule().fuse(dense, lexical)) == set(dense) | set(lexical)

    @given(dense=SCORES, lexical=MATCHES)
    def test_what_is_better_on_both_sides_is_better(
        self, rule: type[Fusion], dense: dict[int, float], lexical: dict[int, float]
    ) -> None:
        fused = rule().fuse(dense, lexical)
        both = sorted(set(dense) & set(lexical))
        for one in both:
            for other in both:
                if dense[one] > dense[other] and lexical[one] > lexical[other]:
                    assert fused[one] >= fused[other]

    @given(dense=SCORES)
    def test_without_lexical_hits_the_dense_order_stays(self, rule: type[Fusion], dense: dict[int, float]) -> None:
        fused = rule().fuse(dense, {})
        assert all(fused[one] >= fused[other] for one in dense for other in dense if dense[one] > dense[other])

    def test_a_memory_that_one_side_alone_found_is_not_lost(self, rule: type[Fusion]) -> None:
        dense = {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.69}
        assert best_first(rule().fuse(dense, {5: 7.0, 2: 6.5}))[0] == 2
        assert 5 in best_first(rule().fuse(dense, {5: 7.0}))[:2]

    def test_the_weight_decides_between_the_sides(self, rule: type[Fusion]) -> None:
        dense, lexical = {1: 0.9, 2: 0.5}, {2: 8.0, 1: 1.0}
        assert best_first(rule(dense_weight=0.8).fuse(dense, lexical)) == [1, 2]
        assert best_first(rule(dense_weight=0.2).fuse(dense, lexical)) == [2, 1]


def test_in_z_scores_both_sides_have_the_same_spread() -> None:
    assert Fusion().fuse({1: 0.80, 2: 0.82}, {1: 40.0, 2: 10.0}) == pytest.approx({1: 0.0, 2: 0.0})
    assert Fusion().fuse({1: 0.8}, {1: 3.0}) == {1: 0.0}
    assert Fusion().fuse({}, {}) == {}


def test_a_truncated_lexical_list_says_nothing_about_other_memories() -> None:
    fusion = MinMax(depth=2)
    assert fusion.fuse({3: 1.0, 1: 0.0}, {1: 8.0, 2: 7.0})[3] == pytest.approx(0.5)
    assert fusion.fuse({3: 1.0, 1: 0.0}, {1: 8.0})[3] == pytest.approx(0.5)


class TestNeighborBoost:
    fusion = Fusion(neighbor_boost=(0.5, 0.25))

    def test_the_best_boosts_both_sides_less_with_distance(self) -> None:
        boosted = self.fusion.boost_neighbors({10: 2.0, 11: -1.0}, {10: ((9, 11), (8, 12))})
        assert boosted == pytest.approx({10: 2.0, 11: 0.0, 9: 0.0, 8: -0.5, 12: -0.5})

    def test_of_two_boosts_the_better_one_counts(self) -> None:
        boosted = self.fusion.boost_neighbors({1: 2.0, 2: 0.0, 3: 1.0}, {1: ((2,),), 3: ((2,),)})
        assert boosted[2] == pytest.approx(1.0)

    def test_only_the_best_above_the_mean_boost_others(self) -> None:
        assert self.fusion.boosting({1: 2.0, 2: 0.0, 3: -1.0}) == [1]
        assert Fusion(boosting_max=2).boosting({1: 1.0, 2: 3.0, 3: 2.0}) == [2, 3]
        assert self.fusion.boost_neighbors({}, {}) == {}

    @given(SCORES)
    def test_no_score_falls(self, scores: dict[int, float]) -> None:
        neighbors = {key: ((key - 1, key + 1), (key - 2, key + 2)) for key in Fusion().boosting(scores)}
        boosted = Fusion().boost_neighbors(scores, neighbors)
        assert all(boosted[key] >= score for key, score in scores.items())


def test_the_ledger_keeps_the_rule_and_its_numbers() -> None:
    assert Fusion().as_event() == {
        "rule": "z-score",
        "dense_weight": 0.5,
        "depth": 150,
        "lent": [0.6, 0.5],
        "lenders": 30,
    }

"""Two rankings made one, and what a memory gains from standing beside a good one. Pure.

Vectors know what is meant, words know names and numbers. Their scores have no common scale, so each list is brought to
one before they are added: by its mean and standard deviation (*z-score*), its least and greatest score (*min-max*), or
by ranks alone (*reciprocal rank fusion*, Cormack et al. 2009). On five LoCoMo conversations z-scores were best and
ranks clearly worst, as in arXiv 2606.04194; both sides count the same.

What answers a question is often said beside the line that repeats its words ("Where was that?" - "In Rome"). So a good
memory lends to the turns one and two before and after it, nearly as much at two, where in a dialogue the same person
speaks again. The shares were chosen on four of the five conversations and checked on the fifth, each in turn: four of
five choices fell on these, and from 0.5 to 0.7 all do nearly as well. Twice the lenders, or 200 of each ranking, find
no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean
from typing import Literal

from domain.events import JsonObject

Rule = Literal["z-score", "min-max", "reciprocal-rank"]
Scores = Mapping[int, float]
"""A ranking: keys (a memory's position) with their scores, higher is better."""

RANK_CONSTANT = 60
"""Of reciprocal rank fusion, from its paper."""


@dataclass(frozen=True, slots=True)
class Fusion:
    """How two rankings are made one.

    ``dense_weight`` is the share of the vectors, the words have the rest. ``depth`` is how many of each are asked for.
    The best ``lenders`` lend ``lent[0]`` of their score to the turns beside them, ``lent[1]`` to those at distance two.
    """

    rule: Rule = "z-score"
    dense_weight: float = 0.5
    depth: int = 150
    lent: tuple[float, ...] = (0.6, 0.5)
    lenders: int = 30

    def as_event(self) -> JsonObject:
        """Return what the ledger keeps of it."""
        return {
            "rule": self.rule,
            "dense_weight": self.dense_weight,
            "depth": self.depth,
            "lent": list(self.lent),
            "lenders": self.lenders,
        }

    def fuse(self, dense: Scores, lexical: Scores) -> dict[int, float]:
        """Return one score for each memory that either ranking holds.

        A memory that a ranking does not hold has that ranking's least score; and a BM25 of 0, where the words' list
        ended because no other memory shares a word with the question.
        """
        keys = list({**dense, **lexical})
        if self.rule == "reciprocal-rank":
            scaled = _reciprocal_ranks(dense, keys), _reciprocal_ranks(lexical, keys)
        else:
            all_matches = len(lexical) < self.depth
            sides = (
                _filled(dense, keys, min(dense.values(), default=0.0)),
                _filled(lexical, keys, 0.0 if all_matches else min(lexical.values(), default=0.0)),
            )
            scale = _z_scores if self.rule == "z-score" else _min_max
            scaled = scale(sides[0]), scale(sides[1])
        share = self.dense_weight
        return {key: share * one + (1 - share) * other for key, one, other in zip(keys, *scaled, strict=True)}

    def lenders_of(self, scores: Scores) -> list[int]:
        """Return the best memories that have something to lend: a z-score below the mean is none."""
        return [key for key in best_first(scores)[: self.lenders] if scores[key] > 0]

    def lend(self, scores: Scores, beside: Mapping[int, Sequence[Sequence[int]]]) -> dict[int, float]:
        """Return the scores with what was lent.

        ``beside`` gives for each lender the memories at distance one, two and so on, none of which need be among
        ``scores``: a memory that no ranking held starts from the least of them. Of several lenders at the same distance
        the best one lends.
        """
        floor = min(scores.values(), default=0.0)
        lent: dict[tuple[int, int], float] = {}
        for lender, rings in beside.items():
            for distance, keys in enumerate(rings[: len(self.lent)]):
                for key in keys:
                    place = (key, distance)
                    lent[place] = max(lent.get(place, 0.0), scores[lender])
        total = dict(scores)
        for (key, distance), score in lent.items():
            total[key] = total.get(key, floor) + self.lent[distance] * score
        return total


def best_first(scores: Scores) -> list[int]:
    """Return the keys by their scores, the highest first, of equals the older memory first."""
    # Two plain sorts, the second one stable also where it reverses, are quicker than one by a key made of both.
    return sorted(sorted(scores), key=scores.__getitem__, reverse=True)


def _filled(scores: Scores, keys: Sequence[int], missing: float) -> list[float]:
    return [scores.get(key, missing) for key in keys]


def _z_scores(values: Sequence[float]) -> list[float]:
    """Return how many standard deviations each value lies above the mean; zeros where all are alike."""
    if not values or min(values) == max(values):
        return [0.0] * len(values)
    mean = fmean(values)
    apart = [value - mean for value in values]
    # statistics.pstdev counts in fractions, at ten times the cost.
    deviation = sqrt(fmean([distance * distance for distance in apart]))
    return [distance / deviation if deviation else 0.0 for distance in apart]


def _min_max(values: Sequence[float]) -> list[float]:
    """Return the values from 0 (the least) to 1 (the greatest); zeros where all are alike."""
    least, greatest = min(values, default=0.0), max(values, default=0.0)
    return [(value - least) / (greatest - least) if greatest > least else 0.0 for value in values]


def _reciprocal_ranks(scores: Scores, keys: Sequence[int]) -> list[float]:
    ranks = {key: rank for rank, key in enumerate(best_first(scores), start=1)}
    return [1 / (RANK_CONSTANT + ranks[key]) if key in ranks else 0.0 for key in keys]

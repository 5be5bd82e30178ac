"""Fuses two rankings into one, and lets a good memory boost its neighbors. Pure.

Dense search knows what is meant, lexical search knows names and numbers. Their scores have no common scale, so each
list is standardised (z-scores) before the two are added. What the figures below were chosen by is in
``docs/decisions/0020-hybrid-ranking.md``; other rules are compared in ``benchmarks/fusion_rules.py``.

The answer to a question often stands beside the line that repeats its words ("Where was that?" - "In Rome"). So a good
memory boosts the turns one and two before and after it, nearly as much at two, where in a dialogue the same person
speaks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean

from domain.events import JsonObject

Scores = Mapping[int, float]
"""A ranking: keys (a memory's position) with their scores, higher is better."""


@dataclass(frozen=True)
class Fusion:
    """How two rankings are fused.

    ``dense_weight`` is the share of the dense ranking, the lexical one has the rest. ``depth`` is how many hits of each
    are asked for. The best ``boosting_max`` memories add ``neighbor_boost[0]`` of their score to the turns beside them,
    and ``neighbor_boost[1]`` to those two turns away.
    """

    dense_weight: float = 0.5
    depth: int = 150
    neighbor_boost: tuple[float, ...] = (0.6, 0.5)
    boosting_max: int = 30

    @property
    def rule(self) -> str:
        """What the ledger calls the way in which scores are brought to one scale."""
        return "z-score"

    def as_event(self) -> JsonObject:
        """Return what the ledger keeps of it, in the ledger's own words."""
        return {
            "rule": self.rule,
            "dense_weight": self.dense_weight,
            "depth": self.depth,
            "lent": list(self.neighbor_boost),
            "lenders": self.boosting_max,
        }

    def fuse(self, dense: Scores, lexical: Scores) -> dict[int, float]:
        """Return one score for each memory that either ranking holds.

        A memory that a ranking does not hold has that ranking's least score. A lexical ranking shorter than ``depth``
        holds every memory that shares a word with the question, so the others have a BM25 of 0.
        """
        keys = list({**dense, **lexical})
        all_matches = len(lexical) < self.depth
        sides = zip(
            keys,
            self.scaled(dense, keys, min(dense.values(), default=0.0)),
            self.scaled(lexical, keys, 0.0 if all_matches else min(lexical.values(), default=0.0)),
            strict=True,
        )
        share = self.dense_weight
        return {key: share * one + (1 - share) * other for key, one, other in sides}

    def scaled(self, scores: Scores, keys: Sequence[int], missing: float) -> list[float]:
        """Return how many standard deviations each key's score lies above the mean; zeros where all are alike.

        A key that has no score counts with ``missing``.
        """
        values = [scores.get(key, missing) for key in keys]
        if not values or min(values) == max(values):
            return [0.0] * len(values)
        mean = fmean(values)
        distances = [value - mean for value in values]
        # statistics.pstdev computes in fractions, at many times the cost.
        deviation = sqrt(fmean([distance * distance for distance in distances]))
        return [distance / deviation if deviation else 0.0 for distance in distances]

    def boosting(self, scores: Scores) -> list[int]:
        """Return the best memories that have something to give: a z-score below the mean is nothing."""
        return [key for key in best_first(scores)[: self.boosting_max] if scores[key] > 0]

    def boost_neighbors(self, scores: Scores, neighbors: Mapping[int, Sequence[Sequence[int]]]) -> dict[int, float]:
        """Return the scores with what neighbors gained.

        ``neighbors`` gives for each boosting memory those at distance one, two and so on. They need not be among
        ``scores``: a memory that no ranking held starts from the least of them. Of several boosts from the same
        distance the best one counts.
        """
        floor = min(scores.values(), default=0.0)
        boosts: dict[tuple[int, int], float] = {}
        for boosting, rings in neighbors.items():
            for distance, keys in enumerate(rings[: len(self.neighbor_boost)]):
                for key in keys:
                    place = (key, distance)
                    boosts[place] = max(boosts.get(place, 0.0), scores[boosting])
        total = dict(scores)
        for (key, distance), score in boosts.items():
            total[key] = total.get(key, floor) + self.neighbor_boost[distance] * score
        return total


def best_first(scores: Scores) -> list[int]:
    """Return the keys by their scores, the highest first; of equals the older memory first."""
    # Two plain sorts, the second one stable also in reverse, are quicker than one by a pair.
    return sorted(sorted(scores), key=scores.__getitem__, reverse=True)

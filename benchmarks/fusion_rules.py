"""Other ways to bring two rankings to one scale, to compare with the product's: see ``domain/fusion.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.fusion import Fusion, Scores, best_first

RANK_CONSTANT = 60
"""Of reciprocal rank fusion, from its paper (Cormack et al. 2009)."""


@dataclass(frozen=True)
class MinMax(Fusion):
    """Scales each list from 0 (its least score) to 1 (its greatest); zeros where all are alike."""

    @property
    def rule(self) -> str:
        return "min-max"

    def scaled(self, scores: Scores, keys: Sequence[int], missing: float) -> list[float]:
        values = [scores.get(key, missing) for key in keys]
        least, greatest = min(values, default=0.0), max(values, default=0.0)
        return [(value - least) / (greatest - least) if greatest > least else 0.0 for value in values]


@dataclass(frozen=True)
class ReciprocalRank(Fusion):
    """Goes by ranks alone; what a list does not hold gets nothing from it."""

    @property
    def rule(self) -> str:
        return "reciprocal-rank"

    def scaled(self, scores: Scores, keys: Sequence[int], missing: float) -> list[float]:  # noqa: ARG002
        ranks = {key: rank for rank, key in enumerate(best_first(scores), start=1)}
        return [1 / (RANK_CONSTANT + ranks[key]) if key in ranks else 0.0 for key in keys]

"""The gate by scores alone: which of one question's candidates stand out. Pure.

Scores live in a band whose place moves with the model, the language, the question and the size of the memory, so a
fixed threshold does not travel. What stands out from *this* list does: a memory is kept when its score is a standard
deviation above the list's mean, or as good as the best one. The score is the one that orders the candidates: fused
(hybrid), cosine (dense) or BM25 (lexical). No score tells that *no* memory answers, so the best candidate is always
kept, unless an operator sets a floor. Why these numbers: ``docs/decisions/0023-score-gate.md``.

The few memories nearest in meaning are kept, too. In a short list, what stands out may be the one statement that
repeats the question's words, and the newer one that takes it back in other words would be lost
(``docs/decisions/0064-believe-what-changed.md``).

Nothing is as near to a question as the same question asked before, whatever was answered then. Such repeats do not
count when the threshold is computed: they would push out the fact that the question is after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from statistics import fmean, pstdev
from typing import Literal

from domain.events import JsonObject, RetrievalMode
from domain.repeats import asks_the_same
from domain.retrieval import Candidate

DEVIATIONS = 1.0
NEAR_TOP = 0.015
"""A cosine this close to the best one is as good as the best; a list too short to have a spread would lose it."""
NEAR_TOP_DEVIATIONS = 0.25
"""The same for scores whose scale is not known beforehand, in standard deviations."""
SPREAD_MIN = 8
"""A shorter lexical list has no spread to speak of and is kept whole."""

NEAREST_KEPT = 4
"""So many of the highest cosines are kept whatever the scores say."""

Scale = Literal["fused", "cosine", "bm25"]
_SCALES: dict[RetrievalMode, Scale] = {"hybrid": "fused", "dense": "cosine", "lexical": "bm25"}


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """The threshold for one list of candidates, and what it was computed from.

    ``floor`` is a cosine below which nothing is kept, ``near`` one from which on everything else is kept.
    """

    scale: Scale
    threshold: float
    mean: float
    deviation: float
    floor: float | None
    near: float | None = None

    def as_event(self) -> JsonObject:
        """Return what the ledger keeps of it."""
        near = f"{NEAR_TOP:g}" if self.scale == "cosine" else f"{NEAR_TOP_DEVIATIONS:g} deviation"
        few = f", or fewer than {SPREAD_MIN}" if self.scale == "bm25" else ""
        return {
            "rule": f"score >= mean + {DEVIATIONS:g} deviation, or >= top - {near}{few}, or one of the {NEAREST_KEPT} "
            "highest cosines; no cosine below the floor",
            "scale": self.scale,
            "threshold": round(self.threshold, 6),
            "mean": round(self.mean, 6),
            "deviation": round(self.deviation, 6),
            "floor": self.floor,
            "near": round(self.near, 6) if self.near is not None else None,
        }

    def keeps(self, candidate: Candidate) -> bool:
        """Tell whether a candidate stands out or is near. One without a vector is never below the floor."""
        known = candidate.dense_score
        if self.floor is not None and known is not None and known < self.floor:
            return False
        near = self.near is not None and known is not None and known >= self.near
        return near or candidate.score >= self.threshold


def score_rule(scores: Sequence[float], floor: float | None, scale: Scale = "cosine") -> ScoreRule:
    """Return the rule for the scores (at least one) of one question's candidates.

    ``floor`` is a cosine below which nothing is kept, whatever stands out.
    """
    mean, deviation = fmean(scores), pstdev(scores)
    if scale == "bm25" and len(scores) < SPREAD_MIN:
        return ScoreRule(scale, min(scores), mean, deviation, floor)
    near = NEAR_TOP if scale == "cosine" else NEAR_TOP_DEVIATIONS * deviation
    return ScoreRule(scale, min(mean + DEVIATIONS * deviation, max(scores) - near), mean, deviation, floor)


def rule_for(question: str, candidates: Sequence[Candidate], mode: RetrievalMode, floor: float | None) -> ScoreRule:
    """Return the rule for a question's candidates (at least one), which were found in a ``mode``."""
    new = [item for item in candidates if not asks_the_same(question, item.memory.user)] or candidates
    rule = score_rule([item.score for item in new], floor, _SCALES[mode])
    cosines = nlargest(NEAREST_KEPT, (item.dense_score for item in new if item.dense_score is not None))
    return replace(rule, near=min(cosines, default=None))

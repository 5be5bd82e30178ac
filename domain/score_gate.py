"""The gate by scores alone: which of one question's candidates stand out. Pure.

Scores live in a band whose place moves with the model, the language, the question and the size of the memory, so a
fixed threshold does not travel. What stands out from *this* list of candidates does: a memory is kept when its score is
a standard deviation above the list's mean, or as good as the best one. The score is the one that orders the candidates:
the fused one where vectors and words were asked, else the cosine or BM25.

For cosines the numbers were chosen with ``benchmarks/gate_threshold.py`` on a hand-made English and Chinese set and two
LoCoMo conversations, and checked on three others: balanced accuracy 0.83 and 0.79, against 0.77 and 0.72 for the best
fixed threshold. For fused scores the same deviation was best or nearly so on each of five conversations, of those from
0.5 to 1.5: balanced accuracy 0.86; it keeps 0.77 of the evidence in 8 memories, where cosines over the same candidates
keep 0.54. By BM25 alone it is 0.85; but there a short list, a few memories that share a word with the question, has no
spread to speak of: of 62 pieces of evidence in the hand-made set it lost 13, and none where such a list is kept whole.

Nothing here tells that *no* memory answers (``benchmarks/score_gate.py``). The best cosine of a list tells questions
about strangers from others (AUC 0.99), but by their names: about people whom memory knows it is 0.79, and 0.80 on the
hand-made set, so that a floor which costs 2 % of the evidence spares a sixth of what is kept in vain. Margins, BM25 and
fused scores spare a third at most, and each language has its band. So the best is always kept, unless an operator sets
a floor.

Nothing is as near to a question as the same question asked before, whatever was answered then. Such repeats are left
out when the rule is made, or they would push out the fact that the question is after.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Literal

from domain.events import JsonObject, RetrievalMode
from domain.retrieval import Candidate

DEVIATIONS = 1.0
NEAR_TOP = 0.015
"""This close to the best cosine a memory is as good as the best; a list too short to have a spread would lose it."""
NEAR_TOP_DEVIATIONS = 0.25
"""The same for scores whose scale is not known beforehand, in deviations."""
SPREAD_MIN = 8
"""Fewer memories that the words alone found are kept as they are."""


Scale = Literal["fused", "cosine", "bm25"]
_SCALES: dict[RetrievalMode, Scale] = {"hybrid": "fused", "dense": "cosine", "lexical": "bm25"}


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """The threshold for one list of candidates, and what it came from. ``floor`` is a cosine."""

    scale: Scale
    threshold: float
    mean: float
    deviation: float
    floor: float | None

    def as_event(self) -> JsonObject:
        """Return what the ledger keeps of it."""
        near = f"{NEAR_TOP:g}" if self.scale == "cosine" else f"{NEAR_TOP_DEVIATIONS:g} deviation"
        few = f", or fewer than {SPREAD_MIN}" if self.scale == "bm25" else ""
        return {
            "rule": f"score >= mean + {DEVIATIONS:g} deviation, or >= top - {near}{few}; no cosine below the floor",
            "scale": self.scale,
            "threshold": round(self.threshold, 6),
            "mean": round(self.mean, 6),
            "deviation": round(self.deviation, 6),
            "floor": self.floor,
        }

    def keeps(self, candidate: Candidate) -> bool:
        """Tell whether a candidate stands out. One that has no vector yet cannot be under the floor."""
        known = candidate.dense_score
        return candidate.score >= self.threshold and (self.floor is None or known is None or known >= self.floor)


def asks_the_same(question: str, other: str) -> bool:
    """Tell whether two questions are the same but for case, punctuation and blanks."""
    return _words(question) == _words(other)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


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
    new = [item.score for item in candidates if not asks_the_same(question, item.memory.user)]
    return score_rule(new or [item.score for item in candidates], floor, _SCALES[mode])

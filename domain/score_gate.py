"""The gate by similarity alone: which scores of one question's candidates stand out. Pure.

The scores of an embedding model live in a narrow band whose place moves with the language, the question and the size of
the memory, so a fixed threshold does not travel. What stands out from *this* list of candidates does: a memory is kept
when its score is a standard deviation above the list's mean, or as good as the best one. The numbers were chosen with
``benchmarks/gate_threshold.py`` on a hand-made English and Chinese set and two LoCoMo conversations, and checked on
three others: balanced accuracy 0.83 and 0.79, against 0.77 and 0.72 for the best fixed threshold.

Nothing is as near to a question as the same question asked before, whatever was answered then. Such repeats are left
out when the rule is made, or they would push out the fact that the question is after.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from domain.events import JsonObject

DEVIATIONS = 1.0
NEAR_TOP = 0.015
"""This close to the best score a memory is as good as the best; a list too short to have a spread would lose it."""


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """The threshold for one list of candidates, and what it came from."""

    threshold: float
    mean: float
    deviation: float
    floor: float | None

    def as_event(self) -> JsonObject:
        """Return what the ledger keeps of it."""
        return {
            "rule": f"score >= mean + {DEVIATIONS:g} deviation, or >= top - {NEAR_TOP:g}; never below the floor",
            "threshold": round(self.threshold, 6),
            "mean": round(self.mean, 6),
            "deviation": round(self.deviation, 6),
            "floor": self.floor,
        }


def asks_the_same(question: str, other: str) -> bool:
    """Tell whether two questions are the same but for case, punctuation and blanks."""
    return _words(question) == _words(other)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def score_rule(scores: Sequence[float], floor: float | None) -> ScoreRule:
    """Return the rule for the similarity scores (at least one) of one question's candidates.

    ``floor`` is a score below which nothing is kept, whatever stands out.
    """
    mean, deviation = fmean(scores), pstdev(scores)
    threshold = min(mean + DEVIATIONS * deviation, max(scores) - NEAR_TOP)
    return ScoreRule(threshold if floor is None else max(threshold, floor), mean, deviation, floor)

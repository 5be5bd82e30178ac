"""How good a ranking is: how much of the evidence is among the first k, and how early it comes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import log2


def recall(ranked: Sequence[int], evidence: Collection[int], k: int) -> float:
    """Return the share of the evidence that is among the first ``k``."""
    return len(set(ranked[:k]) & set(evidence)) / len(evidence)


def recall_any(ranked: Sequence[int], evidence: Collection[int], k: int) -> float:
    """Return 1 if any of the evidence is among the first ``k``, else 0."""
    return float(bool(set(ranked[:k]) & set(evidence)))


def recall_all(ranked: Sequence[int], evidence: Collection[int], k: int) -> float:
    """Return 1 if all of the evidence is among the first ``k``, else 0."""
    return float(set(evidence) <= set(ranked[:k]))


def reciprocal_rank(ranked: Sequence[int], evidence: Collection[int]) -> float:
    """Return one over the rank of the first evidence, 0 if none was found."""
    return next((1 / rank for rank, item in enumerate(ranked, start=1) if item in evidence), 0.0)


def ndcg(ranked: Sequence[int], evidence: Collection[int], k: int) -> float:
    """Return the discounted gain of the first ``k``, divided by that of the best order; all evidence is equal."""
    gain = sum(1 / log2(rank + 1) for rank, item in enumerate(ranked[:k], start=1) if item in evidence)
    best = sum(1 / log2(rank + 1) for rank in range(1, min(k, len(evidence)) + 1))
    return gain / best


def without_repeats(ranked: Sequence[int]) -> list[int]:
    """Return a ranking with only the first of equal items, as when turns stand for their sessions."""
    return list(dict.fromkeys(ranked))

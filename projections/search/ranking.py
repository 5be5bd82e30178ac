"""From the hits of the two indices to candidates: fused where both were asked, ordered, and read from the ledger.

The same for a turn of today and for a question about the past, so that the one can be made again by the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from domain.fusion import Fusion, best_first
from domain.ledger_reader import LedgerReader
from domain.memory import Memory
from domain.retrieval import Candidate
from domain.statements import LATEST
from domain.temporal.preference import prefer
from domain.temporal.time_range import TimeRange
from projections.dense.user_index import DenseHit
from projections.lexical.index import LexicalHit

_POOL_FOR_TIME = 3
"""So many times the wanted number of memories are looked at for being of the time that a question names."""

H = TypeVar("H", DenseHit, LexicalHit)
Cosines = Callable[[Sequence[int]], Mapping[int, float]]
"""Gives the similarity to the question of memories by their positions, as far as they have vectors."""


@dataclass(frozen=True, slots=True)
class ByVectors:
    """What the vectors found, best first, and how to learn how similar other memories are."""

    hits: Sequence[DenseHit]
    cosines: Cosines


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates, best first; ``fusion`` is the rule by which two rankings were made one, None where there was one."""

    candidates: list[Candidate]
    fusion: Fusion | None


def ranking(
    reader: LedgerReader,
    user_id: str,
    dense: ByVectors | None,
    lexical: Sequence[LexicalHit] | None,
    fusion: Fusion,
    count: int,
    *,
    wanted: TimeRange | None = None,
    as_of: int = LATEST,
) -> Ranking:
    """Return the ``count`` best of what was found, as their memories stood ``as_of`` a position; None was not asked.

    ``wanted`` is the time that the question names: memories of that time gain (see :mod:`domain.temporal.preference`).
    """
    by_vectors = _places(dense.hits) if dense is not None else {}
    by_words = _places(lexical) if lexical is not None else {}
    scores = _scores(by_vectors) or _scores(by_words)
    fused = dense is not None and lexical is not None
    if fused:
        scores = fusion.fuse(_scores(by_vectors), _scores(by_words))
        lenders = fusion.lenders_of(scores)
        scores = fusion.lend(scores, reader.positions_beside(user_id, lenders, as_of=as_of))
    best = best_first(scores)[: count if wanted is None else _POOL_FOR_TIME * count]
    memories = reader.memories(user_id, best, as_of=as_of)
    if wanted is not None:
        best = [position for position in best if position in memories]
        times = [memories[position].ts for position in best]
        scores = dict(zip(best, prefer([scores[position] for position in best], times, wanted), strict=True))
        best = best_first(scores)[:count]
    # What the words or a turn beside it brought in has a similarity too, and the gate may want to know it.
    unknown = [position for position in best if position not in by_vectors]
    cosines = dense.cosines(unknown) if dense is not None and unknown else {}
    return Ranking(
        [
            _candidate(memories[position], rank, scores[position], by_vectors, by_words, cosines)
            for rank, position in enumerate((position for position in best if position in memories), start=1)
        ],
        fusion if fused else None,
    )


def _places(hits: Sequence[H]) -> dict[int, tuple[H, int]]:
    """Return hits with their ranks, from 1, by the positions of their memories."""
    return {hit.turn_position: (hit, rank) for rank, hit in enumerate(hits, start=1)}


def _scores(places: Mapping[int, tuple[DenseHit | LexicalHit, int]]) -> dict[int, float]:
    return {position: hit.score for position, (hit, _) in places.items()}


def _candidate(
    memory: Memory,
    rank: int,
    score: float,
    by_vectors: Mapping[int, tuple[DenseHit, int]],
    by_words: Mapping[int, tuple[LexicalHit, int]],
    cosines: Mapping[int, float],
) -> Candidate:
    near, dense_rank = by_vectors.get(memory.position, (None, None))
    alike, lexical_rank = by_words.get(memory.position, (None, None))
    return Candidate(
        memory=memory,
        score=score,
        rank=rank,
        matched=near.matched if near is not None else None,
        dense_score=near.score if near is not None else cosines.get(memory.position),
        dense_rank=dense_rank,
        lexical_score=alike.score if alike is not None else None,
        lexical_rank=lexical_rank,
    )

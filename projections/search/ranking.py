"""From the hits of the two indices to candidates: fused where both were searched, ordered, and read from the ledger.

A turn of today and a question about the past rank alike, so that the one can be reproduced by the other.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

from domain.fusion import Fusion, best_first
from domain.ledger_reader import LedgerReader, turn_chars_max
from domain.repeats import repeats
from domain.retrieval import Candidate
from domain.statements import LATEST
from domain.temporal.preference import prefer
from domain.temporal.time_range import TimeRange
from projections.dense.user_index import DenseHit
from projections.lexical.index import LexicalHit

_POOL_FOR_TIME = 3
"""Where a question names a time, this many times the wanted number of memories are considered."""

Cosines = Callable[[Sequence[int]], Mapping[int, float]]
"""Gives the similarity to the question of memories by their positions, as far as they have vectors."""


@dataclass(frozen=True, slots=True)
class DenseHits:
    """What dense search found, best first, and how to learn the similarity of other memories."""

    hits: Sequence[DenseHit]
    cosines: Cosines


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates, best first, and the rule by which two rankings were fused; None where there was one ranking."""

    candidates: list[Candidate]
    fusion: Fusion | None


def ranking(
    reader: LedgerReader,
    user_id: str,
    query: str,
    dense: DenseHits | None,
    lexical: Sequence[LexicalHit] | None,
    fusion: Fusion,
    count: int,
    *,
    wanted: TimeRange | None = None,
    as_of: int = LATEST,
) -> Ranking:
    """Return the ``count`` best of what was found, as their memories stood ``as_of`` a position.

    None stands for an index that was not searched. ``wanted`` is the time that the ``query`` names: memories of that
    time gain (see :mod:`domain.temporal.preference`). A memory that a newer one of them repeats (see
    :mod:`domain.repeats`) is among the candidates as excluded, and not counted; the newer one stands in the better
    place of the two.
    """
    dense_scores = {hit.turn_position: hit.score for hit in dense.hits} if dense is not None else {}
    lexical_scores = {hit.turn_position: hit.score for hit in lexical} if lexical is not None else {}
    scores = dense_scores or lexical_scores
    fused = dense is not None and lexical is not None
    if fused:
        scores = fusion.fuse(dense_scores, lexical_scores)
        neighbors = reader.positions_beside(user_id, fusion.boosting(scores), as_of=as_of)
        scores = fusion.boost_neighbors(scores, neighbors)
    ordered = best_first(scores)
    pool = count if wanted is None else _POOL_FOR_TIME * count
    chars_max = turn_chars_max(pool)
    memories = reader.memories(user_id, ordered[:pool], as_of=as_of, chars_max=chars_max)
    repeated = repeats(query, list(memories.values()), wanted)
    while len(memories) - len(repeated) < count and pool < len(ordered):
        more = reader.memories(user_id, ordered[pool : 2 * pool], as_of=as_of, chars_max=chars_max)
        memories = {**memories, **more}
        repeated = repeats(query, list(memories.values()), wanted)
        pool *= 2
    best = [position for position in ordered[:pool] if position in memories]
    scores = {position: scores[position] for position in best}
    if wanted is not None:
        times = [memories[position].ts for position in best]
        scores = dict(zip(best, prefer(list(scores.values()), times, wanted), strict=True))
    for older, (newer, _) in repeated.items():
        scores[newer] = max(scores[newer], scores[older])
    best = list(_until(count, best_first(scores), repeated))
    # What lexical search or a neighbor's boost brought in has a similarity too, and the gate may want to know it.
    unknown = [position for position in best if position not in dense_scores]
    cosines = {**dense_scores, **dense.cosines(unknown)} if dense is not None and unknown else dense_scores
    dense_ranks, lexical_ranks = _ranks(dense_scores), _ranks(lexical_scores)
    matched = {hit.turn_position: hit.matched for hit in dense.hits} if dense is not None else {}
    candidates = [
        Candidate(
            memory=memories[position],
            score=scores[position],
            rank=rank,
            matched=matched.get(position),
            dense_score=cosines.get(position),
            dense_rank=dense_ranks.get(position),
            lexical_score=lexical_scores.get(position),
            lexical_rank=lexical_ranks.get(position),
            excluded=repeated[position].why if position in repeated else None,
        )
        for rank, position in enumerate(best, start=1)
    ]
    return Ranking(candidates, fusion if fused else None)


def _until(count: int, best: Sequence[int], excluded: Container[int]) -> Iterator[int]:
    """Yield the first ``count`` that are not excluded, and the excluded ones met on the way."""
    for position in best:
        if count == 0:
            return
        yield position
        count -= position not in excluded


def _ranks(scores: Mapping[int, float]) -> dict[int, int]:
    """Return the ranks, from 1, of scores that come best first."""
    return {position: rank for rank, position in enumerate(scores, start=1)}

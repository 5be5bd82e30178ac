"""Exclude candidates that the window shows or that repeat; split the kept ones into replayed and summarised. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from domain.client_messages import WindowTurn
from domain.events import CandidateFound, Facet
from domain.memory import Memory, Scores
from domain.repeats import Repeat

Exclusion = Literal["recent_window", "same_text_as_window", "left_behind"] | Repeat


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory that was found, and how. Candidates are ordered by ``score``; ``rank`` counts from 1.

    ``dense_score`` is the cosine with the question (-1 to 1), ``lexical_score`` is BM25; each is None if not known.
    A rank is None if that index did not find the memory; ``matched`` is None if the dense index did not.
    """

    memory: Memory
    score: float
    rank: int
    matched: Facet | None = None
    dense_score: float | None = None
    dense_rank: int | None = None
    lexical_score: float | None = None
    lexical_rank: int | None = None
    excluded: Exclusion | None = None

    @classmethod
    def by_vectors(cls, memory: Memory, score: float, rank: int, matched: Facet) -> Candidate:
        """Return a candidate that only the dense index found."""
        return cls(memory, score, rank, matched, dense_score=score, dense_rank=rank)

    @classmethod
    def found_before(cls, found: CandidateFound, memory: Memory) -> Candidate:
        """Return a candidate as it is recorded."""
        return cls(
            memory,
            found.score,
            found.rank,
            found.matched,
            found.dense_score,
            found.dense_rank,
            found.lexical_score,
            found.lexical_rank,
            found.excluded,
        )

    @property
    def scores(self) -> Scores:
        return Scores(self.score, self.dense_score, self.lexical_score)

    def as_event(self) -> CandidateFound:
        """Return the candidate as the ledger records it."""
        return CandidateFound(
            memory_id=self.memory.memory_id,
            turn_position=self.memory.position,
            conversation_id=self.memory.conversation_id,
            turn_id=self.memory.turn_id,
            score=round(self.score, 6),
            rank=self.rank,
            dense_score=_rounded(self.dense_score),
            dense_rank=self.dense_rank,
            lexical_score=_rounded(self.lexical_score),
            lexical_rank=self.lexical_rank,
            matched=self.matched,
            summary_position=self.memory.summary_position,
            excluded=self.excluded,
        )


def exclude_window(
    candidates: Sequence[Candidate],
    window: Sequence[WindowTurn],
    limit: int,
    left_behind: Collection[str] = frozenset(),
) -> tuple[list[Candidate], list[Candidate]]:
    """Exclude candidates that the recent window already shows, and turns that the conversation leaves behind now.

    A memory is excluded if it is a turn of the window, or if its exchange says the same word for word: showing it twice
    tells the model nothing new. One that was excluded before stays so. Returns the first ``limit`` candidates that
    remain, and the excluded ones met on the way, both in the given order.
    """
    why_excluded = shown_by(window)
    remaining: list[Candidate] = []
    excluded: list[Candidate] = []
    for candidate in candidates:
        if len(remaining) == limit:
            break
        left: Exclusion | None = "left_behind" if candidate.memory.memory_id in left_behind else None
        why = why_excluded(candidate.memory) or left or candidate.excluded
        if why is None:
            remaining.append(candidate)
        else:
            excluded.append(_excluded(candidate, why))
    return remaining, excluded


def shown_by(window: Sequence[WindowTurn]) -> Callable[[Memory], Exclusion | None]:
    """Return a function that says why the recent window already shows a memory, or None if it does not."""
    ids = {turn.memory_id for turn in window}
    texts = {turn.words for turn in window}

    def shown(memory: Memory) -> Exclusion | None:
        if memory.memory_id in ids:
            return "recent_window"
        return "same_text_as_window" if memory.words in texts else None

    return shown


def split(order: Sequence[Candidate], replay_count: int) -> tuple[list[Candidate], list[Candidate]]:
    """Split kept candidates, best first, into those to replay and those to show as summaries."""
    return list(order[:replay_count]), list(order[replay_count:])


def _excluded(candidate: Candidate, why: Exclusion) -> Candidate:
    return replace(candidate, excluded=why)


def _rounded(score: float | None) -> float | None:
    return round(score, 6) if score is not None else None

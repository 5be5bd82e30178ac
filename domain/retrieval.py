"""Pure rules of retrieval: what the recent window already shows is excluded, what is kept is split in two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from domain.events import CandidateFound, Facet
from domain.memory import Memory, Scores

Exclusion = Literal["recent_window", "same_text_as_window"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory that was found, and how: ``score`` and ``rank`` (from 1) are those by which candidates are ordered.

    ``dense_score`` is its similarity to the question (cosine, -1 to 1), None where that is not known; ``lexical_score``
    its BM25. A rank is None where that index did not propose the memory, ``matched`` where the vectors did not.
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
        """Return a candidate that vectors alone proposed."""
        return cls(memory, score, rank, matched, dense_score=score, dense_rank=rank)

    @property
    def scores(self) -> Scores:
        return Scores(self.score, self.dense_score, self.lexical_score)

    def as_event(self) -> CandidateFound:
        """Return what the ledger keeps of a candidate."""
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
    candidates: Sequence[Candidate], window: Sequence[Memory], limit: int
) -> tuple[list[Candidate], list[Candidate]]:
    """Take the memories that the recent window already shows out of the candidates.

    A memory is excluded when it is one of the window's turns, and when its exchange is the same word for word, since
    showing it twice tells the model nothing. Returns the first ``limit`` candidates that go on, and the excluded ones
    found on the way; both in their given order.
    """
    why_not = shown_by(window)
    going_on: list[Candidate] = []
    excluded: list[Candidate] = []
    for candidate in candidates:
        if len(going_on) == limit:
            break
        why = why_not(candidate.memory)
        if why is None:
            going_on.append(candidate)
        else:
            excluded.append(_excluded(candidate, why))
    return going_on, excluded


def shown_by(window: Sequence[Memory]) -> Callable[[Memory], Exclusion | None]:
    """Return a function that tells whether, and in which sense, the recent window already shows a memory."""
    ids = {turn.memory_id for turn in window}
    texts = {turn.words for turn in window}

    def shown(memory: Memory) -> Exclusion | None:
        if memory.memory_id in ids:
            return "recent_window"
        return "same_text_as_window" if memory.words in texts else None

    return shown


def split(order: Sequence[Candidate], replay_count: int) -> tuple[list[Candidate], list[Candidate]]:
    """Split kept memories, best first, into the ones to replay and the ones shown as summaries."""
    return list(order[:replay_count]), list(order[replay_count:])


def _excluded(candidate: Candidate, why: Exclusion) -> Candidate:
    return replace(candidate, excluded=why)


def _rounded(score: float | None) -> float | None:
    return round(score, 6) if score is not None else None

"""Compare the memories chosen for a question with those that other settings would choose. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pydantic import BaseModel, ConfigDict


class Choice(BaseModel):
    """The memories chosen for a question: ids, best first. ``candidates`` are those that were judged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    candidates: tuple[str, ...]
    replayed: tuple[str, ...]
    summaries: tuple[str, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        """All memories in the prompt, in full or as a summary."""
        return self.replayed + self.summaries


class Comparison(BaseModel):
    """What another choice would have changed.

    ``replayed_instead`` and ``summary_instead`` are memories that both show, the new choice in the other form. The
    agreements are Jaccard indices, from 0 (nothing in common) to 1 (the same set, or both empty).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    came_in: tuple[str, ...]
    went_out: tuple[str, ...]
    replayed_instead: tuple[str, ...]
    summary_instead: tuple[str, ...]
    agreement: float
    agreement_replayed: float
    exact: bool


def jaccard(one: Collection[str], other: Collection[str]) -> float:
    """Return the size of the intersection over the size of the union; 1 if both are empty.

    P. Jaccard, The distribution of the flora in the alpine zone, New Phytologist 11 (1912).
    """
    either = set(one) | set(other)
    return len(set(one) & set(other)) / len(either) if either else 1.0


def compare(then: Choice, now: Choice) -> Comparison:
    """Compare the recorded choice with the new one."""
    return Comparison(
        came_in=_without(now.shown, then.shown),
        went_out=_without(then.shown, now.shown),
        replayed_instead=tuple(memory_id for memory_id in now.replayed if memory_id in set(then.summaries)),
        summary_instead=tuple(memory_id for memory_id in now.summaries if memory_id in set(then.replayed)),
        agreement=jaccard(then.shown, now.shown),
        agreement_replayed=jaccard(then.replayed, now.replayed),
        exact=set(then.replayed) == set(now.replayed) and set(then.summaries) == set(now.summaries),
    )


def _without(these: Sequence[str], those: Sequence[str]) -> tuple[str, ...]:
    known = set(those)
    return tuple(item for item in these if item not in known)

"""Made-up memories and candidates for the tests of the pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import strategies as st

from domain.memory import Memory
from domain.retrieval import Candidate
from tests.ledgers import START


def memory(number: int, user: str = "", assistant: str = "Noted.", summary: str | None = None) -> Memory:
    """Return memory ``number``: a later one has a higher number."""
    return Memory(
        memory_id=f"m{number}",
        position=number,
        conversation_id="c",
        turn_id=number,
        ts=START + timedelta(days=number),
        user=user or f"Remark {number}.",
        assistant=assistant,
        summary=summary,
    )


def ranked(memories: Sequence[Memory]) -> list[Candidate]:
    """Return the memories as candidates in the given order."""
    return [
        Candidate.by_vectors(memory, score=1 - rank / 1000, rank=rank, matched="exchange")
        for rank, memory in enumerate(memories, 1)
    ]


def some_memories(size_max: int = 12) -> st.SearchStrategy[list[Memory]]:
    """Distinct memories in any order, some of which say the same."""
    texts = st.sampled_from(["Hi.", "hi there", "My dog is Bruno.", "用户说了很多话。", "a b c " * 20])
    made = st.builds(
        memory,
        st.integers(1, 60),
        user=texts,
        assistant=st.sampled_from(["Noted.", "", "Well " * 30]),
        summary=st.one_of(st.none(), texts),
    )
    return st.lists(made, max_size=size_max, unique_by=lambda item: item.memory_id)

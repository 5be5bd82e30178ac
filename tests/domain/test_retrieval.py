"""What the window shows is not recalled a second time, and nothing is lost on the way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.memory import Memory
from domain.retrieval import exclude_window, split
from tests.memories import memory, ranked, some_memories


def words_of(item: Memory) -> str:
    return " ".join(f"{item.user} {item.assistant}".split())


@given(found=some_memories(), window=some_memories(), limit=st.integers(0, 15))
def test_nothing_that_the_window_shows_remains(found: list[Memory], window: list[Memory], limit: int) -> None:
    going_on, excluded = exclude_window(ranked(found), window, limit)
    assert not {c.memory.memory_id for c in going_on} & {turn.memory_id for turn in window}
    assert not {words_of(c.memory) for c in going_on} & {words_of(turn) for turn in window}
    assert len(going_on) <= limit
    assert all(c.excluded is None for c in going_on)
    assert all(c.excluded is not None for c in excluded)


@given(found=some_memories(), window=some_memories(), limit=st.integers(0, 15))
def test_only_the_window_and_the_limit_remove_candidates_and_order_is_kept(
    found: list[Memory], window: list[Memory], limit: int
) -> None:
    candidates = ranked(found)
    going_on, excluded = exclude_window(candidates, window, limit)
    ranks = sorted(c.rank for c in [*going_on, *excluded])
    assert ranks == list(range(1, len(ranks) + 1))
    assert [c.rank for c in going_on] == sorted(c.rank for c in going_on)
    assert len(ranks) == len(candidates) or len(going_on) == limit


def test_a_turn_of_the_window_and_a_copy_of_it_have_different_reasons() -> None:
    shown, copy, other = memory(1, "My dog is Bruno."), memory(2, "My  dog is\nBruno."), memory(3, "My cat is Tom.")
    going_on, excluded = exclude_window(ranked([copy, shown, other]), [shown], 10)
    assert [c.memory for c in going_on] == [other]
    assert [(c.memory.memory_id, c.excluded) for c in excluded] == [
        ("m2", "same_text_as_window"),
        ("m1", "recent_window"),
    ]


def test_the_same_question_with_another_answer_is_not_a_copy() -> None:
    going_on, _ = exclude_window(ranked([memory(1, "And?", "Yes.")]), [memory(2, "And?", "No.")], 10)
    assert [c.memory.memory_id for c in going_on] == ["m1"]


@given(found=some_memories(), replay=st.integers(0, 20))
def test_split_keeps_order_and_everything(found: list[Memory], replay: int) -> None:
    first, rest = split(ranked(found), replay)
    assert [*first, *rest] == ranked(found)
    assert len(first) == min(replay, len(found))


def test_the_event_says_how_a_candidate_was_found() -> None:
    [candidate], _ = exclude_window(ranked([memory(7)]), [], 1)
    event = candidate.as_event()
    assert (event.memory_id, event.turn_position, event.turn_id) == ("m7", 7, 7)
    assert (event.conversation_id, event.dense_score, event.dense_rank) == ("c", 0.999, 1)
    assert (event.matched, event.excluded) == ("exchange", None)

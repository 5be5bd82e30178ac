"""The turns beside a replayed one come along: never twice, never one that is shown anyway, in their order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from domain.memory import Memory
from domain.neighbors import blocks, neighbors_of
from tests.memories import memory


def turn(conversation: str, turn_id: int) -> Memory:
    """A turn of two conversations that were held at the same time, in turns."""
    number = 2 * turn_id + (conversation == "b")
    return replace(memory(number), conversation_id=conversation, turn_id=turn_id)


TALKS = [turn(conversation, turn_id) for turn_id in range(1, 15) for conversation in ("a", "b")]
SOME_TURNS = st.lists(st.sampled_from(TALKS), max_size=8, unique_by=lambda item: item.memory_id)


def ids(memories: list[Memory]) -> list[tuple[str, int]]:
    return [(memory.conversation_id, memory.turn_id) for memory in memories]


def found(replay: list[Memory], reach: int, window: list[Memory] | None = None) -> list[tuple[str, int]]:
    return ids([neighbor.memory for neighbor in neighbors_of(replay, TALKS, window or [], reach)])


def test_nearest_first_and_the_earlier_of_two() -> None:
    assert found([turn("a", 5)], 2) == [("a", 4), ("a", 6), ("a", 3), ("a", 7)]


def test_those_of_the_best_memory_come_first() -> None:
    assert found([turn("b", 9), turn("a", 2)], 1) == [("b", 8), ("b", 10), ("a", 1), ("a", 3)]


def test_a_turn_between_two_belongs_to_the_nearer_then_to_the_better() -> None:
    best, second = turn("a", 8), turn("a", 4)
    belongs = {item.memory.turn_id: item.of for item in neighbors_of([best, second], TALKS, [], 3)}
    assert (belongs[5], belongs[6], belongs[7]) == (second.memory_id, best.memory_id, best.memory_id)


def test_an_exact_copy_of_a_window_turn_is_not_a_neighbor() -> None:
    repeated = replace(turn("a", 4), user="The same.", assistant="Yes.")
    now = replace(memory(90, "The same.", "Yes."), conversation_id="now")
    around = [repeated, turn("a", 6)]
    assert ids([item.memory for item in neighbors_of([turn("a", 5)], around, [now], 1)]) == [("a", 6)]


@given(replay=SOME_TURNS, window=SOME_TURNS, reach=st.integers(0, 5))
def test_none_is_shown_twice_or_too_far_away(replay: list[Memory], window: list[Memory], reach: int) -> None:
    given_twice = [*TALKS, *TALKS]
    neighbors = neighbors_of(replay, given_twice, window, reach)
    came = [item.memory.memory_id for item in neighbors]
    assert len(came) == len(set(came))
    assert not set(came) & {memory.memory_id for memory in (*replay, *window)}
    by_id = {memory.memory_id: memory for memory in replay}
    for item in neighbors:
        beside = by_id[item.of]
        assert beside.conversation_id == item.memory.conversation_id
        assert 1 <= abs(beside.turn_id - item.memory.turn_id) <= reach
    # And nothing that should come along is missing.
    expected = {
        other.memory_id
        for other in TALKS
        for memory in replay
        if other.conversation_id == memory.conversation_id and abs(other.turn_id - memory.turn_id) <= reach
    }
    assert set(came) == expected - {memory.memory_id for memory in (*replay, *window)}


def test_the_question_asked_again_and_again_does_not_come_along() -> None:
    asked = [replace(turn("a", n), user="Where do I live?", assistant="I do not know.") for n in range(3, 7)]
    around = [*TALKS[:4], *asked, turn("a", 7)]
    assert ids([item.memory for item in neighbors_of([asked[-1]], around, [], 4)]) == [("a", 7), ("a", 2)]


def test_blocks_separate_conversations_and_are_in_order_of_time() -> None:
    replay = [turn("b", 9), turn("a", 2), turn("a", 9)]
    made = blocks(replay, neighbors_of(replay, TALKS, [], 1))
    assert [ids(block) for block in made] == [
        [("a", 1), ("a", 2), ("a", 3)],
        [("a", 8), ("a", 9), ("a", 10)],
        [("b", 8), ("b", 9), ("b", 10)],
    ]


def test_a_gap_does_not_separate_a_memory_from_its_neighbors() -> None:
    replay = [turn("a", 5)]
    around = [one for one in TALKS if one.turn_id != 4]
    assert [ids(block) for block in blocks(replay, neighbors_of(replay, around, [], 2))] == [
        [("a", 3), ("a", 5), ("a", 6), ("a", 7)]
    ]


@given(replay=SOME_TURNS, reach=st.integers(0, 5))
def test_blocks_hold_everything_once_each_in_turn_order(replay: list[Memory], reach: int) -> None:
    neighbors = neighbors_of(replay, TALKS, [], reach)
    made = blocks(replay, neighbors)
    shown = [memory for block in made for memory in block]
    assert sorted(ids(shown)) == sorted(ids([*replay, *(item.memory for item in neighbors)]))
    for block in made:
        assert len({memory.conversation_id for memory in block}) == 1
        assert ids(block) == sorted(ids(block))
    assert [block[0].position for block in made] == sorted(block[0].position for block in made)

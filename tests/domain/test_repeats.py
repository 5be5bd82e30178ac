"""Of memories that say the same the newest goes on, and what differs by a word is never the same."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.memory import Memory
from domain.repeats import asks_the_same, repeats
from domain.temporal.time_range import TimeRange
from tests.ledgers import START
from tests.memories import memory, some_memories


def why(question: str, *memories: Memory) -> dict[int, tuple[int, str]]:
    return {older: (newer, reason) for older, (newer, reason) in repeats(question, memories).items()}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("What is my dog called?", "what is  my dog called", True),
        ("我的猫叫什么名字？", "我的猫叫什么名字", True),
        ("Ｗhere do I live？", "Where do I live?", True),
        ("What is my dog called?", "What is my cat called?", False),
        ("What is my dog called?", "My dog is called Rex.", False),
    ],
)
def test_a_question_asked_again_is_recognised(one: str, other: str, same: bool) -> None:
    assert asks_the_same(one, other) is same


def test_the_same_question_counts_once() -> None:
    asked = [memory(number, "Where do I live?", f"I do not know, for the {number}th time.") for number in (1, 2, 4, 5)]
    told = memory(3, "I live in Oslo.")
    for question in ("Where do I live?", "where do I live"):
        assert why(question, *asked, told) == dict.fromkeys((1, 2, 4), (5, "older_same_question"))


def test_of_the_same_question_the_newest_with_an_answer_stays() -> None:
    answered, cut_off = memory(1, "Where do I live?", "In Oslo."), memory(2, "Where do I live?", "")
    assert why("Where do I live?", cut_off, answered) == {2: (1, "older_same_question")}


def test_the_same_statement_counts_once_and_the_newest_stays() -> None:
    told = [memory(1, "I live in Rome."), memory(7, "i live in  Rome!", "Rome is lovely."), memory(3, "I live in Rome")]
    assert why("Where do I live?", *told) == {1: (7, "older_near_duplicate"), 3: (7, "older_near_duplicate")}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("I live in Rome.", "I live in Oslo."),
        ("I like coffee.", "I don't like coffee."),
        ("I live in Rome.", "I no longer live in Rome."),
        ("My shoe size is 41.", "My shoe size is 43."),
        ("I live in Rome.", "I live in Rome?"),
        ("我住在杭州。", "我住在成都。"),
        ("我喜欢咖啡。", "我不喜欢咖啡。"),
        ("我住在杭州。", "我住在杭州吗？"),
    ],
)
def test_what_contradicts_is_never_a_repeat(one: str, other: str) -> None:
    for question in ("Where do I live?", one, other):
        assert why(question, memory(1, one), memory(2, other)) == {}
        assert why(question, memory(1, other), memory(2, one)) == {}


def test_the_same_words_with_another_answer_are_both_needed() -> None:
    cow = memory(1, "Tell me a joke.", "Why did the cow cross the road? To get to the udder side.")
    fish = memory(2, "Tell me a joke.", "What do you call a fish with no eyes? A fsh.")
    assert why("What was the joke about the cow?", cow, fish) == {}
    one = memory(3, "继续", "春天来了，山谷里的樱花一夜之间全都开了。")
    other = memory(4, "继续", "老船长收起渔网，讲起他年轻时的风暴。")
    assert why("樱花什么时候开的？", one, other) == {}


def test_what_a_person_corrected_repeats_nothing_and_is_repeated_by_nothing() -> None:
    for edited in (1, 2):
        told = [
            Memory(
                **{**vars(memory(number, "I live in Rome.")), "summary": "Lives in Oslo.", "edited": number == edited}
            )
            for number in (1, 2)
        ]
        assert why("Where do I live?", *told) == {}


def test_what_was_said_in_the_time_that_the_question_names_stays() -> None:
    told = [memory(number, "I ran five miles.") for number in (1, 2, 9)]
    then = TimeRange(START + timedelta(days=1), START + timedelta(days=2), "that day")
    assert list(repeats("What did I do that day?", told)) == [2, 1]
    assert list(repeats("What did I do that day?", told, then)) == [2]


@given(some_memories(), st.sampled_from(["Hi.", "My dog is Bruno?"]))
def test_what_repeats_is_held_by_one_that_stays(memories: list[Memory], question: str) -> None:
    found = repeats(question, memories)
    by_position = {item.position: item for item in memories}
    for older, repeated in found.items():
        assert repeated.newer not in found
        assert asks_the_same(by_position[older].user, by_position[repeated.newer].user)
        assert repeated.newer > older or not by_position[older].assistant.strip()

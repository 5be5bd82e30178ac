"""Texts and questions become words that SQLite can find, and never its syntax."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from projections.lexical import analysis
from projections.lexical.analysis import Term, indexed, terms

UNSPACED = st.text(st.sampled_from("我喜欢猫狗日本語ひらカタナー한국어々〇𠀀"), min_size=1, max_size=12)


def test_what_is_written_without_blanks_becomes_pairs_and_its_last_character() -> None:
    assert indexed("我的猫Miso爱吃鱼。").split() == ["我的", "的猫", "猫", "Miso", "爱吃", "吃鱼", "鱼", "。"]
    assert indexed("Plain words stay.") == "Plain words stay."


def test_full_width_and_composed_characters_are_as_their_plain_ones() -> None:
    assert terms("Ｍｉｓｏ ｶﾀｶﾅ") == terms("miso カタカナ")
    assert terms("한국") == terms(unicodedata.normalize("NFD", "한국"))


def test_a_question_is_asked_by_its_telling_words() -> None:
    assert terms("What does my cat eat?") == [Term("cat"), Term("eat")]
    assert terms("Who are you?") == [Term("who"), Term("are"), Term("you")], "there are no others"
    assert terms("猫吃什么") == [Term("猫吃"), Term("吃什"), Term("什么")]
    assert terms("the 猫") == [Term("猫", prefix=True)]
    assert terms("?! …") == []


@given(UNSPACED)
def test_every_character_begins_exactly_one_word(run: str) -> None:
    assert [word[0] for word in indexed(run).split()] == list(run)


@given(st.text())
@example("\U0002a6e0")
def test_a_term_holds_letters_and_digits_only(query: str) -> None:
    for term in terms(query):
        assert term.text.replace(" ", "") == term.text
        assert '"' not in term.text
        # SQLite counts the unassigned places among the ideographs as letters, Python does not.
        assert all(char.isalnum() or unicodedata.category(char) == "Cn" for char in term.text)


@pytest.mark.parametrize("query", ["cat " * 10_000, " ".join(map(str, range(10_000)))])
def test_a_question_without_end_is_taken_by_its_beginning(query: str) -> None:
    assert 0 < len(terms(query)) <= 64


def test_stop_words_are_as_a_question_is_split() -> None:
    assert all(terms(f"{word} zebra") == [Term("zebra")] for word in analysis._STOP_WORDS)

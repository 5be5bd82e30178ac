"""Texts and questions become words that SQLite can find, and never its syntax."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from projections.lexical import analysis
from projections.lexical.analysis import Term, indexed, terms

SYLLABLES = st.lists(
    st.sampled_from(["แ", "ม", "ว", "กิ", "น", "ชื่", "ข้", "ອ", "ນ້", "ក", "ខ្ញុំ", "ឆ្មា", "ကျွ", "င်", "န္ဒ"]),
    min_size=1,
    max_size=8,
)
"""Thai, Lao, Khmer and Burmese letters with their signs."""
UNSPACED = st.text(st.sampled_from("我喜欢猫狗日本語ひらカタナー한국어々〇𠀀"), min_size=1, max_size=12)


def test_what_is_written_without_blanks_becomes_pairs_and_its_last_character() -> None:
    assert indexed("我的猫Miso爱吃鱼。").split() == ["我的", "的猫", "猫", "miso", "爱吃", "吃鱼", "鱼"]
    assert indexed("Plain, words_stay.").split() == ["plain", "words", "stay"]


def test_full_width_and_composed_characters_are_as_their_plain_ones() -> None:
    assert terms("Ｍｉｓｏ ｶﾀｶﾅ") == terms("miso カタカナ")
    assert terms("한국") == terms(unicodedata.normalize("NFD", "한국"))


def test_a_question_is_asked_by_its_telling_words() -> None:
    assert terms("What does my cat eat?") == [Term("cat"), Term("eat")]
    assert terms("Who are you?") == [Term("who"), Term("are"), Term("you")], "there are no others"
    assert terms("猫吃什么") == [Term("猫吃"), Term("吃什"), Term("什么")]
    assert terms("the 猫") == [Term("猫", prefix=True)]
    assert terms("กินปู") == [Term("กิน"), Term("นปู"), Term("กิ", prefix=True), Term("ปู", prefix=True)]
    assert terms("?! …") == []


@given(UNSPACED)
def test_every_character_begins_exactly_one_word(run: str) -> None:
    assert [word[0] for word in indexed(run).split()] == list(run)


@given(SYLLABLES)
def test_a_letter_keeps_its_signs(syllables: list[str]) -> None:
    words = indexed("".join(syllables)).split()
    assert words == [*map("".join, pairwise(syllables)), syllables[-1]]


@given(st.text())
@example("\U0002a6e0")
def test_a_term_holds_only_what_is_part_of_a_word(query: str) -> None:
    for term in terms(query):
        assert term.text.replace(" ", "") == term.text
        assert '"' not in term.text
        # SQLite counts the unassigned places among the ideographs as letters, Python does not.
        assert all(unicodedata.category(char)[0] in "LNM" or category_is_open(char) for char in term.text)


def category_is_open(char: str) -> bool:
    """Tell whether a character has no assigned meaning: private use, or not yet taken."""
    return unicodedata.category(char) in {"Co", "Cn"}


ALIKE = [
    ("Arabic vowel signs", "الكِتَابُ", "الكتاب"),
    ("Arabic stretched", "كـــتاب", "كتاب"),
    ("alef with hamza", "أحمد", "احمد"),
    ("alef with madda", "آمنة", "امنه"),
    ("alef maqsura", "مستشفى", "مستشفي"),
    ("Persian keyboard", "کتابی", "كتابي"),
    ("Hebrew points", "שָׁלוֹם", "שלום"),
    ("ё", "Ёлка", "елка"),
    ("a stress mark", "за́мок", "замок"),
    ("decomposed", "café", "café"),
    ("no accent", "Việt Nam", "viet nam"),
    ("Greek accent and final sigma", "Γιάννης", "γιαννησ"),
    ("ß", "Straße", "STRASSE"),
    ("Turkish i", "İstanbul", "istanbul"),
    ("Turkish dotless i", "Diyarbakır", "DIYARBAKIR"),
    ("full width", "Ｍｉｓｏ１２", "miso12"),
    ("half-width kana", "ｶﾞｯﾂ", "ガッツ"),
    ("a ligature", "ﬁnance", "finance"),
    ("soft hyphen", "Donau­dampf", "Donaudampf"),
    ("Persian joiner", "می‌خواهم", "میخواهم"),
    ("marks of direction", "‫Miso‬", "Miso"),
    ("Arabic digits", "٤٧١١", "4711"),
    ("Thai digits", "๔๗", "47"),
    ("zero-width space in Thai", "กิน​ปลา", "กินปลา"),
]
DIFFERENT = [
    ("short i", "мой", "мои"),
    ("Ukrainian yi", "її", "іі"),
    ("voiced kana", "が", "か"),
    ("Thai vowels", "กิน", "กัน"),
    ("Hindi vowels", "कि", "की"),
]


@pytest.mark.parametrize(("written", "asked"), [case[1:] for case in ALIKE], ids=[case[0] for case in ALIKE])
def test_what_people_leave_out_as_they_please_does_not_count(written: str, asked: str) -> None:
    assert terms(written) == terms(asked) != []
    assert indexed(written).split() == indexed(asked).split()


@pytest.mark.parametrize(("one", "other"), [case[1:] for case in DIFFERENT], ids=[case[0] for case in DIFFERENT])
def test_what_makes_another_letter_does(one: str, other: str) -> None:
    assert terms(one) != terms(other)


@given(st.text())
@example("ᾴ")
@example("ΐ")
def test_however_a_text_is_encoded_its_words_are_the_same(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert terms(unicodedata.normalize(form, text)) == terms(text)


@pytest.mark.parametrize("query", ["cat " * 10_000, " ".join(map(str, range(10_000)))])
def test_a_question_without_end_is_taken_by_its_beginning(query: str) -> None:
    assert 0 < len(terms(query)) <= 64


def test_stop_words_are_as_a_question_is_split() -> None:
    assert all(terms(f"{word} zebra") == [Term("zebra")] for word in analysis._STOP_WORDS)

"""Citation marks, reasoning and tool traffic are not taken for words; what a person wrote is left as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.importing.marks import answer_of, unescaped, without_marks


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("It rains. \ue200cite\ue202turn0search1\ue202turn0news2\ue201 Often.", "It rains. Often."),
        ("It rains.\ue200cite\ue202turn0search1\ue201", "It rains."),
        ("It rains. citeturn0search1turn1view0", "It rains."),
        ("It rains. \ue200cite\ue202turn0search1", "It rains."),
        ("It rains \ue202turn0search0 here.", "It rains here."),
        ("Both.\ue200\ue202turn0search0\ue202turn0news1\ue201", "Both."),
        ("In the file. filecite\ue202turn0file0", "In the file."),
        ("As said【12†source】, and 【4:0†report.pdf】.", "As said, and."),
        ("As said :contentReference[oaicite:2]{index=2}.", "As said."),
        ('In \ue200entity\ue202["city","Paris","capital"]\ue201 it rains.', "In Paris it rains."),
        ("See \ue200url\ue202the page\ue202https://example.org\ue201.", "See the page."),
        ('Look:\ue200image_group\ue202{"query":["cats"]}\ue201', "Look:"),
        ("\ue203It rains.\ue204\ue200cite\ue202turn0search0\ue201", "It rains."),
        ("北京很冷。\ue200cite\ue202turn0search1\ue201", "北京很冷。"),
    ],
)
def test_marks_go_and_the_words_in_them_stay(text: str, bare: str) -> None:
    assert without_marks(text) == bare


@pytest.mark.parametrize(
    "text",
    [
        "",
        " a \n",
        "my font's \ue200 and \ue202",
        "【书名】 and †",
        "turn0search1",
        "please cite turn 0",
        "\\ue202turn",
        "cite 3",
    ],
)
def test_what_is_no_mark_stays_as_it_is(text: str) -> None:
    assert without_marks(text) == text


MARKS = (
    "\ue200cite\ue202turn0search1\ue201",
    "【1:2†a.pdf】",
    "citeturn0view1",
    ":contentReference[oaicite:0]{index=0}",
)
WORDS = st.text(alphabet="Aé。猫.,!\n", min_size=1).filter(lambda words: words == words.strip())


@given(st.lists(st.tuples(WORDS, st.sampled_from(("", " ", "\t")), st.sampled_from(MARKS))))
def test_between_marks_every_word_stays(said: list[tuple[str, str, str]]) -> None:
    assert without_marks("".join(map("".join, said))) == "".join(words for words, _, _ in said)


def test_escaped_marks_are_characters_again() -> None:
    assert without_marks(unescaped(r"It rains. \ue202turn0search0")) == "It rains."
    assert unescaped(r"print('\ue202')") == r"print('\ue202')"


@pytest.mark.parametrize(
    "text",
    [
        '<details type="reasoning" done="true" duration="3">\n<summary>Thought</summary>\n> Hm.\n</details>\n255',
        '<details id="x" type="tool_calls" done="true"><summary>Tool Executed</summary>"18C"</details>255',
        "<think>Hm.</think>255",
        ":::thinking\nHm.\n:::\n255",
        "255",
    ],
)
def test_an_answer_is_what_was_shown(text: str) -> None:
    assert answer_of(text) == "255"


def test_details_that_a_model_wrote_are_part_of_the_answer() -> None:
    text = "<details><summary>More</summary>It rains.</details>"
    assert answer_of(text) == text

"""Reasoning never becomes memory, and every text can be stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.reasoning import storable, visible


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Bruno.", "Bruno."),
        ("<think>Hm.</think>Bruno.", "Bruno."),
        ("<think>\nHm.\nWell.\n</think>\n\nBruno.\n", "Bruno."),
        ("<think>a</think>One\n<think>b</think>two", "One\ntwo"),
        ("<think>never finished", ""),
        ("Begun\n<think>never finished", "Begun"),
        ("opened by the template\n</think>\n\nBruno.", "Bruno."),
        ("", ""),
    ],
)
def test_reasoning_is_removed(raw: str, shown: str) -> None:
    assert visible(raw) == shown


@pytest.mark.parametrize(
    "said",
    [
        "Qwen3 wraps its reasoning in `<think>` tags: strip them before you store the text.",
        "A stray </think> ends what the template began.",
        "Write <think>Hm.</think> in the middle of a line.",
    ],
)
def test_an_answer_about_the_tags_is_kept_whole(said: str) -> None:
    assert visible(said) == said
    assert visible(f"<think>Hm.</think>\n{said}") == said


@given(thought=st.text(alphabet="abc <>/\n"), said=st.text(alphabet="xyz \n"))
def test_no_reasoning_is_left_over(thought: str, said: str) -> None:
    assert visible(f"<think>{thought}</think>{said}") == said.strip()
    assert visible(f"{said}\n<think>{thought}") == said.strip()
    assert visible(f"{thought}\n</think>\n{said}") == said.strip()


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_becomes_valid_utf8(text: str) -> None:
    stored = storable(text)
    assert len(stored) == len(text)
    assert stored.encode("utf-8").decode("utf-8") == stored
    assert all(kept == char or "\ud800" <= char <= "\udfff" for kept, char in zip(stored, text, strict=True))

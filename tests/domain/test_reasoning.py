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
        ("It is <think>is it?</think>Bruno.", "It is Bruno."),
        ("<think>a</think>One<think>b</think> two", "One two"),
        ("<think>never finished", ""),
        ("Begun <think>never finished", "Begun"),
        ("opened by the template</think>Bruno.", "Bruno."),
        ("opened</think>Bruno<think>again</think>.", "Bruno."),
        ("", ""),
    ],
)
def test_what_was_thought_is_not_said(raw: str, shown: str) -> None:
    assert visible(raw) == shown


@given(thought=st.text(alphabet="abc <>/\n"), said=st.text(alphabet="xyz \n"))
def test_no_thought_is_left_over(thought: str, said: str) -> None:
    assert visible(f"<think>{thought}</think>{said}") == said.strip()
    assert visible(f"{said}<think>{thought}") == said.strip()
    assert visible(f"{thought}</think>{said}") == said.strip()


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_any_text_becomes_one_that_utf8_can_carry(text: str) -> None:
    stored = storable(text)
    assert len(stored) == len(text)
    assert stored.encode("utf-8").decode("utf-8") == stored
    assert all(kept == char or "\ud800" <= char <= "\udfff" for kept, char in zip(stored, text, strict=True))

"""A memory is shown on one line: by its summary, or by the exchange while there is none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domain.memory import exchange_text
from tests.memories import memory

TEXT = st.text(alphabet="ab \n\r\t\u2028\u0085\x0b,")


@given(user=TEXT.filter(bool), assistant=TEXT, summary=st.none() | TEXT)
def test_a_memory_fits_on_one_line(user: str, assistant: str, summary: str | None) -> None:
    assert len(memory(1, user, assistant, summary).line.splitlines()) <= 1


def test_a_summary_stands_for_the_exchange() -> None:
    assert memory(1, "My dog?", "Bruno.", "The dog is Bruno.").line == "The dog is Bruno."
    assert memory(1, "My\ndog?", "Bruno.").line == "My dog? — Bruno."


def test_the_embedded_text_holds_both_sides_and_nothing_else() -> None:
    assert exchange_text("My dog?", "Bruno.") == "My dog?\nBruno."
    assert exchange_text("My dog?", "") == "My dog?"

"""A memory is shown on one line: by its summary, or by the exchange while there is none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.memory import exchange_text
from domain.temporal.zones import zone_named
from tests.memories import memory

TEXT = st.text(alphabet="ab \n\r\t\u2028\u0085\x0b,")


@given(user=TEXT.filter(bool), assistant=TEXT, summary=st.none() | TEXT)
def test_a_memory_fits_on_one_line(user: str, assistant: str, summary: str | None) -> None:
    assert len(memory(1, user, assistant, summary).line.splitlines()) <= 1


def test_a_summary_stands_for_the_exchange() -> None:
    assert memory(1, "My dog?", "Bruno.", "The dog is Bruno.").line == "The dog is Bruno."
    assert memory(1, "My\ndog?", "Bruno.").line == "My dog? — Bruno."


@pytest.mark.parametrize(
    ("asked_at", "zone", "shown"),
    [
        ("2026-01-03T20:00", "UTC", "2026-01-03 03:04"),
        ("2026-01-04T00:30", "UTC", "2026-01-03"),
        # It was still the day before in New York, and the same day again for who asks in Tokyo the next morning in UTC.
        ("2026-01-03T20:00", "America/New_York", "2026-01-02"),
        ("2026-01-03T04:30", "America/New_York", "2026-01-02 22:04"),
        ("2026-01-03T14:30", "Asia/Tokyo", "2026-01-03 12:04"),
        ("2026-01-03T15:30", "Asia/Tokyo", "2026-01-03"),
    ],
)
def test_a_memory_of_the_same_day_is_dated_with_the_time(asked_at: str, zone: str, shown: str) -> None:
    asked = datetime.fromisoformat(asked_at).replace(tzinfo=UTC).astimezone(zone_named(zone))
    assert memory(1).dated(asked) == shown


def test_the_embedded_text_holds_both_sides_and_nothing_else() -> None:
    assert exchange_text("My dog?", "Bruno.") == "My dog?\nBruno."
    assert exchange_text("My dog?", "") == "My dog?"

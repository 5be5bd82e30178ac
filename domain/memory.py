"""A memory: one recorded turn, with its newest summary."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple

from domain.events import Facet
from domain.temporal.zones import in_zone

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Memory:
    """One turn as it is remembered.

    ``memory_id`` is the event id of the turn, ``position`` its place in the ledger, ``turn_id`` its number in the
    conversation. ``summary`` is None until one is recorded, ``summary_position`` the position of the event that holds
    it; ``edited`` is True if a person wrote it. ``finish_reason`` says how the answer ended. ``cut_chars`` says to how
    many characters question and answer were shortened when they were read, None where they are whole.
    """

    memory_id: str
    position: int
    conversation_id: str
    turn_id: int
    ts: datetime
    user: str
    assistant: str
    summary: str | None = None
    finish_reason: str = "stop"
    summary_position: int | None = None
    edited: bool = False
    cut_chars: int | None = None

    @cached_property
    def date(self) -> str:
        """The date in UTC: ``2026-11-24``."""
        return self.ts.date().isoformat()

    def dated(self, asked_at: datetime) -> str:
        """Return the date as prompts show it, in the zone of the question; of the same day, with the time of day."""
        said = in_zone(self.ts, asked_at.tzinfo)
        day_said = said.date()
        if day_said != asked_at.date():
            return day_said.isoformat()
        return said.replace(tzinfo=None).isoformat(" ", "minutes")

    @cached_property
    def line(self) -> str:
        """The memory on one line: its summary, or the exchange if it has none yet."""
        return " ".join((self.summary or f"{self.user} — {self.assistant}").split())

    @cached_property
    def words(self) -> str:
        """The exchange with whitespace normalised, to compare word for word."""
        return " ".join(exchange_text(self.user, self.assistant).split())


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a memory fits a question: the fused score that orders candidates, the cosine, and BM25.

    The last two are None if not known.
    """

    fused: float
    dense: float | None
    lexical: float | None


class FacetText(NamedTuple):
    """A text by which a memory can be found from an event on; with ``text`` None it can no longer be found by one.

    ``turn_position`` is the memory's, ``position`` that of the event that recorded or withdrew the text. ``said_at`` is
    when an exchange took place, in the zone of the person.
    """

    user_id: str
    position: int
    turn_position: int
    facet: Facet
    text: str | None
    said_at: datetime | None = None


def day(moment: datetime) -> str:
    """Return the date of a moment, in its zone, as prompts name it: ``2026-11-24, a Tuesday``."""
    return f"{moment:%Y-%m-%d}, a {_WEEKDAYS[moment.weekday()]}"


def exchange_text(user: str, assistant: str) -> str:
    """Return the text of an exchange as it is embedded: the question and the answer, and nothing recalled."""
    return f"{user}\n{assistant}".strip()

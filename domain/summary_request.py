"""What the model that summarises is asked about one turn. Pure."""

from __future__ import annotations

from domain.events import SummaryAsked, TurnRecorded
from domain.temporal.zones import in_zone, recorded_zone

Message = dict[str, str]


def summary_messages(system: str, turn: TurnRecorded, asked: SummaryAsked) -> list[Message]:
    """Return the messages that ask for a turn's summary; ``asked`` says how much of the turn is shown."""
    exchange = (
        f"Date: {in_zone(turn.ts, recorded_zone(asked.timezone)).date()}\n"
        f"Person: {turn.user[: asked.question_chars]}\n"
        f"Assistant: {turn.assistant[: asked.answer_chars]}"
    )
    return [{"role": "system", "content": system}, {"role": "user", "content": exchange}]

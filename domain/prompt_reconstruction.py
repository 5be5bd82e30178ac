"""Reconstruct the prompt of a past turn from the ledger. Pure.

Nothing is counted or chosen again. The turn names the memories in its prompt, the retrieval names the event whose
summary each of them was shown with, and the prompt's report names the version of the system text. In the same layout
these give the same messages, and the recorded hash of the messages proves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from domain.events import CandidateFound, Event, MemoryEdited, RetrievalRecorded, SummaryRecorded, TurnRecorded
from domain.memory import Memory
from domain.neighbors import placed
from domain.prompt import LAYOUTS, Message, laid_out, messages_hash

Proof = Literal["same_as_sent", "unproven", "differs", "not_possible"]
_NO_HASH = "it cannot be shown to be what was sent: schema 1 recorded no hash, nor a system text of the client"


@dataclass(frozen=True, slots=True)
class ReconstructedPrompt:
    """The messages, how far they are proven to be those that were sent, and why in one sentence."""

    messages: list[Message]
    proof: Proof
    note: str


def memory_from(event: Event, summary: Event | None = None) -> Memory | None:
    """Return the memory in a turn's event, with the summary in another event; None if it is no turn."""
    turn, said = event.payload, summary.payload if summary is not None else None
    if not isinstance(turn, TurnRecorded):
        return None
    known = isinstance(said, SummaryRecorded | MemoryEdited) and said.memory_id == event.event_id
    return Memory(
        memory_id=event.event_id,
        position=event.position,
        conversation_id=event.conversation_id,
        turn_id=turn.turn_id,
        ts=turn.ts,
        user=turn.user,
        assistant=turn.assistant,
        summary=said.summary if known and isinstance(said, SummaryRecorded | MemoryEdited) else None,
        finish_reason=turn.finish_reason,
        summary_position=summary.position if known and summary is not None else None,
    )


def memories_named(turn: TurnRecorded | None, retrieval: RetrievalRecorded | None) -> list[str]:
    """Return the ids of all memories that an answer's events name, each once."""
    ids: list[str] = []
    if retrieval is not None:
        ids += [*retrieval.window, *(candidate.memory_id for candidate in retrieval.candidates)]
    if turn is not None:
        ids += [*turn.window, *turn.replayed, *turn.summarised, *turn.neighbours]
    return list(dict.fromkeys(ids))


def memories_as_shown(
    candidates: Iterable[CandidateFound], turns: Mapping[str, Event], said: Mapping[int, Event]
) -> dict[str, Memory]:
    """Return memories by id as they were shown. ``turns`` are their events by id, ``said`` summaries by position."""
    shown_with = {candidate.memory_id: candidate.summary_position for candidate in candidates}
    shown: dict[str, Memory] = {}
    for memory_id, event in turns.items():
        position = shown_with.get(memory_id)
        memory = memory_from(event, said.get(position) if position is not None else None)
        if memory is not None:
            shown[memory_id] = memory
    return shown


def reconstructed_prompt(turn: TurnRecorded, system: str | None, memories: Mapping[str, Memory]) -> ReconstructedPrompt:
    """Reconstruct the prompt of a turn from the system text and the memories as they were shown."""
    report = turn.prompt
    if report is None:
        return ReconstructedPrompt([], "not_possible", "the turn was imported: no prompt was ever made for it")
    if report.layout not in LAYOUTS:
        known = ", ".join(map(repr, LAYOUTS))
        return ReconstructedPrompt(
            [], "not_possible", f"it was laid out as {report.layout!r}, and this version knows {known} only"
        )
    if system is None:
        return ReconstructedPrompt(
            [], "not_possible", f"the ledger does not hold version {report.system_version} of the system text"
        )
    named = [*turn.window, *turn.replayed, *turn.neighbours, *turn.summarised]
    lost = [memory_id for memory_id in named if memory_id not in memories]
    if lost:
        return ReconstructedPrompt(
            [], "not_possible", f"the ledger does not hold {len(lost)} of the {len(named)} memories"
        )
    window, replay, neighbors, notes = (
        [memories[memory_id] for memory_id in ids]
        for ids in (turn.window, turn.replayed, turn.neighbours, turn.summarised)
    )
    messages = laid_out(
        layout=report.layout,
        system=system,
        client_system=turn.client_system or "",
        window=window,
        replay=replay,
        notes=notes,
        neighbors=placed(neighbors, replay),
        question=turn.user,
        asked_at=turn.ts,
    )
    if report.messages_hash is None:
        return ReconstructedPrompt(messages, "unproven", _NO_HASH)
    if messages_hash(messages) != report.messages_hash:
        return ReconstructedPrompt(
            messages, "differs", f"it DIFFERS from what was sent, whose hash is {report.messages_hash}"
        )
    return ReconstructedPrompt(messages, "same_as_sent", "the same as sent, by its hash")

"""Reconstruct a prompt from what the ledger says was shown. Pure.

Nothing is counted or chosen again. The turn names the memories that were shown, the retrieval names the event that
holds the summary each was shown with, and the prompt's report names the version of the system text. In the same layout
these give the same messages, and the recorded hash proves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from domain.client_messages import ClientTurn, Message, WindowTurn, exchange_messages
from domain.events import (
    CandidateFound,
    Event,
    MemoryEdited,
    MessagesSent,
    RetrievalRecorded,
    SummaryRecorded,
    ToolsCalled,
    TurnFailed,
    TurnRecorded,
)
from domain.memory import Memory
from domain.neighbors import placed
from domain.prompt import LAYOUTS, as_shortened, asked_alone, laid_out, messages_hash
from domain.temporal.zones import in_zone, zone_named

Answered = TurnRecorded | TurnFailed | ToolsCalled
"""What says of itself what the chat model was shown."""
Proof = Literal["same_as_sent", "unproven", "differs", "not_possible"]
_NO_HASH = "it cannot be compared with what was sent: schema 1 recorded neither a hash nor the client's system text"


@dataclass(frozen=True, slots=True)
class ReconstructedPrompt:
    """The messages, whether they are proven to be those that were sent, and the reason in one sentence.

    ``lost`` are the memories, or events of what the client sent, for want of which there are none.
    """

    messages: list[Message]
    proof: Proof
    note: str
    lost: tuple[str, ...] = ()


def memory_from(event: Event, summary: Event | None = None) -> Memory | None:
    """Return the memory of a turn's event, with the summary that another event holds; None if it is not a turn."""
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


def memories_named(turn: Answered | None, retrieval: RetrievalRecorded | None) -> list[str]:
    """Return the ids of all memories that an answer considered or was shown, each once."""
    ids: list[str] = []
    if retrieval is not None:
        ids += [*retrieval.window, *(candidate.memory_id for candidate in retrieval.candidates)]
    if turn is not None:
        ids += [*turn.window, *turn.replayed, *turn.summarised, *turn.neighbours]
    return list(dict.fromkeys(ids))


def events_named(turn: Answered | None) -> list[str]:
    """Return the ids of the events that hold what the client sent of the prompt, and nothing else does."""
    given = turn.from_client if turn is not None else None
    if given is None:
        return []
    return list(dict.fromkeys([*(given.history or ()), *([given.asked] if given.asked is not None else [])]))


def memories_as_shown(
    candidates: Iterable[CandidateFound], turns: Mapping[str, Event], said: Mapping[int, Event]
) -> dict[str, Memory]:
    """Return memories by id as they were shown; ``turns`` holds events by id, ``said`` summary events by position."""
    shown_with = {candidate.memory_id: candidate.summary_position for candidate in candidates}
    shown: dict[str, Memory] = {}
    for memory_id, event in turns.items():
        position = shown_with.get(memory_id)
        if position == 0:
            continue  # the summary that was shown did not come along with an import
        memory = memory_from(event, said.get(position) if position is not None else None)
        if memory is not None:
            shown[memory_id] = memory
    return shown


def reconstructed_prompt(
    turn: Answered, system: str | None, memories: Mapping[str, Memory], events: Mapping[str, Event]
) -> ReconstructedPrompt:
    """Reconstruct the prompt of a turn from the system text and the memories as they were shown.

    ``events`` holds, by id, those that :func:`events_named` names.
    """
    report = turn.prompt
    if report is None:
        return ReconstructedPrompt([], "not_possible", "the turn was imported, so it never had a prompt")
    if report.layout not in LAYOUTS:
        known = ", ".join(map(repr, LAYOUTS))
        return ReconstructedPrompt(
            [], "not_possible", f"its layout is {report.layout!r}, and this version knows only {known}"
        )
    if system is None:
        return ReconstructedPrompt(
            [], "not_possible", f"the ledger does not hold version {report.system_version} of the system text"
        )
    named = [*turn.window, *turn.replayed, *turn.neighbours, *turn.summarised]
    lost = [memory_id for memory_id in named if memory_id not in memories]
    if lost:
        return ReconstructedPrompt(
            [], "not_possible", f"the ledger does not hold {len(lost)} of the {len(named)} memories", tuple(lost)
        )
    given = turn.from_client
    sent = {event_id: _sent(events.get(event_id)) for event_id in events_named(turn)}
    gone = tuple(event_id for event_id, messages in sent.items() if not messages)
    if gone:
        return ReconstructedPrompt([], "not_possible", "the ledger does not hold all of what the client sent", gone)
    try:
        zone = zone_named(report.timezone)
    except ValueError:
        return ReconstructedPrompt([], "not_possible", f"this machine does not know its time zone, {report.timezone!r}")
    shortened = {item.memory_id: item.chars for item in report.shortened}

    def shown(memory: Memory) -> Memory:
        chars = shortened.get(memory.memory_id)
        return as_shortened(memory, chars) if chars is not None else memory

    from_ledger, replay, neighbors, summarised = (
        [shown(memories[memory_id]) for memory_id in ids]
        for ids in (turn.window, turn.replayed, turn.neighbours, turn.summarised)
    )
    window: list[WindowTurn] = [*from_ledger]
    if given is not None and given.history is not None:
        window = [ClientTurn(tuple(sent[event_id])) for event_id in given.history]
    asked = sent[given.asked] if given is not None and given.asked is not None else asked_alone(turn.user)
    messages = laid_out(
        layout=report.layout,
        system=system,
        client_system=turn.client_system or "",
        window=window,
        replay=replay,
        summarised=summarised,
        neighbors=placed(neighbors, replay),
        asked=asked,
        asked_at=in_zone(turn.ts, zone),
    )
    if report.messages_hash is None:
        return ReconstructedPrompt(messages, "unproven", _NO_HASH)
    if messages_hash(messages) != report.messages_hash:
        return ReconstructedPrompt(
            messages, "differs", f"it DIFFERS from what was sent, which has the hash is {report.messages_hash}"
        )
    return ReconstructedPrompt(messages, "same_as_sent", "the same as sent, by its hash")


def _sent(event: Event | None) -> list[Message]:
    """Return the messages that an event stands for in a client's history; none where it holds none any more."""
    match event.payload if event is not None else None:
        case MessagesSent(messages=messages):
            return list(messages)
        case TurnRecorded(user=user, assistant=assistant):
            return exchange_messages(user, assistant)
        case _:
            return []

"""The trace of one answer, read from its events: what was proposed, decided, shown and answered, and at what cost.

An :class:`AnswerTrace` holds values only; the command line renders it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from domain.audit_reader import AuditReader, Change, Erasure, turn_of
from domain.decisions import was_asked
from domain.errors import InvalidInput
from domain.events import (
    CandidateFound,
    Event,
    GateDecided,
    JsonObject,
    Payload,
    RerankDecided,
    RetrievalRecorded,
    SummaryFailed,
    SummaryRecorded,
    ToolsCalled,
    TurnFailed,
    TurnRecorded,
    Verdict,
)
from domain.memory import Memory
from domain.prompt_reconstruction import (
    Answered,
    ReconstructedPrompt,
    events_named,
    memories_as_shown,
    memories_named,
)
from service.audit.call_proofs import answer_prompt, gate_prompt, rerank_prompt, summary_prompt

P = TypeVar("P", bound=Payload)

ANSWER_WITH_TOOLS, FAILED_SUMMARY = "answer that called tools", "failed summary"
_LATER = re.compile(r"(chatcmpl-[0-9a-f]{32})-\d{1,6}\Z", re.ASCII)

Stage = Literal["gate", "rerank", "summary"]
Fate = Literal[
    "replayed",
    "summary",
    "neighbour",
    "window",
    "excluded",
    "not_asked",
    "over_limit",
    "dropped",
    "no_room",
    "kept",
    "undecided",
]
"""What became of a candidate: how it was shown, else what kept it out. ``not_asked``: the gate's prompt had no room.

``kept`` and ``undecided`` occur in turns that ended before the prompt was built.
"""


@dataclass(frozen=True, slots=True)
class CandidateTrace:
    """One candidate, from search to prompt. ``place`` is its place in the rerank's order, from 1.

    ``since`` is what has become of the memory since the answer.
    """

    found: CandidateFound
    memory: Memory | None
    verdict: Verdict | None
    place: int | None
    rerank_score: float | None
    fate: Fate
    since: Change | None


@dataclass(frozen=True, slots=True)
class AnswerTrace:
    """All that the ledger holds about one answer. What was erased or never happened is None or empty.

    ``summary`` is the first summary of the turn. ``memories`` are all memories that the answer refers to, by id, with
    the texts that were shown. ``erasures`` tell by which erasure the events of a type that are missing here are gone.
    """

    events: tuple[Event, ...]
    turn: TurnRecorded | None
    failed: TurnFailed | None
    tools: tuple[ToolsCalled, ...]
    """The answers before that called tools, in order."""
    summary: SummaryRecorded | None
    retrieval: RetrievalRecorded | None
    gate: GateDecided | None
    rerank: RerankDecided | None
    window: tuple[Memory, ...]
    candidates: tuple[CandidateTrace, ...]
    memories: Mapping[str, Memory]
    changes: Mapping[str, Change]
    erasures: Mapping[str, Erasure]
    prompt: ReconstructedPrompt | None
    calls: Mapping[Stage, ReconstructedPrompt]
    """The prompts of the other calls: gate, rerank and summary, as far as a model was asked."""
    tool_prompts: tuple[ReconstructedPrompt, ...]
    """The prompts of the answers that called tools, in order."""
    summary_attempts: tuple[ReconstructedPrompt, ...]
    """The prompts of failed attempts at the summary, in order; without the one in ``calls``."""

    @property
    def ending(self) -> Event:
        """The event that ended the turn; for an erased answer, its last event."""
        return turn_of(self.events) or self.events[-1]

    @property
    def erased(self) -> bool:
        return self.turn is None and self.failed is None and not self.tools

    @property
    def state(self) -> Literal["erased", "answered", "failed", "tools_called"]:
        if self.turn is not None:
            return "answered"
        if self.failed is not None:
            return "failed"
        return "tools_called" if self.tools else "erased"

    def as_json(self) -> JsonObject:
        """Return the whole trace as JSON values."""
        ending = self.ending
        record = self.turn or self.failed or (self.tools[-1] if self.tools else None)
        return {
            "correlation_id": ending.correlation_id,
            "memory_id": ending.event_id if self.turn is not None else None,
            "user_id": ending.user_id,
            "conversation_id": ending.conversation_id,
            "state": self.state,
            "events": [
                {
                    "position": event.position,
                    "event_id": event.event_id,
                    "type": event.type,
                    "recorded_at": event.recorded_at.isoformat(),
                }
                for event in self.events
            ],
            "turn": record.model_dump(mode="json") if record is not None else None,
            "tools_called": [_dumped(called) for called in self.tools],
            "summary": _dumped(self.summary),
            "window": [memory_json(memory) for memory in self.window],
            "retrieval": _dumped(self.retrieval, without={"candidates"}),
            "candidates": [
                {
                    **candidate.found.model_dump(mode="json"),
                    "verdict": _dumped(candidate.verdict),
                    "rerank_place": candidate.place,
                    "rerank_score": candidate.rerank_score,
                    "fate": candidate.fate,
                    "shown": memory_json(candidate.memory) if candidate.memory is not None else None,
                    "since": change_json(candidate.since),
                }
                for candidate in self.candidates
            ],
            "gate": _dumped(self.gate, without={"verdicts"}),
            "rerank": _dumped(self.rerank),
            "shown": {
                memory_id: {**memory_json(memory), "since": change_json(self.changes.get(memory_id))}
                for memory_id, memory in self.memories.items()
                if self.turn is not None
                and memory_id in {*self.turn.replayed, *self.turn.summarised, *self.turn.neighbours}
            },
            "prompt": _proof_json(self.prompt) if self.prompt is not None else None,
            "calls": {stage: _proof_json(rebuilt) for stage, rebuilt in self.calls.items()},
            "tool_prompts": [_proof_json(rebuilt) for rebuilt in self.tool_prompts],
            "summary_attempts": [_proof_json(rebuilt) for rebuilt in self.summary_attempts],
            "erased": {kind: _erasure_json(erasure) for kind, erasure in self.erasures.items()},
        }

    @property
    def proofs(self) -> list[tuple[str, ReconstructedPrompt]]:
        """The prompts of all model calls in the order in which they went out, each with what the call was for."""
        gate_and_rerank = [(name, rebuilt) for name, rebuilt in self.calls.items() if name != "summary"]
        summary = self.calls.get("summary")
        return [
            *gate_and_rerank,
            *((ANSWER_WITH_TOOLS, rebuilt) for rebuilt in self.tool_prompts),
            *([("answer", self.prompt)] if self.prompt is not None else []),
            *((FAILED_SUMMARY, rebuilt) for rebuilt in self.summary_attempts),
            *([("summary", summary)] if summary is not None else []),
        ]

    def missing(self, memory_id: str) -> str:
        """Say why a memory that this answer names is not there."""
        change = self.changes.get(memory_id)
        return f"({change.erasure})" if change is not None and change.erasure is not None else "(not in the ledger)"


def find_answer(reader: AuditReader, given: str) -> list[Event]:
    """Return the events of an answer, given its completion id or the id of any of its events.

    Raises :class:`InvalidInput` if the id belongs to no answer.
    """
    # The answers of an exchange after the first have a number behind its id.
    events = reader.events_of_answer(given) or reader.events_of_answer(_LATER.sub(r"\1", given))
    if events:
        return events
    named = reader.events_named([given]).get(given)
    if named is None:
        raise InvalidInput("COMPLETION_ID", given, "give the id of an answer (chatcmpl-...) or of a turn's event")
    if named.correlation_id is not None:
        return reader.events_of_answer(named.correlation_id)
    if isinstance(named.payload, TurnRecorded):
        return [named]
    about = f", and {named.causation_id} is what it is about" if named.causation_id is not None else ""
    raise InvalidInput("COMPLETION_ID", given, f"this is a {named.type} event, not an answer{about}")


def trace_of(reader: AuditReader, events: Sequence[Event]) -> AnswerTrace:
    """Return the trace of one answer's events, of which there is at least one."""
    events = _with_summaries(reader, events)
    turn, failed = _only(TurnRecorded, events), _only(TurnFailed, events)
    retrieval, gate, rerank = (
        _only(RetrievalRecorded, events),
        _only(GateDecided, events),
        _only(RerankDecided, events),
    )
    tools = tuple(event.payload for event in events if isinstance(event.payload, ToolsCalled))
    ended_by = turn or failed
    answers: list[Answered] = [*tools, *([ended_by] if ended_by is not None else [])]
    asked = answers[-1] if answers else None
    memories = _memories(reader, events, None, retrieval)
    for answer in answers:
        memories |= _memories(reader, events, answer, retrieval)
    named = [event_id for answer in answers for event_id in events_named(answer)]
    considered = [memory_id for answer in (None, *answers) for memory_id in memories_named(answer, retrieval)]
    user_id = events[0].user_id
    sent = {key: event for key, event in reader.events_named(named).items() if event.user_id == user_id}
    ended = turn_of(events) or events[-1]
    changes = reader.changes_since(ended.user_id, considered, ended.position)
    erased_events = reader.erasures_of(events)
    erasures = {event.type: erased_events[event.event_id] for event in events if event.event_id in erased_events}
    gone = {memory_id: change.erasure for memory_id, change in changes.items() if change.erasure is not None}
    gone |= reader.erasures_of(sent.values())
    window_ids = turn.window if turn is not None else retrieval.window if retrieval is not None else ()
    text = reader.prompt_text
    calls: dict[Stage, ReconstructedPrompt | None] = {
        "gate": _of_erased(erasures, TurnRecorded, TurnFailed, RetrievalRecorded, GateDecided),
        "rerank": _of_erased(erasures, TurnRecorded, TurnFailed, RetrievalRecorded, GateDecided, RerankDecided),
        "summary": _of_erased(erasures, TurnRecorded),
    }
    if asked is not None and retrieval is not None and gate is not None:
        calls["gate"] = gate_prompt(gate, retrieval, asked.ts, text, memories)
        if rerank is not None:
            calls["rerank"] = rerank_prompt(rerank, gate, retrieval, asked.ts, text, memories)
    said = [event.payload for event in events if isinstance(event.payload, SummaryRecorded | SummaryFailed)]
    summarised = [each for each in said if isinstance(each, SummaryRecorded)]
    proved = next((each for each in summarised if each.call is not None), None) or next(iter(summarised or said), None)
    attempts = [each for each in said if isinstance(each, SummaryFailed) and each is not proved]
    prompt = None
    if turn is not None:
        calls["summary"] = (
            summary_prompt(proved, turn, text)
            if proved is not None
            else _of_erased(erasures, SummaryRecorded, SummaryFailed)
        )
    if ended_by is not None:
        prompt = answer_prompt(ended_by, text, memories, sent)
    elif (TurnRecorded.type in erasures) or (TurnFailed.type in erasures):
        prompt = _of_erased(erasures, TurnRecorded, TurnFailed)

    def explained(rebuilt: ReconstructedPrompt) -> ReconstructedPrompt:
        by = dict.fromkeys(str(gone[event_id]) for event_id in rebuilt.lost if event_id in gone)
        return replace(rebuilt, note="; ".join((rebuilt.note, *by))) if by else rebuilt

    return AnswerTrace(
        events=tuple(events),
        turn=turn,
        failed=failed,
        tools=tools,
        summary=next(iter(summarised), None),
        retrieval=retrieval,
        gate=gate,
        rerank=rerank,
        window=tuple(memories[memory_id] for memory_id in window_ids if memory_id in memories),
        candidates=tuple(
            _candidate_trace(found, asked, gate, rerank, memories, changes)
            for found in (retrieval.candidates if retrieval is not None else ())
        ),
        memories=memories,
        changes=changes,
        erasures=erasures,
        prompt=explained(prompt) if prompt is not None else None,
        calls={stage: explained(rebuilt) for stage, rebuilt in calls.items() if rebuilt is not None},
        tool_prompts=tuple(
            explained(rebuilt)
            for called in tools
            if (rebuilt := answer_prompt(called, text, memories, sent)) is not None
        ),
        summary_attempts=tuple(
            explained(rebuilt)
            for attempt in attempts
            if turn is not None and (rebuilt := summary_prompt(attempt, turn, text)) is not None
        ),
    )


def _with_summaries(reader: AuditReader, events: Sequence[Event]) -> list[Event]:
    """Add the summaries of the turn that do not carry its answer's id: an imported turn belongs to no answer."""
    by_position = {event.position: event for event in events}
    for turn in events:
        if turn.type == TurnRecorded.type:
            by_position |= {event.position: event for event in reader.summaries_about(turn.user_id, turn.event_id)}
    return [by_position[position] for position in sorted(by_position)]


def _of_erased(erasures: Mapping[str, Erasure], *needed: type[Payload]) -> ReconstructedPrompt | None:
    """Return that a call cannot be made again, where one of the events that it takes was erased."""
    for kind in reversed(needed):
        if kind.type in erasures:
            return ReconstructedPrompt([], "not_possible", f"its {kind.type} event was {erasures[kind.type]}")
    return None


def _memories(
    reader: AuditReader,
    events: Sequence[Event],
    turn: Answered | None,
    retrieval: RetrievalRecorded | None,
) -> dict[str, Memory]:
    """Return the memories of an answer with the texts that were shown."""
    user_id = events[0].user_id
    ids = memories_named(turn, retrieval)
    turns = {key: event for key, event in reader.events_named(ids).items() if event.user_id == user_id}
    candidates = retrieval.candidates if retrieval is not None else ()
    positions = {found.summary_position for found in candidates if found.summary_position is not None}
    said = {at: event for at, event in reader.events_at(positions).items() if event.user_id == user_id}
    shown = memories_as_shown(candidates, turns, said)
    if isinstance(turn, TurnRecorded) and turn.prompt is not None and turn.prompt.messages_hash is None:
        # Schema 1 did not record which summary was shown: most likely the newest before the turn.
        then = reader.memories(user_id, [event.position for event in turns.values()], as_of=events[0].position - 1)
        shown |= {memory.memory_id: memory for memory in then.values()}
    return shown


def _candidate_trace(
    found: CandidateFound,
    turn: Answered | None,
    gate: GateDecided | None,
    rerank: RerankDecided | None,
    memories: Mapping[str, Memory],
    changes: Mapping[str, Change],
) -> CandidateTrace:
    memory_id = found.memory_id
    verdict = None
    if gate is not None and found.excluded is None:
        verdict = next((verdict for verdict in gate.verdicts if verdict.memory_id == memory_id), None)
    place = score = None
    if rerank is not None and memory_id in rerank.order:
        at = rerank.order.index(memory_id)
        place = at + 1
        score = rerank.scores[at] if at < len(rerank.scores) else None
    return CandidateTrace(
        found=found,
        memory=memories.get(memory_id),
        verdict=verdict,
        place=place,
        rerank_score=score,
        fate=_fate(found, gate, verdict, turn),
        since=changes.get(memory_id),
    )


def _fate(found: CandidateFound, gate: GateDecided | None, verdict: Verdict | None, turn: Answered | None) -> Fate:
    memory_id = found.memory_id
    if turn is not None:
        roles: list[tuple[Fate, tuple[str, ...]]] = [
            ("replayed", turn.replayed),
            ("summary", turn.summarised),
            ("neighbour", turn.neighbours),
        ]
        if found.excluded is None:
            roles.append(("window", turn.window))
        for fate, shown in roles:
            if memory_id in shown:
                return fate
    if found.excluded is not None:
        return "excluded"
    if gate is None or verdict is None:
        return "undecided"
    if not verdict.keep:
        if was_asked(gate, verdict) is False:
            return "not_asked"
        return "over_limit" if verdict.over_limit else "dropped"
    left_out = turn.prompt.left_out if turn is not None and turn.prompt is not None else ()
    return "no_room" if any(item.memory_id == memory_id for item in left_out) else "kept"


def _only(kind: type[P], events: Sequence[Event]) -> P | None:
    return next((event.payload for event in events if isinstance(event.payload, kind)), None)


def _dumped(value: Payload | Verdict | None, without: set[str] | None = None) -> JsonObject | None:
    return value.model_dump(mode="json", exclude=without) if value is not None else None


def _proof_json(rebuilt: ReconstructedPrompt) -> JsonObject:
    return {"proof": rebuilt.proof, "note": rebuilt.note, "messages": rebuilt.messages}


def memory_json(memory: Memory) -> JsonObject:
    return {
        "memory_id": memory.memory_id,
        "position": memory.position,
        "conversation_id": memory.conversation_id,
        "turn_id": memory.turn_id,
        "ts": memory.ts.isoformat(),
        "user": memory.user,
        "assistant": memory.assistant,
        "summary": memory.summary,
        "summary_position": memory.summary_position,
    }


def change_json(change: Change | None) -> JsonObject | None:
    if change is None:
        return None
    return {
        "what": change.what,
        "position": change.position,
        "recorded_at": change.recorded_at.isoformat(),
        "summary": change.summary,
        "by": change.erasure.event_id if change.erasure is not None else None,
    }


def _erasure_json(erasure: Erasure) -> JsonObject:
    return {
        "by": erasure.event_id,
        "type": erasure.type,
        "position": erasure.position,
        "recorded_at": erasure.recorded_at.isoformat(),
        "reason": erasure.reason,
    }

"""One person's audit: what was said and remembered, what each answer was shown and why, who changed or read what.

A report is a list of blocks, which :mod:`service.audit.report_page` writes as Markdown or HTML. It holds the ledger's
head and what its verification found, so that a reader knows what it was made of.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from domain.audit_reader import Access, AuditReader
from domain.clock import iso
from domain.errors import (
    EmbeddingError,
    EmbeddingMisfit,
    EmbeddingRejected,
    EmbeddingUnavailable,
    InvalidInput,
)
from domain.events import (
    EmbeddingModelActivated,
    Event,
    GateDecided,
    MemoriesErased,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    Payload,
    PromptsActivated,
    RerankDecided,
    RetrievalRecorded,
    SettingsActivated,
    SummaryFailed,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
    Usage,
)
from domain.memory import Memory
from domain.origin import Origin, is_imported
from domain.verification import Finding, LedgerHead, damage_among, verified_events
from service.audit.explain import AnswerTrace, CandidateTrace, trace_of

_FINDINGS_MAX = 20
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_EMBEDDING_FAILED = frozenset(
    error.kind for error in (EmbeddingError, EmbeddingUnavailable, EmbeddingRejected, EmbeddingMisfit)
)
_SHOWN = ("replayed", "summary", "neighbour", "window")


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Line:
    """Words of the report itself, or facts."""

    text: str


@dataclass(frozen=True, slots=True)
class Said:
    """A text of a person or a model, under what it is."""

    label: str
    text: str


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Line | Said | Table


@dataclass(slots=True)
class _Spent:
    calls: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def figures(self) -> tuple[int, ...]:
        return self.calls, self.failed, self.prompt_tokens, self.completion_tokens

    def add(self, usage: Usage | None, *, failed: bool) -> None:
        self.calls += 1
        self.failed += failed
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.completion_tokens += usage.completion_tokens


@dataclass(frozen=True, slots=True)
class _Span:
    """What happened to a person in a time: their events in order, and the positions between which they stand."""

    user_id: str
    after: int
    until: int
    events: tuple[Event, ...]


def report_of(
    reader: AuditReader, user_id: str, since: datetime | None, until: datetime | None, now: datetime
) -> list[Block]:
    """Return the report on a user's events recorded in [``since``, ``until``); None is from the first, to the last.

    Verifies the whole ledger. Raises :class:`InvalidInput` for a user of whom nothing is kept.
    """
    if not reader.has_events(user_id):
        raise InvalidInput("--user", user_id, "name a user of whom something is kept")
    after = reader.position_before(since) if since is not None else 0
    last = reader.position_before(until) if until is not None else reader.head_position()
    span = _Span(user_id, after, last, tuple(reader.events_of_user(user_id, after, last)))
    access = reader.access_to(user_id, since or _EARLIEST, until or _LATEST)
    return [
        Heading(f"Audit of {user_id}", 1),
        Line(f"Recorded from {_when(since) or 'the first event'} to {_when(until) or 'the last event'}, UTC."),
        Line(f"Made at {_when(now)} of events {after + 1} to {last}: {len(span.events)} are of this person."),
        *_verification(reader),
        *_in_force(reader, span),
        *_questions(reader, span),
        *_corrections(span),
        *_usage(reader, span),
        *_reads(access),
    ]


def _verification(reader: AuditReader) -> Iterator[Block]:
    yield Heading("The ledger")
    findings, head = 0, LedgerHead(0, "")
    rows: list[tuple[str, ...]] = []
    for found in verified_events(reader):
        if not isinstance(found, Finding):
            head = found
        elif damage_among([found]):
            findings += 1
            if len(rows) < _FINDINGS_MAX:
                rows.append((str(found.position or ""), found.what))
    yield Line(f"Chain head: {head}")
    if not findings:
        yield Line(_as_written(head.position, reader.count_blanked(head.position)))
        return
    yield Line(f"NOT as it was written: {findings} findings, of which these are the first.")
    yield Table(("event", "what is wrong"), tuple(rows))


def _as_written(events: int, blanked: int) -> str:
    if not blanked:
        return f"All {events} events are as they were written: each hash was computed again."
    return (
        f"All {events} events are as they were written, but for {blanked} that erasures have blanked: each hash was "
        "computed again, of the blanked ones that of the chain alone, since what the others cover is gone."
    )


def _in_force(reader: AuditReader, span: _Span) -> Iterator[Block]:
    """Yield what was in use when the time began, and what came into use during it."""
    activated = reader.activations(span.user_id, span.until)
    before = {(event.payload.type, event.user_id): event for event in activated if event.position <= span.after}
    shown = [*before.values(), *(event for event in activated if event.position > span.after)]
    yield Heading("Models, prompts and settings in use")
    if not shown:
        yield Line("None is recorded.")
        return
    rows = [
        (_when(event.recorded_at), *_activation(event.payload), event.user_id or "everybody", _who(event.origin))
        for event in sorted(shown, key=lambda event: event.position)
    ]
    yield Table(("since", "what", "value", "for", "by"), tuple(rows))


def _activation(payload: Payload) -> tuple[str, str]:
    match payload:
        case EmbeddingModelActivated():
            return "embedding model", f"{payload.model}, {payload.dimensions} dimensions"
        case PromptsActivated():
            return "prompts", _pairs(payload.versions)
        case SettingsActivated():
            return "settings", _pairs(payload.settings)
    return payload.type, ""


def _questions(reader: AuditReader, span: _Span) -> Iterator[Block]:
    turns = [event for event in span.events if isinstance(event.payload, TurnRecorded | TurnFailed)]
    known = reader.memories(span.user_id, [event.position for event in turns], as_of=span.until)
    yield Heading(f"Questions and answers: {len(turns)}")
    withdrawn = _withdrawn(span.events)
    for number, event in enumerate(turns, start=1):
        yield from _question(reader, number, event, known.get(event.position), withdrawn)


def _withdrawn(events: Sequence[Event]) -> set[str]:
    """Return the memories that are withdrawn after these events."""
    withdrawn: set[str] = set()
    for event in events:
        if isinstance(event.payload, MemoryForgotten):
            withdrawn.add(event.payload.memory_id)
        elif isinstance(event.payload, MemoryRestored):
            withdrawn.discard(event.payload.memory_id)
    return withdrawn


def _question(
    reader: AuditReader, number: int, event: Event, memory: Memory | None, withdrawn: Collection[str]
) -> Iterator[Block]:
    said = event.payload
    assert isinstance(said, TurnRecorded | TurnFailed)
    yield Heading(f"{number}. {_when(said.ts)}, conversation {event.conversation_id}", 3)
    imported = said.imported_from if isinstance(said, TurnRecorded) else None
    facts = [f"answer {event.correlation_id or 'without an id'}", f"model {said.model}"]
    if isinstance(said, TurnRecorded):
        facts += [f"memory {event.event_id}", f"finish {said.finish_reason}"]
    if imported is not None:
        facts.append(f"imported from {imported}, recorded {_when(event.recorded_at)}")
    yield Line(", ".join([*facts, f"asked by {_who(event.origin)}"]))
    yield Said("Question", said.user)
    if isinstance(said, TurnFailed):
        yield Line(f"No answer: {said.code}, {said.error}")
        if said.partial_assistant:
            yield Said("As far as it came", said.partial_assistant)
    else:
        yield Said("Answer", said.assistant)
        if memory is None and event.event_id in withdrawn:
            yield Line("Withdrawn: it is remembered no more.")
        elif memory is None:
            yield Line("Superseded: the conversation went on without it.")
        elif memory.summary is not None:
            yield Said("Remembered as", memory.summary)
    answer = reader.events_of_answer(event.correlation_id) if event.correlation_id is not None else [event]
    yield from _why(trace_of(reader, answer))


def _why(trace: AnswerTrace) -> Iterator[Block]:
    """Yield what was recalled for an answer, what of it was shown, and why."""
    gone = trace.erasures.get(RetrievalRecorded.type)
    if trace.retrieval is not None:
        yield from _recalled(trace, trace.retrieval)
    elif gone is not None:
        yield Line(f"What was recalled: {gone}.")
    if trace.proofs:
        yield Line("Prompts made again: " + "; ".join(f"{name}: {proof.note}" for name, proof in trace.proofs) + ".")


def _recalled(trace: AnswerTrace, retrieval: RetrievalRecorded) -> Iterator[Block]:
    if retrieval.outcome != "ok":
        yield Line(
            f"Memory was not searched whole ({retrieval.outcome}): {retrieval.degraded_reason or 'not asked for'}"
        )
    shown = [candidate for candidate in trace.candidates if candidate.fate in _SHOWN]
    counts: dict[str, int] = {}
    for candidate in trace.candidates:
        if candidate.fate not in _SHOWN:
            counts[candidate.fate] = counts.get(candidate.fate, 0) + 1
    others = ", ".join(f"{count} {fate.replace('_', ' ')}" for fate, count in sorted(counts.items()))
    yield Line(
        f"Recalled: {len(trace.candidates)} memories, {len(shown)} of them shown{f'; {others}' if others else ''}. "
        f"Gate: {_decided(trace, trace.gate, GateDecided)}. Rerank: {_decided(trace, trace.rerank, RerankDecided)}."
    )
    rows = [*(_shown_row(trace, candidate) for candidate in shown), *_unproposed(trace)]
    if rows:
        yield Table(("shown as", "rank", "score", "the gate's reason", "memory", "text as it was shown"), tuple(rows))


def _shown_row(trace: AnswerTrace, candidate: CandidateTrace) -> tuple[str, ...]:
    found, verdict = candidate.found, candidate.verdict
    reason = (verdict.reason if verdict is not None else None) or ""
    text = _text(trace, found.memory_id, candidate.memory, summary=candidate.fate == "summary")
    if candidate.since is not None and candidate.since.erasure is None:
        text += f" [since then {candidate.since.what}]"
    return candidate.fate, str(found.rank), f"{found.score:.4f}", reason, found.memory_id, text


def _unproposed(trace: AnswerTrace) -> Iterator[tuple[str, ...]]:
    """Yield what was shown although no search proposed it: the window, and turns beside replayed ones."""
    proposed = {candidate.found.memory_id for candidate in trace.candidates if candidate.fate in _SHOWN}
    turn = trace.turn or trace.failed
    if turn is None:
        return
    for fate, ids in (("neighbour", turn.neighbours), ("window", turn.window)):
        for memory_id in ids:
            if memory_id not in proposed:
                yield fate, "", "", "", memory_id, _text(trace, memory_id, trace.memories.get(memory_id), summary=False)


def _text(trace: AnswerTrace, memory_id: str, memory: Memory | None, *, summary: bool) -> str:
    if memory is None:
        return trace.missing(memory_id)
    if summary and memory.summary is not None:
        return memory.summary
    return f"{memory.user} → {memory.assistant}"


def _decided(trace: AnswerTrace, decision: GateDecided | RerankDecided | None, kind: type[Payload]) -> str:
    if decision is None:
        gone = trace.erasures.get(kind.type)
        return str(gone) if gone is not None else "none"
    by = f" by {decision.model} with prompt {decision.prompt_version}" if decision.model is not None else ""
    return f"{decision.strategy}, {decision.outcome}{by}{f' ({decision.note})' if decision.note else ''}"


def _corrections(span: _Span) -> Iterator[Block]:
    rows = []
    for event in span.events:
        said = event.payload
        if isinstance(said, MemoryEdited):
            what, words = "corrected", said.summary
        elif isinstance(said, MemoryForgotten):
            what, words = "withdrawn", said.reason or ""
        elif isinstance(said, MemoryRestored):
            what, words = "taken back", said.reason or ""
        elif isinstance(said, MemoriesErased):
            what, words = f"erased ({said.scope})", said.reason or ""
        else:
            continue
        about = said.memory_id if not isinstance(said, MemoriesErased) else _extent(said)
        request = (event.origin.request_id if event.origin is not None else None) or ""
        rows.append((_when(event.recorded_at), what, about, words, _who(event.origin), request))
    yield Heading(f"Corrections, withdrawals and erasures: {len(rows)}")
    if rows:
        yield Table(("when", "what", "memory", "new text or reason", "by", "request"), tuple(rows))


def _extent(said: MemoriesErased) -> str:
    return f"{said.memories} memories, {said.events} events"


def _usage(reader: AuditReader, span: _Span) -> Iterator[Block]:
    spent: dict[tuple[str, str], _Spent] = {}
    for event in span.events:
        if not is_imported(event.origin):
            _add_usage(spent, event.payload)
            if isinstance(event.payload, RetrievalRecorded):
                _add_search(spent, reader, event, event.payload)
    yield Heading("Calls and tokens")
    if not spent:
        yield Line("No model was asked.")
        return
    rows = [(*key, *map(str, each.figures)) for key, each in sorted(spent.items(), key=lambda item: item[0])]
    yield Table(("stage", "model", "calls", "failed", "prompt tokens", "completion tokens"), tuple(rows))


def _add_usage(spent: dict[tuple[str, str], _Spent], said: Payload) -> None:
    def add(stage: str, model: str | None, usage: Usage | None = None, *, failed: bool = False) -> None:
        if model is not None:
            spent.setdefault((stage, model), _Spent()).add(usage, failed=failed)

    match said:
        case TurnRecorded() if said.imported_from is None:
            add("answer", said.model, said.usage)
        case TurnFailed():
            add("answer", said.model, said.usage, failed=True)
        case GateDecided():
            add("gate", said.model, said.usage, failed=said.outcome == "fallback")
        case RerankDecided():
            add("rerank", said.model, said.usage, failed=said.outcome == "fallback")
        case SummaryRecorded() if said.attempts:
            add("summary", said.model, said.usage)
        case SummaryFailed():
            add("summary", said.model, said.usage, failed=True)


def _add_search(
    spent: dict[tuple[str, str], _Spent], reader: AuditReader, event: Event, said: RetrievalRecorded
) -> None:
    """Count the embedding of a question, a failed one as a call of the model that was in use."""
    failed = said.degraded_code in _EMBEDDING_FAILED
    model = said.embedding_model
    if model is None and failed:
        active = reader.model_active_at(event.user_id, event.position)
        model = active.model if active is not None else "not recorded"
    if model is not None:
        spent.setdefault(("embed", model), _Spent()).add(None, failed=failed)


def _reads(access: Sequence[Access]) -> Iterator[Block]:
    yield Heading(f"Reads of this memory, and refused calls: {len(access)}")
    yield Line("Of the access log, which keeps what ACCESS_LOG says for ACCESS_LOG_DAYS.")
    if access:
        yield Table(
            ("at", "what", "actor", "client", "route", "status", "request"),
            tuple(
                (
                    each.at,
                    "refused" if each.refused else "read",
                    each.actor or "",
                    each.client or "",
                    each.route,
                    str(each.status),
                    each.request_id,
                )
                for each in access
            ),
        )


def _who(origin: Origin | None) -> str:
    if origin is None:
        return "nobody named"
    said = [value for value in (origin.actor, origin.route, origin.client) if value]
    return ", ".join(said) or "nobody named"


def _when(moment: datetime | None) -> str:
    return iso(moment) if moment is not None else ""


def _pairs(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())

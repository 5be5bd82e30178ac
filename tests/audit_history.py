"""Random histories for the audit views: answers of both schemas, failures on the way, corrections, erasures.

Answers of schema 1 are written with payload models of that shape, because the ledger itself writes only the newest.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal
from uuid import uuid4

from hypothesis import strategies as st

from domain.events import (
    CandidateFound,
    DecisionAsked,
    Event,
    GateDecided,
    LeftOut,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    NewEvent,
    Payload,
    PromptReport,
    RerankDecided,
    RetrievalRecorded,
    SummaryFailed,
    ToolCall,
    ToolsCalled,
    TurnFailed,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
    Usage,
    UserErased,
    Verdict,
)
from domain.identity import ERASED_PREFIX, StreamId, user_stream
from domain.ledger import Ledger, StreamHead
from domain.model_call import ModelCall
from domain.origin import IMPORT_COMMAND, Origin
from domain.sqlite import DRIVER
from tests.ledgers import START, USAGE, new_ledger_file, opened, record, summary_of

USERS = ("ann", "Ann", "a/b", "%")
NOT_ASKED = "not asked about: the gate's prompt had no room for it"
CONVERSATIONS = ("trip", "default")
_RETRIEVE_K = 2


class TurnOfSchema1(Payload):
    type: ClassVar[str] = "TurnRecorded"

    turn_id: int
    ts: datetime
    user: str
    assistant: str
    model: str
    parameters: dict[str, Any]
    finish_reason: str
    usage: Usage | None
    window: tuple[str, ...]
    replayed: tuple[str, ...]
    summarised: tuple[str, ...]
    prompt: dict[str, Any]
    timings_ms: dict[str, float]


class RetrievalOfSchema1(Payload):
    type: ClassVar[str] = "RetrievalRecorded"

    query: str
    knobs: dict[str, Any]
    window: tuple[str, ...]
    outcome: Literal["ok", "degraded", "skipped"]
    degraded_code: str | None
    degraded_reason: str | None
    embedding_model: str | None
    dimensions: int | None
    index_position: int | None
    candidates: tuple[dict[str, Any], ...]
    embed_ms: float
    search_ms: float


class RerankOfSchema1(Payload):
    type: ClassVar[str] = "RerankDecided"

    strategy: Literal["llm", "none"]
    outcome: str
    note: str | None
    model: str | None
    prompt_version: str | None
    retrieve_k: int
    order: tuple[str, ...]
    named: int
    replayed: tuple[str, ...]
    raw_answer: str | None
    usage: Usage | None
    latency_ms: float


HIDES: Mapping[str, tuple[type[Payload], type[Payload]]] = {
    "forgotten": (MemoryForgotten, MemoryRestored),
    "superseded": (TurnSuperseded, TurnRestored),
}
"""What hides a memory, and what brings it back, by the name that the views give it."""

Step = tuple[str, str, str, int]
KINDS = (
    *("answer",) * 5,
    *("answer of schema 1",) * 3,
    "imported",
    "imported answer",
    "failed",
    "broken off after the gate",
    "with a tool",
    "degraded",
    "summary",
    "summary failed",
    "edit",
    "forget",
    "unforget",
    "supersede",
    "return",
    "foreign summary",
    "foreign edit",
    "foreign withdrawal",
    "foreign return",
    "erase",
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(KINDS), st.sampled_from(USERS), st.sampled_from(CONVERSATIONS), st.integers(0, 2**32 - 1)
    ),
    max_size=30,
)
RICH: Sequence[Step] = [
    (kind, "ann", "trip", seed)
    for kind, times in (
        ("answer", 4),
        ("summary", 8),
        ("answer of schema 1", 20),
        ("edit", 3),
        ("answer", 6),
        ("forget", 2),
        ("supersede", 4),
        ("edit", 2),
        ("return", 3),
        ("forget", 4),
        ("unforget", 4),
        ("answer of schema 1", 4),
        ("imported answer", 2),
        ("failed", 3),
        ("broken off after the gate", 1),
        ("with a tool", 2),
        ("degraded", 2),
    )
    for seed in range(times)
]
"""A history in which everything happens, also what random steps seldom bring together."""


def hiding(events: Sequence[Event], how: str) -> Event | None:
    """Return the event among those about a memory since which it is hidden in this way, None where it is not."""
    hides, restores = HIDES[how]
    since: Event | None = None
    for event in events:
        if isinstance(event.payload, hides):
            since = since or event
        elif isinstance(event.payload, restores):
            since = None
    return since


def hidden_by(events: Sequence[Event]) -> str | None:
    """Return what hides the memory that these events are about, after all of them."""
    return next((how for how in HIDES if hiding(events, how) is not None), None)


@contextmanager
def history(steps: Sequence[Step]) -> Iterator[Ledger]:
    """Write a ledger of these steps and open it."""
    with tempfile.TemporaryDirectory() as folder, opened(new_ledger_file(Path(folder))) as ledger:
        append_steps(ledger, steps)
        yield ledger


def append_steps(ledger: Ledger, steps: Sequence[Step], first: int = 0) -> None:
    """Append what these steps say; ``first`` is the number of the first one, which its texts name."""
    for number, (kind, user, conversation, seed) in enumerate(steps, start=first):
        _append_step(ledger, number, kind, StreamId(user, conversation), random.Random(seed))  # noqa: S311 - not a secret


def erase(ledger: Ledger, user_id: str) -> None:
    """Blank all events of a user, as an erasure does. Their ``UserErased`` event allows it, so it comes last."""
    record(ledger, user_stream(user_id), UserErased(events=1, conversations=1))
    mark = f"{ERASED_PREFIX}{uuid4()}"
    connection = DRIVER.connect(ledger.path)
    for last in (False, True):
        connection.execute(
            "UPDATE events SET payload = '{}', salt = '', user_id = ?, conversation_id = CASE conversation_id WHEN '' "
            "THEN '' ELSE ? || conversation_id END WHERE user_id = ? AND (type = 'UserErased') = ?",
            (mark, ERASED_PREFIX, user_id, last),
        )
    connection.commit()
    connection.close()


def _append_step(ledger: Ledger, number: int, kind: str, stream: StreamId, rng: random.Random) -> None:
    turns = [event for event in ledger.reader.events_after(0, 1000) if isinstance(event.payload, TurnRecorded)]
    own = [turn for turn in turns if turn.user_id == stream.user_id]
    about = rng.choice(own).event_id if own else None
    if kind == "imported":
        _append(ledger, stream, [_turn(number, {"prompt": None, "imported_from": "notes.json", "window": ()})])
    elif kind == "imported answer":
        answer = _answer(number, "answer", own, rng)
        answer[-1] = answer[-1].model_copy(update={"imported_from": "export"})
        _append(ledger, stream, answer, Origin(actor="account:ann", route=IMPORT_COMMAND, client="opm 1"))
    elif kind.startswith(("answer", "failed", "broken", "degraded")):
        origin = Origin(actor="key:1", route="POST /v1/chat/completions", client="c/1", request_id=f"req-{number}")
        _append(ledger, stream, _answer(number, kind, own, rng), rng.choice((None, origin)))
    elif kind == "erase":
        erase(ledger, stream.user_id)
    elif kind.startswith("foreign") and turns:
        memory_id = rng.choice(turns).event_id  # must never happen, and would do no harm
        foreign: dict[str, Payload] = {
            "foreign summary": summary_of(memory_id, text=f"foreign {number}"),
            "foreign edit": MemoryEdited(memory_id=memory_id, turn_id=1, summary=f"foreign {number}"),
            "foreign withdrawal": MemoryForgotten(memory_id=memory_id, turn_id=1),
            "foreign return": TurnRestored(memory_id=memory_id, turn_id=1),
        }
        record(ledger, stream, foreign[kind], causation_id=memory_id)
    elif about is not None:
        said: dict[str, Payload] = {
            "summary": summary_of(about, text=f"summary {number}"),
            "summary failed": SummaryFailed(
                memory_id=about, turn_id=1, model="chat-1", prompt_version="p1", error="503", attempts=5
            ),
            "edit": MemoryEdited(memory_id=about, turn_id=1, summary=f"corrected {number}"),
            "forget": MemoryForgotten(memory_id=about, turn_id=1, reason=rng.choice((None, "asked to"))),
            "unforget": MemoryRestored(memory_id=about, turn_id=1, reason=rng.choice((None, "by mistake"))),
            "supersede": TurnSuperseded(memory_id=about, turn_id=1, reason=rng.choice(("left", "edited"))),
            "return": TurnRestored(memory_id=about, turn_id=1),
        }
        if kind in said:
            record(ledger, stream, said[kind], causation_id=about)


def _append(ledger: Ledger, stream: StreamId, payloads: Sequence[Payload], origin: Origin | None = None) -> None:
    correlation_id = f"chatcmpl-{uuid4()}"

    def decide(head: StreamHead) -> list[NewEvent]:
        numbered = [
            payload.model_copy(update={"turn_id": head.turn_id + 1}) if payload.type == "TurnRecorded" else payload
            for payload in payloads
        ]
        return [NewEvent(str(uuid4()), payload, correlation_id, origin=origin) for payload in numbered]

    ledger.append(stream, decide).result()


def _answer(number: int, kind: str, own: Sequence[Event], rng: random.Random) -> list[Payload]:
    """Return the events of one answer, whose candidates end in one of the five ways."""
    found = [] if kind == "degraded" else rng.sample(own, min(len(own), rng.randint(0, 8)))
    candidates = [_candidate(memory, rank, rng) for rank, memory in enumerate(found, start=1)]
    window = tuple(candidate.memory_id for candidate in candidates if candidate.excluded)
    proposed = [candidate.memory_id for candidate in candidates if candidate.excluded is None]
    retrieval = RetrievalRecorded(
        query=f"question {number % 3}",
        knobs={"retrieve_k": _RETRIEVE_K},
        window=window,
        outcome="degraded" if kind == "degraded" else "ok",
        degraded_code="embedding_timeout" if kind == "degraded" else None,
        degraded_reason="no vectors" if kind == "degraded" else None,
        mode=None if kind == "degraded" else "hybrid",
        fusion={"rule": "rrf", "k": 60},
        embedding_model="emb-1",
        dimensions=384,
        index_position=7,
        candidates=tuple(candidates),
        embed_ms=rng.uniform(0, 20),
        search_ms=rng.uniform(0, 2),
        lexical_ms=rng.uniform(0, 2),
    )
    verdicts = tuple(_verdict(n, memory_id, rng) for n, memory_id in enumerate(proposed, start=1))
    gate = GateDecided(
        strategy=rng.choice(("llm", "score", "off")),
        outcome=rng.choice(("ok", "fallback", "skipped")),
        note=None,
        model=rng.choice((None, "chat-1", "chat-2")),
        prompt_version="g1",
        keep_max=30,
        score_rule=rng.choice((None, {"threshold": 0.5})),
        verdicts=verdicts,
        raw_answer='{"keep":[1]}',
        usage=rng.choice((None, USAGE)),
        latency_ms=rng.uniform(0, 500),
        asked=_asked(len(verdicts), rng),
        call=_call(rng),
    )
    kept = [verdict.memory_id for verdict in verdicts if verdict.keep]
    rng.shuffle(kept)
    rerank = RerankDecided(
        strategy="llm",
        outcome=rng.choice(("ok", "fallback", "skipped")),
        note=None,
        model="chat-1",
        prompt_version="r1",
        retrieve_k=_RETRIEVE_K,
        order=tuple(kept),
        named=min(len(kept), _RETRIEVE_K),
        replayed=tuple(kept[:_RETRIEVE_K]),
        raw_answer=None,
        usage=USAGE,
        latency_ms=rng.uniform(0, 500),
        asked=_asked(len(kept), rng),
        call=_call(rng),
    )
    shown = [memory_id for memory_id in kept if rng.random() < 0.8]
    turn = _turn(
        number,
        {
            "window": window,
            "replayed": tuple(memory_id for memory_id in shown if memory_id in kept[:_RETRIEVE_K]),
            "summarised": tuple(memory_id for memory_id in shown if memory_id not in kept[:_RETRIEVE_K]),
            "neighbours": tuple(memory.event_id for memory in own[:2] if memory.event_id not in [*shown, *window]),
            "call": _call(rng),
        },
    )
    if kind == "answer of schema 1":
        return [_retrieval_1(retrieval), gate, _rerank_1(rerank), _turn_1(turn)]
    if kind == "broken off after the gate":
        return [retrieval, gate, _failed(number)]
    if kind == "with a tool":
        return [retrieval, gate, rerank, _calls(turn), turn]
    return [retrieval, gate, rerank, _failed(number, turn) if kind == "failed" else turn]


def _candidate(memory: Event, rank: int, rng: random.Random) -> CandidateFound:
    assert isinstance(memory.payload, TurnRecorded)
    dense = rng.random() < 0.8
    return CandidateFound(
        memory_id=memory.event_id,
        turn_position=memory.position,
        conversation_id=memory.conversation_id,
        turn_id=memory.payload.turn_id,
        score=rng.random(),
        rank=rank,
        dense_score=rng.random() if dense else None,
        dense_rank=rank if dense else None,
        lexical_score=None if dense else rng.uniform(0, 20),
        lexical_rank=None if dense else 1,
        matched=rng.choice(("exchange", "summary")) if dense else None,
        summary_position=rng.choice((None, 3)),
        excluded=rng.choice((None, None, None, "recent_window", "same_text_as_window")),
    )


def _verdict(n: int, memory_id: str, rng: random.Random) -> Verdict:
    keep = rng.random() < 0.6
    reason = rng.choice((None, 'names the "city"', NOT_ASKED if not keep else None))
    return Verdict(n=n, memory_id=memory_id, keep=keep, reason=reason, over_limit=not keep and rng.random() < 0.3)


def _turn(number: int, changed: dict[str, Any]) -> TurnRecorded:
    return TurnRecorded(
        **{
            "turn_id": 0,
            "ts": START,
            "user": f"question {number}",
            "assistant": f"answer {number} ünï 🙂",
            "model": "chat-1",
            "parameters": {"temperature": 0.7},
            "finish_reason": "stop",
            "usage": USAGE,
            "window": (),
            "replayed": (),
            "summarised": (),
            "client_system": "Be brief.",
            "prompt": PromptReport(
                layout="v1",
                system_version="s1",
                budget_tokens=4096,
                tokens=123,
                counted="estimate",
                left_out=(LeftOut(part="summary", memory_id="m3", tokens=99),),
                messages_hash="sha256:0",
            ),
            "timings_ms": {"first_token": 1.5, "answer": 1e3, "total": 1003.25},
            **changed,
        }
    )


def _asked(candidates: int, rng: random.Random) -> DecisionAsked | None:
    asked = DecisionAsked(candidates=rng.randint(0, candidates), line_chars=240, question_chars=30)
    return rng.choice((None, asked))


def _call(rng: random.Random) -> ModelCall | None:
    call = ModelCall(
        endpoint="http://chat.example/v1",
        request={"model": "chat-1", "seed": 7},
        dialect={"system": False},
        messages_hash="sha256:1",
        answered_by=rng.choice((None, "chat-1-0713")),
        fingerprint="fp",
        attempts=rng.randint(1, 3),
    )
    return rng.choice((None, call))


def _calls(answer: TurnRecorded) -> ToolsCalled:
    """Return the call of a tool that came before an answer."""
    shown = (
        "ts",
        "user",
        "model",
        "usage",
        "window",
        "replayed",
        "summarised",
        "neighbours",
        "client_system",
        "prompt",
    )
    return ToolsCalled(
        **{name: getattr(answer, name) for name in shown},
        assistant="",
        calls=(ToolCall(call_id="call_1", name="weather"),),
        finish_reason="tool_calls",
        timings_ms={},
    )


def _failed(number: int, answer: TurnRecorded | None = None) -> TurnFailed:
    """Return a failed turn; of one that failed while answering, with what the chat model was shown."""
    shown = ("usage", "window", "replayed", "summarised", "neighbours", "client_system", "prompt", "call")
    return TurnFailed(
        **({name: getattr(answer, name) for name in shown} if answer is not None else {}),
        ts=START,
        user=f"question {number}",
        partial_assistant="",
        model="chat-1",
        error="timed out",
        code="upstream_timeout",
        status=504,
        timings_ms={"total": 120_000.5},
    )


def _turn_1(turn: TurnRecorded) -> TurnOfSchema1:
    fields = turn.model_dump(include=set(TurnOfSchema1.model_fields))
    del fields["prompt"]["messages_hash"]
    return TurnOfSchema1(**fields)


def _retrieval_1(retrieval: RetrievalRecorded) -> RetrievalOfSchema1:
    fields = retrieval.model_dump(exclude={"mode", "fusion", "time_range", "lexical_ms", "candidates"})
    candidates = [
        {
            **candidate.model_dump(exclude={"score", "rank", "lexical_score", "lexical_rank", "summary_position"}),
            "dense_score": candidate.score,
            "dense_rank": candidate.rank,
            "matched": "exchange",
        }
        for candidate in retrieval.candidates
    ]
    return RetrievalOfSchema1(**fields, candidates=tuple(candidates))


def _rerank_1(rerank: RerankDecided) -> RerankOfSchema1:
    return RerankOfSchema1(**rerank.model_dump(exclude={"scores", "asked", "call"}))

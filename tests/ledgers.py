"""Real ledgers and plausible events for the tests of every floor."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from uuid import uuid4

from domain import chain
from domain.events import (
    CandidateFound,
    EmbeddingModelActivated,
    ErasureCompleted,
    Event,
    FromClient,
    GateDecided,
    LeftOut,
    MemoriesErased,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    MessagesSent,
    NewEvent,
    Payload,
    PromptReport,
    PromptsActivated,
    RerankDecided,
    ResponseDeleted,
    RetrievalRecorded,
    SettingsActivated,
    SummaryFailed,
    SummaryRecorded,
    ToolCall,
    ToolsCalled,
    ToolsOffered,
    TurnFailed,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
    Usage,
    UserErased,
    Verdict,
    blanked_by,
)
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from domain.reader import StoredEvent
from migrations.runner import migrate

ROOT = Path(__file__).parent.parent
STREAM = StreamId("ann", "trip")
START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
USAGE = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15)


@cache
def _migrated_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        migrate(path)
        return path.read_bytes()


def new_ledger_file(folder: Path) -> Path:
    """Write a freshly migrated, empty ledger into ``folder`` (a copy of one: migrating takes its time)."""
    path = folder / "ledger.sqlite3"
    path.write_bytes(_migrated_bytes())
    return path


@contextmanager
def opened(path: Path) -> Iterator[Ledger]:
    """Open a ledger and close it whatever happens."""
    ledger = Ledger(path)
    try:
        yield ledger
    finally:
        ledger.close()


def turn(turn_id: int, user: str = "Where to?", assistant: str = "To Lisbon.") -> TurnRecorded:
    return TurnRecorded(
        turn_id=turn_id,
        ts=START + timedelta(minutes=turn_id),
        user=user,
        assistant=assistant,
        model="chat-1",
        parameters={"temperature": 0.7, "max_tokens": None},
        finish_reason="stop",
        usage=USAGE,
        window=("m1",),
        replayed=("m2",),
        summarised=(),
        prompt=PromptReport(
            layout="v1",
            system_version="s1",
            budget_tokens=4096,
            tokens=123,
            counted="estimate",
            left_out=(LeftOut(part="summary", memory_id="m3", tokens=99),),
        ),
        timings_ms={"embed": 1.5, "answer": 1e3},
    )


def summary_of(memory_id: str, turn_id: int = 1, text: str = "Going to Lisbon.") -> SummaryRecorded:
    return SummaryRecorded(
        memory_id=memory_id,
        turn_id=turn_id,
        summary=text,
        model="chat-1",
        prompt_version="p1",
        usage=None,
        attempts=1,
    )


def activated(model: str = "emb-1") -> EmbeddingModelActivated:
    return EmbeddingModelActivated(
        model=model, dimensions=384, passage_prefix="", memories=1, vectors=2, ledger_position=3
    )


def one_of_each() -> Sequence[Payload]:
    """Return a filled-in payload of every type in the catalogue."""
    return (
        turn(1, user='用户 says \u2028 "hi"\n\u0000', assistant="ünï 🙂"),
        TurnFailed(
            ts=START,
            user="?",
            partial_assistant="",
            model="chat-1",
            error="timed out",
            code="timeout",
            status=504,
            timings_ms={},
        ),
        ToolsCalled(
            ts=START,
            user="What is the weather?",
            assistant="",
            model="chat-1",
            calls=(ToolCall(call_id="call_1", name="weather", arguments='{"in": "Bern"}'),),
            finish_reason="tool_calls",
            usage=USAGE,
            window=(),
            replayed=("m2",),
            summarised=(),
            prompt=None,
            timings_ms={},
            from_client=FromClient(history=("m1", "s1"), asked="s2", tools="t1", response={"temperature": 0.1}),
        ),
        ResponseDeleted(answer="e1"),
        MessagesSent(messages=({"role": "user", "content": [{"type": "text", "text": "ünï"}]},), memory_id="m1"),
        ToolsOffered(tools=({"type": "function", "function": {"name": "weather", "parameters": {"a": 1.5}}},)),
        summary_of("m1"),
        SummaryFailed(memory_id="m1", turn_id=1, model="chat-1", prompt_version="p1", error="503", attempts=3),
        RetrievalRecorded(
            query="Where?",
            knobs={"recent_turns": 6},
            window=("m1",),
            outcome="ok",
            embedding_model="emb-1",
            dimensions=384,
            index_position=7,
            candidates=(
                CandidateFound(
                    memory_id="m2",
                    turn_position=2,
                    conversation_id="c",
                    turn_id=1,
                    score=0.1 + 0.2,
                    rank=1,
                    dense_score=0.1 + 0.2,
                    dense_rank=1,
                    matched="summary",
                    excluded="recent_window",
                ),
            ),
        ),
        GateDecided(
            strategy="llm",
            outcome="fallback",
            note="not JSON",
            model="chat-1",
            prompt_version="g1",
            keep_max=30,
            score_rule={"threshold": 0.8},
            verdicts=(Verdict(n=1, memory_id="m2", keep=True, reason="names the city"),),
            raw_answer="{",
            usage=USAGE,
            latency_ms=1.25,
        ),
        RerankDecided(
            strategy="none",
            outcome="skipped",
            note=None,
            model=None,
            prompt_version=None,
            retrieve_k=5,
            order=("m2",),
            named=0,
            replayed=("m2",),
            raw_answer=None,
            usage=None,
            latency_ms=0.0,
        ),
        MemoryEdited(memory_id="m1", turn_id=1, summary="Going to Porto."),
        MemoryForgotten(memory_id="m1", turn_id=1, reason="asked to"),
        MemoryRestored(memory_id="m1", turn_id=1, reason="by mistake"),
        TurnSuperseded(memory_id="m1", turn_id=1, reason="regenerated"),
        TurnRestored(memory_id="m1", turn_id=1),
        UserErased(events=7, conversations=2),
        MemoriesErased(scope="memory", memories=1, events=0, positions=(), reason="asked to"),
        ErasureCompleted(erasure="e1"),
        activated(),
        PromptsActivated(versions={"CHAT_SYSTEM": "1"}, texts={"CHAT_SYSTEM": "Be kind."}),
        SettingsActivated(settings={"gate": "llm"}),
    )


def record(ledger: Ledger, stream: StreamId, *payloads: Payload, causation_id: str | None = None) -> tuple[Event, ...]:
    """Append payloads as one atomic append and wait for its commit."""
    correlation_id = f"chatcmpl-{uuid4()}"
    events = [NewEvent(str(uuid4()), payload, correlation_id, causation_id) for payload in payloads]
    return ledger.append(stream, lambda _head: events).result()


def record_turn(ledger: Ledger, stream: StreamId, user: str = "Where to?", assistant: str = "To Lisbon.") -> Event:
    """Append the conversation's next turn and wait for its commit."""

    def decide(head: StreamHead) -> list[NewEvent]:
        return [NewEvent(str(uuid4()), turn(head.turn_id + 1, user, assistant))]

    return ledger.append(stream, decide).result()[0]


def all_stored(ledger: Ledger) -> list[StoredEvent]:
    """Return every row of the ledger."""
    return ledger.reader.stored_after(0, 1_000_000)


def check_chain(rows: Sequence[StoredEvent]) -> None:
    """Recompute every hash of a ledger from its first row, from what the columns say and nothing else."""
    _check_chain(rows, erasures=False)


def check_chain_with_erasures(rows: Sequence[StoredEvent]) -> None:
    """Do the same after erasures: of a blanked row the hashes of text and identity stand for what is gone."""
    _check_chain(rows, erasures=True)


def _check_chain(rows: Sequence[StoredEvent], *, erasures: bool) -> None:
    prev_hash = chain.GENESIS
    parts = {row.event_id for row in rows if row.type == MemoriesErased.type}
    for place, row in enumerate(rows, start=1):
        assert row.position == place
        assert row.prev_hash == prev_hash
        if erasures and row.salt == "":
            of_a_person = row.user_id.startswith("erased:")
            assert of_a_person if row.payload == "{}" else blanked_by(row.payload) in parts
        else:
            assert row.identity_hash == chain.identity_hash(row.salt, row.user_id, row.conversation_id)
            assert row.payload_hash == chain.payload_hash(row.salt, row.payload)
        prev_hash = chain.event_hash(
            prev_hash=prev_hash,
            position=row.position,
            event_id=row.event_id,
            version=row.version,
            event_type=row.type,
            schema_version=row.schema_version,
            recorded_at=row.recorded_at,
            correlation_id=row.correlation_id,
            causation_id=row.causation_id,
            identity_hash=row.identity_hash,
            payload_hash=row.payload_hash,
        )
        assert row.hash == prev_hash


async def until(condition: Callable[[], bool]) -> None:
    """Wait, leaving the event loop free, for something that gives no sign of its own."""
    while not condition():  # noqa: ASYNC110 - what is waited for knows of no event
        await asyncio.sleep(0.002)

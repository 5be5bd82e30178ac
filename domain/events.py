"""The catalogue: one frozen model per event type, with its schema version and upcasters.

An event says what happened and is never changed. When a payload's shape must change, its ``schema_version`` goes
up and an upcaster that turns the old shape into the new one is added to :data:`UPCASTERS`; stored events stay as
they were written, and every reader sees the newest shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from domain.errors import UnknownEvent
from domain.identity import StreamId

JsonObject = dict[str, Any]

Outcome = Literal["ok", "fallback", "skipped"]
Facet = Literal["exchange", "summary"]
"""Which text of a memory a vector stands for: the exchange itself, or its summary."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Usage(_Value):
    """Tokens as the chat endpoint counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Payload(_Value):
    """What an event says. ``type`` and ``schema_version`` are stored beside it, not in it."""

    type: ClassVar[str]
    schema_version: ClassVar[int] = 1


class LeftOut(_Value):
    """An item that did not fit the prompt's token budget; it was left out whole."""

    part: Literal["window", "replay", "summary"]
    memory_id: str
    tokens: int


class PromptReport(_Value):
    """How the prompt was put together: its layout, budget and what did not fit."""

    layout: str
    system_version: str
    budget_tokens: int
    tokens: int
    counted: Literal["exact", "estimate", "mixed"]
    left_out: tuple[LeftOut, ...] = ()


class TurnRecorded(Payload):
    """A question and its answer. A memory *is* such an event: its id is the event's id."""

    type: ClassVar[str] = "TurnRecorded"

    turn_id: int
    ts: datetime
    user: str
    assistant: str
    model: str
    parameters: JsonObject
    finish_reason: str
    usage: Usage | None
    window: tuple[str, ...]
    replayed: tuple[str, ...]
    summarised: tuple[str, ...]
    prompt: PromptReport
    timings_ms: dict[str, float]


class TurnFailed(Payload):
    """A question that got no answer, and why. It takes no turn id and is not a memory."""

    type: ClassVar[str] = "TurnFailed"

    ts: datetime
    user: str
    partial_assistant: str
    model: str
    error: str
    code: str
    status: int
    timings_ms: dict[str, float]


class SummaryRecorded(Payload):
    """The summary of one turn; ``memory_id`` is that turn's event id, and the newest summary counts."""

    type: ClassVar[str] = "SummaryRecorded"

    memory_id: str
    turn_id: int
    summary: str
    model: str
    prompt_version: str
    usage: Usage | None
    attempts: int


class SummaryFailed(Payload):
    """No summary could be had this time; it is tried again at the next start."""

    type: ClassVar[str] = "SummaryFailed"

    memory_id: str
    turn_id: int
    model: str
    prompt_version: str
    error: str
    attempts: int


class CandidateFound(_Value):
    """One memory the index proposed. ``rank`` counts from 1; ``excluded`` says why it went no further."""

    memory_id: str
    turn_position: int
    conversation_id: str
    turn_id: int
    dense_score: float
    dense_rank: int
    matched: Facet
    excluded: Literal["recent_window", "same_text_as_window"] | None = None


class RetrievalRecorded(Payload):
    """What was asked of persistent memory and what came back.

    ``outcome`` is ``degraded`` when memory could not be searched: ``degraded_code`` and ``degraded_reason`` say why,
    and the turn went on with the recent window alone.
    """

    type: ClassVar[str] = "RetrievalRecorded"

    query: str
    knobs: JsonObject
    window: tuple[str, ...]
    outcome: Literal["ok", "degraded", "skipped"]
    degraded_code: str | None = None
    degraded_reason: str | None = None
    embedding_model: str | None = None
    dimensions: int | None = None
    index_position: int | None = None
    candidates: tuple[CandidateFound, ...] = ()
    embed_ms: float = 0.0
    search_ms: float = 0.0


class Verdict(_Value):
    """The gate's word on candidate ``n``. ``over_limit``: kept by the gate, cut by ``gate_keep_max``."""

    n: int
    memory_id: str
    keep: bool
    reason: str | None = None
    over_limit: bool = False


class GateDecided(Payload):
    """Keep or drop, for each candidate. Order is not the gate's business."""

    type: ClassVar[str] = "GateDecided"

    strategy: Literal["llm", "score", "off"]
    outcome: Outcome
    note: str | None
    model: str | None
    prompt_version: str | None
    keep_max: int
    score_rule: JsonObject | None
    verdicts: tuple[Verdict, ...]
    raw_answer: str | None
    usage: Usage | None
    latency_ms: float


class RerankDecided(Payload):
    """The order of the kept memories and which of them are replayed; the others are summary-only.

    ``named`` counts the memories the model itself put in order; the rest follow in gate order.
    """

    type: ClassVar[str] = "RerankDecided"

    strategy: Literal["llm", "none"]
    outcome: Outcome
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


class EmbeddingModelActivated(Payload):
    """From here on memory is searched with this embedding model.

    In the system stream it holds for everybody, in a user's own stream for that user; the newest of the two counts.
    """

    type: ClassVar[str] = "EmbeddingModelActivated"

    model: str
    dimensions: int
    passage_prefix: str
    memories: int
    vectors: int
    ledger_position: int


class PromptsActivated(Payload):
    """The prompts in use from here on, by name: what a version stands for can be read years later."""

    type: ClassVar[str] = "PromptsActivated"

    versions: dict[str, str]
    texts: dict[str, str]


CATALOGUE: Mapping[str, type[Payload]] = {
    payload.type: payload
    for payload in (
        TurnRecorded,
        TurnFailed,
        SummaryRecorded,
        SummaryFailed,
        RetrievalRecorded,
        GateDecided,
        RerankDecided,
        EmbeddingModelActivated,
        PromptsActivated,
    )
}

UPCASTERS: dict[tuple[str, int], Callable[[JsonObject], JsonObject]] = {}
"""(type, schema version) -> a pure function from a payload of that version to one of the next."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be appended: its envelope is completed by the ledger."""

    event_id: str
    payload: Payload
    correlation_id: str | None = None
    causation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event: the envelope, and the payload in its newest shape.

    ``position`` ascends over the whole ledger without holes from 1, ``version`` within the conversation.
    """

    position: int
    event_id: str
    user_id: str
    conversation_id: str
    version: int
    recorded_at: datetime
    correlation_id: str | None
    causation_id: str | None
    payload: Payload

    @property
    def stream(self) -> StreamId:
        return StreamId(self.user_id, self.conversation_id)


def decode_payload(event_type: str, schema_version: int, payload: JsonObject) -> Payload:
    """Return the payload in its newest shape; raise :class:`UnknownEvent` for what this code cannot know."""
    model = CATALOGUE.get(event_type)
    if model is None:
        raise UnknownEvent(
            f"event type {event_type!r} is not in the catalogue: a newer version wrote this ledger, upgrade the code"
        )
    while schema_version < model.schema_version:
        upcast = UPCASTERS.get((event_type, schema_version))
        if upcast is None:
            raise UnknownEvent(f"{event_type} of schema version {schema_version} has no upcaster")
        payload = upcast(payload)
        schema_version += 1
    if schema_version > model.schema_version:
        raise UnknownEvent(
            f"{event_type} has schema version {schema_version}, this code knows up to {model.schema_version}: "
            "upgrade the code"
        )
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        raise UnknownEvent(
            f"{event_type} of schema version {schema_version} does not have the shape of its model "
            f"({error.error_count()} fields differ): the ledger was written by other code"
        ) from error

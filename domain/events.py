"""The catalogue: one frozen model per event type, with its schema version and upcasters.

An event says what happened and never changes. To change the shape of a payload, raise its ``schema_version`` and add a
function from the old shape to the new one to :data:`UPCASTERS`. Stored events stay as they were written, and every
reader sees the newest shape.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
)
from pydantic_core import from_json

from domain.chain import canonical
from domain.errors import EventDamaged, UnknownEvent, Unrecordable, shown
from domain.identity import StreamId
from domain.model_call import ModelCall
from domain.origin import Origin

JsonObject = dict[str, Any]

Outcome = Literal["ok", "fallback", "skipped"]
Facet = Literal["exchange", "summary"]
"""Which text of a memory a vector stands for: the exchange itself, or its summary."""
RetrievalMode = Literal["hybrid", "dense", "lexical"]
"""Which index proposed the candidates: dense (vectors), lexical (words), or both."""

PromptPart = Literal["window", "replay", "summary", "neighbour"]
"""What a memory is in a prompt; a neighbour is a turn beside a replayed one."""
SupersededReason = Literal["regenerated", "edited", "left", "retried"]
"""Why a conversation went on without one of its turns."""


class _Value(BaseModel):
    # By default a number that is not finite would be recorded as null, which its field then does not take back.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Usage(_Value):
    """Tokens as the chat endpoint counted them.

    The details say how many of them were of which kind, such as ``cached_tokens`` or ``reasoning_tokens``. Where the
    endpoint does not tell they are not written, as in events of before they were recorded.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | None = None
    completion_tokens_details: dict[str, int] | None = None

    @model_serializer(mode="wrap")
    def _without_missing_details(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if value is not None}


class Payload(_Value):
    """What an event says. ``type`` and ``schema_version`` are stored beside it, not in it."""

    type: ClassVar[str]
    schema_version: ClassVar[int] = 1


class LeftOut(_Value):
    """An item that did not fit the prompt's token budget; it was left out whole.

    A memory that was to be replayed may be among the summaries instead.
    """

    part: PromptPart
    memory_id: str
    tokens: int


class PromptShares(_Value):
    """The tokens of a prompt's parts; ``fixed`` is the system text and the question."""

    fixed: int
    window: int
    memory: int


class Shortened(_Value):
    """A memory of which only so many characters of the question and of the answer were shown."""

    memory_id: str
    chars: int


class PromptReport(_Value):
    """How the prompt was assembled: its layout, its budget and what did not fit.

    ``shares`` is None, and nothing is ``shortened``, in reports of before :mod:`domain.prompt` shared the budget.
    ``timezone`` is the zone of its days. It is UTC for prompts of before it was recorded.
    """

    layout: str
    system_version: str
    budget_tokens: int
    tokens: int
    counted: Literal["exact", "estimate", "mixed"]
    left_out: tuple[LeftOut, ...] = ()
    shares: PromptShares | None = None
    shortened: tuple[Shortened, ...] = ()
    timezone: str = "UTC"
    shared_tokens: int | None = None
    """About how many tokens it begins with as the prompt before in this conversation; None where none is known."""
    messages_hash: str | None = None
    """Hash of the messages as they were sent, which proves that a reconstructed prompt is the same."""


class FromClient(_Value):
    """What of a prompt the client sent, by ids of events.

    ``history`` are the turns of its own window, oldest first: a recorded turn stands for its two texts, a
    ``MessagesSent`` event for its messages. It is None where the window came from the ledger. ``asked`` is the
    ``MessagesSent`` event of the question's message and all after it, None where that is the question's text alone.
    ``tools`` is the ``ToolsOffered`` event. ``response`` are the fields of a request to ``/v1/responses`` that its
    answer repeats, None where the request came by another way.
    """

    history: tuple[str, ...] | None = None
    asked: str | None = None
    tools: str | None = None
    response: JsonObject | None = None


class TurnRecorded(Payload):
    """A question and its answer. A memory *is* such an event: its id is the event's id.

    ``client_system`` is the client's own system text, None where it was not recorded (schema 1). ``neighbours`` are the
    turns beside the replayed ones that were shown with them. ``follows`` is the turn before it on its branch of the
    conversation. By ``exchange_key`` a client's history is matched with it, by ``request_key`` a repeated request.
    ``tools_used`` names the tools whose results the answer was given with. An imported turn names its source in
    ``imported_from`` and has no prompt; ``source_ids`` are the source's own ids of its messages. ``first_recorded_at``
    is when the ledger of another installation recorded it, None for a turn that none did.
    """

    type: ClassVar[str] = "TurnRecorded"
    schema_version: ClassVar[int] = 2

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
    neighbours: tuple[str, ...] = ()
    client_system: str | None = None
    imported_from: str | None = None
    source_ids: tuple[str, ...] = ()
    first_recorded_at: datetime | None = None
    prompt: PromptReport | None
    timings_ms: dict[str, float]
    call: ModelCall | None = None
    from_client: FromClient | None = None
    follows: str | None = None
    exchange_key: str | None = None
    request_key: str | None = None
    tools_used: tuple[str, ...] = ()


class TurnFailed(Payload):
    """A question that got no answer, and why. It takes no turn id and is not a memory.

    The fields of the prompt say what the chat model was asked, if it was: ``prompt`` is None where it was not, and in
    events of before this was recorded.
    """

    type: ClassVar[str] = "TurnFailed"

    ts: datetime
    user: str
    partial_assistant: str
    model: str
    error: str
    code: str
    status: int
    timings_ms: dict[str, float]
    usage: Usage | None = None
    window: tuple[str, ...] = ()
    replayed: tuple[str, ...] = ()
    summarised: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    client_system: str | None = None
    prompt: PromptReport | None = None
    call: ModelCall | None = None
    from_client: FromClient | None = None


class ToolCall(_Value):
    """A tool that the model calls, by the id of that call; ``arguments`` are None where they were not recorded."""

    call_id: str
    name: str
    arguments: str | None = None


class ToolsCalled(Payload):
    """The model answered with calls of the client's tools; the exchange goes on when the client sends their results.

    It takes no turn id and is not a memory. The fields are those of a turn. The turn that comes of it has the same
    correlation id, and goes on with the memories that are named here.
    """

    type: ClassVar[str] = "ToolsCalled"

    ts: datetime
    user: str
    assistant: str
    model: str
    calls: tuple[ToolCall, ...]
    finish_reason: str
    usage: Usage | None
    window: tuple[str, ...]
    replayed: tuple[str, ...]
    summarised: tuple[str, ...]
    neighbours: tuple[str, ...] = ()
    client_system: str | None = None
    prompt: PromptReport | None
    timings_ms: dict[str, float]
    call: ModelCall | None = None
    from_client: FromClient | None = None
    follows: str | None = None


class ResponseDeleted(Payload):
    """A client deleted a response that is no memory, by the id of its event: nothing gives it back or goes on from it.

    One that is a memory is forgotten instead.
    """

    type: ClassVar[str] = "ResponseDeleted"

    answer: str


class MessagesSent(Payload):
    """Messages that a client sent and that no turn holds word for word, without the bytes of images and files.

    They are the messages of one turn as the client tells it (``memory_id`` names that turn where the ledger has it), or
    a question with what came after it. The turns that were shown them name this event.
    """

    type: ClassVar[str] = "MessagesSent"

    messages: tuple[JsonObject, ...]
    memory_id: str | None = None


class ToolsOffered(Payload):
    """The tools that a client offered to the model, as it sent them; the turns with these tools name this event."""

    type: ClassVar[str] = "ToolsOffered"

    tools: tuple[JsonObject, ...]


class SummaryAsked(_Value):
    """How much of an exchange the summary's model was shown, in characters from its beginning, and its zone."""

    question_chars: int
    answer_chars: int
    timezone: str


class SummaryRecorded(Payload):
    """The summary of one turn; ``memory_id`` is that turn's event id, and the newest summary counts.

    ``usage`` is of all attempts. ``asked`` says what the model was shown; it and ``call`` are None where that was not
    recorded.
    """

    type: ClassVar[str] = "SummaryRecorded"

    memory_id: str
    turn_id: int
    summary: str
    model: str
    prompt_version: str
    usage: Usage | None
    attempts: int
    asked: SummaryAsked | None = None
    call: ModelCall | None = None


class SummaryFailed(Payload):
    """The summary failed; it is tried again at the next start. ``asked`` and ``call`` are of the last attempt."""

    type: ClassVar[str] = "SummaryFailed"

    memory_id: str
    turn_id: int
    model: str
    prompt_version: str
    error: str
    attempts: int
    usage: Usage | None = None
    asked: SummaryAsked | None = None
    call: ModelCall | None = None


Exclusion = Literal[
    "recent_window", "same_text_as_window", "left_behind", "older_same_question", "older_near_duplicate"
]
"""Why a candidate went no further. ``left_behind``: the conversation leaves that turn behind with this one."""


class CandidateFound(_Value):
    """One memory that the indices proposed; ``excluded`` says why it went no further.

    ``score`` and ``rank`` are the fused ones, by which candidates are ordered. The dense score is a cosine similarity,
    the lexical one BM25 (higher is better); ranks count from 1. A rank is None where that index did not propose the
    memory, a score where it is not known. ``matched`` is None where the dense index did not propose it, but the lexical
    one or a turn beside it. ``summary_position`` is the position of the event whose summary was shown, None where the
    exchange itself was shown.
    """

    memory_id: str
    turn_position: int
    conversation_id: str
    turn_id: int
    score: float
    rank: int
    dense_score: float | None
    dense_rank: int | None
    lexical_score: float | None = None
    lexical_rank: int | None = None
    matched: Facet | None
    summary_position: int | None = None
    excluded: Exclusion | None = None


class RetrievalRecorded(Payload):
    """A search of memory and what it found.

    ``outcome`` is ``degraded`` when an index could not be searched; ``degraded_code`` and ``degraded_reason`` say why.
    The turn then went on with the recent window alone, or with the candidates of the other index, which ``mode`` names.
    ``fusion`` states the rule by which rankings were fused, ``time_range`` the time that the query named.
    """

    type: ClassVar[str] = "RetrievalRecorded"
    schema_version: ClassVar[int] = 2

    query: str
    knobs: JsonObject
    window: tuple[str, ...]
    outcome: Literal["ok", "degraded", "skipped"]
    degraded_code: str | None = None
    degraded_reason: str | None = None
    mode: RetrievalMode | None = None
    fusion: JsonObject | None = None
    time_range: JsonObject | None = None
    embedding_model: str | None = None
    dimensions: int | None = None
    index_position: int | None = None
    candidates: tuple[CandidateFound, ...] = ()
    embed_ms: float = 0.0
    search_ms: float = 0.0
    lexical_ms: float = 0.0


class Verdict(_Value):
    """The gate's verdict on candidate ``n``. ``over_limit``: the gate kept it, but ``gate_keep_max`` cut it."""

    n: int
    memory_id: str
    keep: bool
    reason: str | None = None
    over_limit: bool = False


class DecisionAsked(_Value):
    """What a deciding model was shown: so many candidates, from the first, and how much of each and of the question.

    ``layout`` says how the candidates were quoted, see `domain.decisions.DECISION_LAYOUTS`.
    """

    candidates: int
    line_chars: int
    question_chars: int
    layout: str = "lines-1"


class GateDecided(Payload):
    """Keep or drop, for each candidate. The gate does not rank.

    ``asked`` is None where no model was asked, and in events of before it was recorded. A candidate that the model was
    not shown was not decided about.
    """

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
    asked: DecisionAsked | None = None
    call: ModelCall | None = None


class RerankDecided(Payload):
    """The order of the kept memories, and which of them are replayed; the others are summarised.

    ``named`` counts the memories that the model itself ordered; the rest follow in gate order. ``scores`` are what a
    rerank endpoint gave the named ones. ``asked`` is as in the gate's event, of the kept
    memories in their order.
    """

    type: ClassVar[str] = "RerankDecided"
    schema_version: ClassVar[int] = 2

    strategy: Literal["llm", "endpoint", "none"]
    outcome: Outcome
    note: str | None
    model: str | None
    prompt_version: str | None
    retrieve_k: int
    order: tuple[str, ...]
    named: int
    scores: tuple[float, ...] = ()
    replayed: tuple[str, ...]
    raw_answer: str | None
    usage: Usage | None
    latency_ms: float
    asked: DecisionAsked | None = None
    call: ModelCall | None = None


class MemoryEdited(Payload):
    """A person corrected a memory: from here on this is its summary, whatever a model has written or will write."""

    type: ClassVar[str] = "MemoryEdited"

    memory_id: str
    turn_id: int
    summary: str


class MemoryForgotten(Payload):
    """A person withdrew a memory: from here on no search, window or list shows it. The turn stays in the ledger."""

    type: ClassVar[str] = "MemoryForgotten"

    memory_id: str
    turn_id: int
    reason: str | None = None


class MemoryRestored(Payload):
    """A person took back that they had withdrawn a memory: the newest of the two events counts."""

    type: ClassVar[str] = "MemoryRestored"

    memory_id: str
    turn_id: int
    reason: str | None = None


class TurnSuperseded(Payload):
    """The conversation went on without this turn: from here on it is hidden, as if it were forgotten.

    The client asked the same again (``regenerated``), or something else in its place (``edited``), went on from an
    earlier turn (``left``), or never got the answer and asked again (``retried``).
    """

    type: ClassVar[str] = "TurnSuperseded"

    memory_id: str
    turn_id: int
    reason: SupersededReason


class TurnRestored(Payload):
    """The conversation came back to a superseded turn: the newest of the two events counts."""

    type: ClassVar[str] = "TurnRestored"

    memory_id: str
    turn_id: int


class UserErased(Payload):
    """A person's texts and ids were blanked in every event of theirs, this one's own ids included.

    It is appended to the user's own stream, and the triggers allow the blanking only because it is there. ``events``
    and ``conversations`` count what was blanked.
    """

    type: ClassVar[str] = "UserErased"

    events: int
    conversations: int


class MemoriesErased(Payload):
    """A part of a person's memory was blanked: one memory, one conversation, or what was older than a limit.

    It is appended to the user's own stream, and the triggers allow the blanking only of the events that it lists:
    ``positions`` are ranges, first and last included. ``memories`` and ``events`` count turns and all events. The ids
    of the blanked events stay.
    """

    type: ClassVar[str] = "MemoriesErased"

    scope: Literal["memory", "conversation", "retention"]
    memories: int
    events: int
    positions: tuple[tuple[int, int], ...]
    reason: str | None = None


class ErasureCompleted(Payload):
    """What a ``MemoriesErased`` event began is done, in every file; ``erasure`` is that event's id."""

    type: ClassVar[str] = "ErasureCompleted"

    erasure: str


class EmbeddingModelActivated(Payload):
    """From here on memory is searched with this embedding model.

    In the system stream it holds for everybody, in a user's own stream for that user; the newest of the two counts.
    ``base_url`` (without credentials) and ``query_prefix`` let a service that is configured for another model embed
    questions with this one; None where they were not recorded (schema 1).
    """

    type: ClassVar[str] = "EmbeddingModelActivated"
    schema_version: ClassVar[int] = 2

    model: str
    dimensions: int
    passage_prefix: str
    query_prefix: str | None = None
    base_url: str | None = None
    memories: int
    vectors: int
    ledger_position: int


class PromptsActivated(Payload):
    """The prompts in use from here on, by name, so that the text of a version can be read years later."""

    type: ClassVar[str] = "PromptsActivated"

    versions: dict[str, str]
    texts: dict[str, str]


class SettingsActivated(Payload):
    """The settings in use from here on that decide how questions are answered; without keys and ids of people."""

    type: ClassVar[str] = "SettingsActivated"

    settings: JsonObject


CATALOGUE: Mapping[str, type[Payload]] = {
    payload.type: payload
    for payload in (
        TurnRecorded,
        TurnFailed,
        ToolsCalled,
        ResponseDeleted,
        MessagesSent,
        ToolsOffered,
        SummaryRecorded,
        SummaryFailed,
        RetrievalRecorded,
        GateDecided,
        RerankDecided,
        MemoryEdited,
        MemoryForgotten,
        MemoryRestored,
        TurnSuperseded,
        TurnRestored,
        UserErased,
        MemoriesErased,
        ErasureCompleted,
        EmbeddingModelActivated,
        PromptsActivated,
        SettingsActivated,
    )
}


def _turn_from_1(payload: JsonObject) -> JsonObject:
    return {**payload, "neighbours": [], "client_system": None, "imported_from": None}


def _retrieval_from_1(payload: JsonObject) -> JsonObject:
    """Schema 1 knew the dense index only, so its order was the order of the candidates."""
    candidates = [
        {**candidate, "score": candidate["dense_score"], "rank": candidate["dense_rank"]}
        for candidate in payload["candidates"]
    ]
    mode = "dense" if payload["outcome"] == "ok" else None
    return {**payload, "mode": mode, "candidates": candidates}


def _rerank_from_1(payload: JsonObject) -> JsonObject:
    return {**payload, "scores": []}


def _activation_from_1(payload: JsonObject) -> JsonObject:
    return {**payload, "query_prefix": None, "base_url": None}


UPCASTERS: dict[tuple[str, int], Callable[[JsonObject], JsonObject]] = {
    ("TurnRecorded", 1): _turn_from_1,
    ("RetrievalRecorded", 1): _retrieval_from_1,
    ("RerankDecided", 1): _rerank_from_1,
    ("EmbeddingModelActivated", 1): _activation_from_1,
}
"""(type, schema version) -> a pure function from a payload of that version to one of the next."""


class Erased(Payload):
    """Read in the place of a payload that an erasure has blanked. It is never appended.

    ``erased_by`` is the id of the event that began the erasure, ``MemoriesErased`` or ``UserErased``.
    """

    type: ClassVar[str] = "Erased"

    event_type: str
    erased_by: str


ORIGIN = "origin"
"""The key beside a payload's own fields under which an event's origin is stored, and blanked with them."""


class Damaged(Payload):
    """Read in the place of a payload that is no longer what was written, see :mod:`domain.rows`. Never appended."""

    type: ClassVar[str] = "Damaged"

    event_type: str


BLANK = "{}"
"""The payload's text after the erasure of a person, which also empties the salt."""
_BLANKED_BY = re.compile(r'\{"erased_by":"([^"\\]+)"\}')
_FREE_FORM = TypeAdapter(JsonObject, config=ConfigDict(ser_json_inf_nan="constants"))


def check_text(name: str, value: object) -> None:
    """Raise :class:`Unrecordable`, which names a column, for a value that it cannot hold as it is."""
    try:
        if isinstance(value, str):
            value.encode()
            return
    except UnicodeEncodeError:
        pass
    raise Unrecordable(f"{name} = {shown(value)} cannot be recorded: nothing was")


def recorded_text(payload: Payload | JsonObject) -> str:
    """Return the text in which a payload, or a part of one, is stored.

    Raises :class:`Unrecordable` for what has none that every reader gives back: numbers that are not finite, halves of
    surrogate pairs, more levels than a reader takes. So it is read here as :mod:`domain.verification` will read it.
    """
    try:
        if isinstance(payload, Payload):
            text = canonical(payload.model_dump(mode="json"))
        else:
            text = canonical(_FREE_FORM.dump_python(payload, mode="json"))
        from_json(text.encode())
    except (ValueError, RecursionError) as error:
        # The message of an encoding error quotes the text.
        why = "text with half of a surrogate pair" if isinstance(error, UnicodeError) else str(error)
        raise Unrecordable(f"an event cannot be recorded ({why}): nothing was") from None
    return text


def blank_of(erasure_id: str) -> str:
    """Return the payload's text after the erasure of a part of a memory, which also empties the salt."""
    return canonical({"erased_by": erasure_id})


def blanked_by(payload_json: str) -> str | None:
    """Return the id of the ``MemoriesErased`` event that a blanked payload names, None for any other payload."""
    found = _BLANKED_BY.fullmatch(payload_json)
    return found.group(1) if found is not None else None


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be appended. The ledger completes its envelope.

    ``payload_json`` is the payload as it will be stored. It is serialised with the event, so that a payload that cannot
    be recorded fails here, before an answer is shown. Raises :class:`Unrecordable`.
    """

    event_id: str
    payload: Payload
    correlation_id: str | None = None
    causation_id: str | None = None
    origin: Origin | None = None
    payload_json: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("event_id", "correlation_id", "causation_id"):
            if (value := getattr(self, name)) is not None or name == "event_id":
                check_text(name, value)
        stored: Payload | JsonObject = self.payload
        if self.origin is not None:
            origin = self.origin.model_dump(mode="json", exclude_none=True)
            stored = {**self.payload.model_dump(mode="json"), ORIGIN: origin}
        # A frozen dataclass sets a derived field this way.
        object.__setattr__(self, "payload_json", recorded_text(stored))


@dataclass(frozen=True, slots=True)
class Event:
    """A recorded event: the envelope, and the payload in its newest shape.

    ``position`` counts from 1 without gaps over the whole ledger, ``version`` within the conversation.
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
    origin: Origin | None = None

    @property
    def stream(self) -> StreamId:
        return StreamId(self.user_id, self.conversation_id)

    @property
    def type(self) -> str:
        """The event's type, even if its payload was blanked or damaged."""
        return self.payload.event_type if isinstance(self.payload, Erased | Damaged) else self.payload.type


def decode_origin(payload: JsonObject) -> Origin | None:
    """Return the origin stored with a payload; raise :class:`UnknownEvent` where it has another shape."""
    if not isinstance(payload, dict) or ORIGIN not in payload:
        return None
    try:
        return Origin.model_validate(payload[ORIGIN])
    except ValidationError as error:
        raise UnknownEvent("the origin of an event does not have its shape: upgrade the code") from error


def decode_payload(event_type: str, schema_version: int, payload: JsonObject) -> Payload:
    """Return the payload in its newest shape. An origin stored beside it is passed over, see :func:`decode_origin`.

    Raises :class:`UnknownEvent` for one that this code does not know, :class:`EventDamaged` for one of another shape.
    """
    if isinstance(payload, dict) and ORIGIN in payload:
        payload = {name: value for name, value in payload.items() if name != ORIGIN}
    model = CATALOGUE.get(event_type)
    if model is None:
        raise UnknownEvent(
            f"event type {event_type!r} is not in the catalogue: a newer version wrote this ledger, upgrade the code"
        )
    while schema_version < model.schema_version:
        upcast = UPCASTERS.get((event_type, schema_version))
        if upcast is None:
            raise UnknownEvent(f"{event_type} of schema version {schema_version} has no upcaster")
        try:
            payload = upcast(payload)
        except (LookupError, TypeError):
            raise EventDamaged(f"{event_type} does not have the shape of schema version {schema_version}") from None
        schema_version += 1
    if schema_version > model.schema_version:
        raise UnknownEvent(
            f"{event_type} has schema version {schema_version}, this code knows up to {model.schema_version}: "
            "upgrade the code"
        )
    try:
        return model.model_validate(payload)
    except ValidationError as error:
        raise EventDamaged(
            f"{event_type} of schema version {schema_version} does not have the shape of its model "
            f"({error.error_count()} fields differ): the ledger was written by other code"
        ) from error

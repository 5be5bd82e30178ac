"""The shape of every answer: mypy checks handlers against it, and ``/docs`` describes it.

Typed dictionaries cost nothing to build and encode. A chat completion is OpenAI's own type with this service's fields
added; it is sent without validation, so a test validates real answers and chunks against it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired

from openai.types import Completion, CreateEmbeddingResponse, chat
from openai.types import responses as openai_responses
from openai.types.chat import chat_completion, chat_completion_chunk
from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from domain.events import Outcome, RetrievalMode
from service.knobs import Knobs

Timestamp = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
"""A moment as clients read it: ISO 8601, UTC, ``Z``."""


class ErrorDetail(TypedDict):
    """What went wrong, in OpenAI's terms: ``param`` names the field at fault, ``code`` is for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(TypedDict):
    """The body of every answer with a status of 400 or more."""

    error: ErrorDetail


class Scores(TypedDict):
    """How each index scored a memory: cosine similarity, BM25, and the fused score that orders candidates."""

    fused: float | None
    dense: float | None
    lexical: float | None


class FoundMemory(TypedDict):
    """A memory as a search found it. ``score`` is the dense one, which is comparable between questions."""

    memory_id: str
    conv_id: str
    turn_id: int
    ts: Timestamp
    score: float | None
    scores: Scores | None


class ReplayedMemory(FoundMemory):
    """A past turn that the model saw word for word; ``neighbor_of`` names the memory beside which it came along."""

    neighbor_of: str | None
    raw_user: str
    raw_assistant: str


class SummarisedMemory(FoundMemory):
    """A past turn of which the model saw the summary."""

    summary: str


class Retrieved(TypedDict):
    """The memories an answer was given from, best first; a replayed one is followed by its neighbors."""

    replay: list[ReplayedMemory]
    summary_only: list[SummarisedMemory]


class Decision(TypedDict):
    """How a step decided: its strategy, and whether that worked."""

    strategy: str
    outcome: Outcome


class NamedTime(TypedDict):
    """The time that a question named; ``end`` is the first moment after it, ``timezone`` whose days it has."""

    phrase: str
    start: Timestamp
    end: Timestamp
    timezone: str


class ShownMemories(TypedDict):
    """What became of the memories that the gate kept: shown whole, as summaries, beside others, or not at all.

    ``recalled`` counts them all; ``reason`` says why some were left out.
    """

    recalled: int
    replayed: int
    summarised: int
    beside: int
    left_out: int
    reason: str | None


class MemoryStatus(TypedDict):
    """How memory worked for an answer. ``notice`` tells a person what did not work, ``code`` tells a program."""

    retrieval: Literal["ok", "degraded", "skipped"]
    mode: RetrievalMode | None
    gate: Decision
    rerank: Decision
    shown: ShownMemories
    code: str | None
    notice: str | None
    time_range: NamedTime | None


class TurnReference(TypedDict):
    """Where the ledger holds this turn."""

    conversation_id: str
    turn_id: int
    memory_id: str


class AnswerMessage(chat.ChatCompletionMessage):
    """The answer; ``reasoning_content`` is shown where the model reasons, and never stored."""

    reasoning_content: str | None = None


class ChatChoice(chat_completion.Choice):
    """One answer to a request, the only one unless it asks for ``n``."""

    message: AnswerMessage


class ChatCompletion(chat.ChatCompletion):
    """A whole answer, after its turn was committed."""

    choices: list[ChatChoice]  # type: ignore[assignment]  # list is invariant, but nobody adds a bare Choice here
    retrieved: Retrieved
    memory_status: MemoryStatus
    turn: TurnReference


class ChunkDelta(chat_completion_chunk.ChoiceDelta):
    """The next piece of the answer."""

    reasoning_content: str | None = None


class ChunkChoice(chat_completion_chunk.Choice):
    """One answer to a request, as far as this chunk carries it on."""

    delta: ChunkDelta


class ChatCompletionChunk(chat.ChatCompletionChunk):
    """One event of a stream. The first has what memory gave; the one with ``finish_reason`` follows the commit."""

    choices: list[ChunkChoice]  # type: ignore[assignment]  # as above
    retrieved: Retrieved | None = None
    memory_status: MemoryStatus | None = None
    turn: TurnReference | None = None


class EmbeddingAnswer(CreateEmbeddingResponse):
    """What the embedding endpoint answers, passed on as it is."""


class CompletionAnswer(Completion):
    """What the chat endpoint answers to a request of the old API, passed on as it is."""


class ResponseTurn(TypedDict):
    """Where the ledger holds the turn that a response is; ``memory_id`` is null for one that is no memory."""

    conversation_id: str
    memory_id: str | None


class ResponseAnswer(openai_responses.Response):
    """A response. ``retrieved`` and ``memory_status`` come with the answer, and not when it is given back later."""

    store: bool
    retrieved: Retrieved | None = None
    memory_status: MemoryStatus | None = None
    turn: TurnReference | ResponseTurn | None = None


class DeletedResponse(TypedDict):
    """The receipt for a deleted response."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItems(openai_responses.ResponseItemList):
    """A page of what the model was shown of the client's own."""


class ModelCard(TypedDict):
    """The chat model that answers, with the knobs of a request that sets none."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None
    knobs: Knobs


class ModelList(TypedDict):
    """The models a request may name."""

    object: Literal["list"]
    data: list[ModelCard]


class Conversation(TypedDict):
    """One of a user's conversations; ``title`` is how it began."""

    conversation_id: str
    turns: int
    last_ts: Timestamp
    title: str


class ConversationList(TypedDict):
    """A user's conversations, the one used last first."""

    object: Literal["list"]
    data: list[Conversation]


class Turn(TypedDict):
    """A past turn. ``memory_status`` is null for an imported turn, which was not answered here."""

    turn_id: int
    memory_id: str
    ts: Timestamp
    user: str
    assistant: str
    finish_reason: str
    summary: str | None
    retrieved: Retrieved
    memory_status: MemoryStatus | None


class TurnList(TypedDict):
    """Turns of one conversation, oldest first."""

    object: Literal["list"]
    data: list[Turn]


class Memory(TypedDict):
    """A memory: one turn and its newest summary; ``edited`` says that a person wrote that."""

    object: Literal["memory"]
    memory_id: str
    conversation_id: str
    turn_id: int
    ts: Timestamp
    user: str
    assistant: str
    summary: str | None
    edited: bool


class MemoryList(TypedDict):
    """A page of a user's memories, newest first."""

    object: Literal["list"]
    data: list[Memory]
    has_more: bool


class EditedMemory(Memory):
    """A memory after its correction; ``changed`` is false where it said the same before."""

    changed: bool


class ForgottenMemory(TypedDict):
    """The receipt for a withdrawn memory; ``changed`` is false where it had been withdrawn before."""

    object: Literal["memory.deleted"]
    memory_id: str
    deleted: Literal[True]
    changed: bool


class RestoredMemory(TypedDict):
    """The receipt for a memory taken back; ``changed`` is false where it was not withdrawn.

    ``superseded`` says that its conversation has gone on without it: it stays hidden until a client returns to it.
    """

    object: Literal["memory.restored"]
    memory_id: str
    restored: Literal[True]
    changed: bool
    superseded: bool


class Alive(TypedDict):
    """The process answers."""

    status: Literal["ok"]


class EndpointHealth(TypedDict):
    """What one real call to an endpoint showed; ``message`` says what failed."""

    status: Literal["ok", "failing"]
    message: NotRequired[str]


class EmbedHealth(EndpointHealth):
    """The embedding endpoint; ``learned`` is what it refuses, and what is sent instead."""

    model: str
    dimension: NotRequired[int]
    learned: NotRequired[dict[str, str]]


class ContextHealth(TypedDict):
    """How many tokens the chat model is taken to hold, question and answer together, and who says so."""

    tokens: int
    source: str


class ChatHealth(EndpointHealth):
    """The chat endpoint; ``sample`` is what its model said, ``learned`` what it refuses, and what is sent instead."""

    model: str
    sample: NotRequired[str]
    learned: NotRequired[dict[str, str]]
    context: NotRequired[ContextHealth]


class RerankHealth(EndpointHealth):
    """Who reranks, and how the rerank endpoint scored a word where there is one."""

    strategy: str
    model: NotRequired[str]
    score: NotRequired[float]


class Check(TypedDict):
    """The state of one part of the service."""

    status: Literal["ok", "degraded", "failing"]
    message: NotRequired[str]
    code: NotRequired[str]
    position: NotRequired[int]
    model: NotRequired[str]
    dimensions: NotRequired[int]
    failures: NotRequired[int]
    waiting: NotRequired[int]


class Readiness(TypedDict):
    """Whether turns can be recorded and memory searched, part by part."""

    status: Literal["ok", "degraded"]
    checks: dict[str, Check]


ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorAnswer, "description": "The request cannot be answered as it is."},
    "5XX": {"model": ErrorAnswer, "description": "The service, or an endpoint it calls, failed."},
}
"""What every route says of its errors."""

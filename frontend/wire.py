"""The service's answers as the page reads them: frozen models of the JSON.

Unknown fields are ignored, so that a newer service can add some. A missing field is a backend error
(`UnreadableAnswerError`), never a KeyError in the drawing code.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def _as_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


UtcTime = Annotated[datetime, AfterValidator(_as_utc)]
"""An aware datetime; the service's times are UTC, so one without an offset is UTC too."""


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Scores(_Wire):
    """The score of each index, None if it did not find the memory. `dense` is the similarity to the question."""

    dense: float | None = None
    lexical: float | None = None


class Replayed(_Wire):
    """An earlier exchange that the model saw word for word.

    `score` is the similarity to the question; `scores` has those of each index. `neighbor_of` is the memory whose
    neighbor it is, None if it was found itself.
    """

    memory_id: str
    conv_id: str
    turn_id: int
    ts: UtcTime
    score: float | None = None
    scores: Scores | None = None
    neighbor_of: str | None = None
    raw_user: str
    raw_assistant: str


class Summarised(_Wire):
    """An earlier exchange of which the model saw only the summary."""

    memory_id: str
    conv_id: str
    turn_id: int
    ts: UtcTime
    score: float | None = None
    scores: Scores | None = None
    summary: str


class Retrieved(_Wire):
    """The memories an answer was given."""

    replay: tuple[Replayed, ...] = ()
    summary_only: tuple[Summarised, ...] = ()


class NamedTime(_Wire):
    """The time that a question named, as the service understood it; `end` is exclusive, its days are in `timezone`."""

    phrase: str
    start: UtcTime
    end: UtcTime
    timezone: str = "UTC"


class ShownMemories(_Wire):
    """What became of the memories that the gate kept."""

    recalled: int
    replayed: int
    summarised: int
    beside: int = 0
    left_out: int = 0


class MemoryStatus(_Wire):
    """How memory worked for an answer. If degraded, `notice` is a sentence for people and `code` the reason."""

    retrieval: str = "ok"
    shown: ShownMemories | None = None
    code: str | None = None
    time_range: NamedTime | None = None
    notice: str | None = None


class TurnRef(_Wire):
    """Where the ledger holds the exchange."""

    conversation_id: str
    turn_id: int
    memory_id: str


class StoredTurn(_Wire):
    """One recorded exchange, with the memories it was given and how memory worked."""

    turn_id: int
    memory_id: str
    ts: UtcTime
    user: str
    assistant: str
    finish_reason: str | None = None
    retrieved: Retrieved | None = None
    memory_status: MemoryStatus | None = None


class MemoryInfo(_Wire):
    """One memory: an exchange, and its summary once there is one."""

    memory_id: str
    summary: str | None = None


class MemoryGone(_Wire):
    """The answer to a forget."""

    memory_id: str


class ConversationInfo(_Wire):
    """One line in the list of a user's conversations."""

    conversation_id: str
    turns: int
    last_ts: UtcTime
    title: str | None = None


class ConversationList(_Wire):
    data: tuple[ConversationInfo, ...]


class TurnList(_Wire):
    data: tuple[StoredTurn, ...]


class ModelInfo(_Wire):
    """The chat model that answers, and the service's default knobs."""

    id: str
    knobs: dict[str, bool | int | float | str | None] = {}


class ModelList(_Wire):
    data: tuple[ModelInfo, ...]


class _Delta(_Wire):
    content: str | None = None


class _Choice(_Wire):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class Chunk(_Wire):
    """One `chat.completion.chunk`, with the fields that the service adds to the first and the last one."""

    choices: tuple[_Choice, ...] = ()
    retrieved: Retrieved | None = None
    memory_status: MemoryStatus | None = None
    turn: TurnRef | None = None

    @property
    def text(self) -> str:
        return "".join(choice.delta.content or "" for choice in self.choices)

    @property
    def finish_reason(self) -> str | None:
        return next((choice.finish_reason for choice in self.choices if choice.finish_reason), None)


class ErrorBody(_Wire):
    """OpenAI's error object."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class ErrorEnvelope(_Wire):
    error: ErrorBody

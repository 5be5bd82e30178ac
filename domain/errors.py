"""Every error the product raises on purpose.

    OpmError
    ├── InvalidInput              a value from outside is not acceptable: names the field, the value, the fix
    ├── SettingsError             a setting is missing or malformed
    ├── UnknownMemory             no memory of this user has this id
    ├── UnknownModel              no model has the name that a request gives
    ├── UnknownResponse           no response that is kept has this id
    ├── LedgerError
    │   ├── LedgerSchemaError     the file is not migrated, or was migrated by a newer version
    │   ├── LedgerLocked          another process writes and this SQLite cannot share safely
    │   ├── LedgerWriteFailed     the commit failed; nothing of the batch was recorded
    │   ├── LedgerReadFailed      the file could not be read
    │   ├── LedgerOverloaded      the queue in front of the writer is full
    │   ├── VersionConflict       the conversation has moved on since the caller read it
    │   ├── MemoryErased          what an append builds on has been erased meanwhile
    │   ├── Unrecordable          an event that no reader would give back as it was given
    │   └── UnknownEvent          this code does not know an event's type or schema version
    │       └── EventDamaged      the payload of an event does not have the shape of its type
    ├── EmbeddingError            the embedding endpoint gave no usable vectors
    │   ├── EmbeddingUnavailable  unreachable, too slow, rate-limited or failing: may work later
    │   ├── EmbeddingRejected     it refused these texts; the same call will fail again
    │   │   └── EmbeddingTooLong  as far as can be told, because one is too long
    │   └── EmbeddingMisfit       its answer does not fit the index (dimensions, numbers)
    ├── IndexUnavailable          memory cannot be searched now
    │   ├── EmbeddingModelMismatch  no endpoint serves the index's embedding model any more: rebuild
    │   └── IndexCatchingUp       the index is being completed in the background
    ├── RebuildRunning            another rebuild is running on the same storage
    ├── IndexCorrupt              a projection's file does not match its manifest
    └── UpstreamError             the chat endpoint gave no usable answer

Each message says what happened, with which value, and what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from domain.model_call import ModelCall

_SHOWN_CHARS = 80


def shown(value: object) -> str:
    """Quote a value for an error message, cut to fit one line."""
    if isinstance(value, str | bytes):
        value = value[:_SHOWN_CHARS]
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"


class OpmError(Exception):
    """Base of every error the product raises on purpose."""


class InvalidInput(OpmError):
    """A value from outside is not acceptable.

    ``field`` is the name the sender used, ``value`` what was sent, ``fix`` what would be accepted.
    """

    def __init__(self, field: str, value: object, fix: str) -> None:
        self.field = field
        self.value = value
        self.fix = fix
        super().__init__(f"{field} = {shown(value)}: {fix}")


class SettingsError(OpmError):
    """A setting is missing or malformed; the message names it in one line."""


class UnknownMemory(OpmError):
    """No memory of this user has this id. Whether it is somebody else's is not revealed."""

    def __init__(self, memory_id: str) -> None:
        super().__init__(f"memory_id = {shown(memory_id)}: no memory of this user has this id, see GET /v1/memories")


class UnknownModel(OpmError):
    """No model has the name that a request gives."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model = {shown(model)}: there is no such model, see GET /v1/models")


class UnknownResponse(OpmError):
    """No response that is kept has this id. Whether it is somebody else's is not revealed."""

    def __init__(self, field: str, response_id: str) -> None:
        self.field = field
        super().__init__(f"{field} = {shown(response_id)}: no response that is kept has this id")


class LedgerError(OpmError):
    """The ledger could not do what was asked."""


class LedgerSchemaError(LedgerError):
    """The ledger's tables are not those of this version."""


class LedgerLocked(LedgerError):
    """Another process is the only writer that this SQLite can safely have."""


class LedgerWriteFailed(LedgerError):
    """A commit failed. Nothing of it was recorded, so the caller may try again."""


class LedgerReadFailed(LedgerError):
    """The ledger's file could not be read."""


class LedgerOverloaded(LedgerError):
    """The queue in front of the writer is full."""


class VersionConflict(LedgerError):
    """The conversation is at another version than the caller expected."""


class MemoryErased(LedgerError):
    """A memory that an append builds on has been erased meanwhile. Nothing was recorded."""


class Unrecordable(LedgerError):
    """An event that no reader of the ledger would give back as it was given. Nothing was recorded."""


class UnknownEvent(LedgerError):
    """This code does not know an event's type or schema version: upgrade the code."""


class EventDamaged(UnknownEvent):
    """The payload of an event does not have the shape of its type: it was changed, or other code wrote it."""


class EmbeddingError(OpmError):
    """The embedding endpoint gave no usable vectors.

    ``reason`` is what the endpoint said. It may quote what was sent, so it stands in ``told``, for people and events,
    and not in the message, which logs print.
    """

    kind = "embedding_failed"

    def __init__(self, message: str, *, reason: str = "") -> None:
        self.reason = reason
        super().__init__(message)

    @property
    def told(self) -> str:
        return f"{self}: {self.reason}" if self.reason else str(self)


class EmbeddingUnavailable(EmbeddingError):
    """The endpoint is unreachable, too slow, rate-limited or failing; a later call may work.

    ``retry_after_s`` is what the endpoint asked for, if it did.
    """

    kind = "embedding_unavailable"

    def __init__(self, message: str, *, reason: str = "", retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message, reason=reason)


class EmbeddingRejected(EmbeddingError):
    """The endpoint refused these texts (too long, say); the same call will be refused again."""

    kind = "embedding_rejected"


class EmbeddingTooLong(EmbeddingRejected):
    """The endpoint refused these texts, as far as can be told because one of them is too long."""


class EmbeddingMisfit(EmbeddingError):
    """The endpoint's vectors have another length than those of the index, or are not numbers."""

    kind = "embedding_misfit"


class RebuildRunning(OpmError):
    """Another rebuild is running on the same storage. Two would work twice and delete each other's files."""


class IndexCorrupt(OpmError):
    """A projection's file does not match its manifest; it is rebuilt from the ledger."""


class IndexUnavailable(OpmError):
    """Memory cannot be searched now."""

    kind = "index_unavailable"

    @property
    def told(self) -> str:
        return str(self)


class EmbeddingModelMismatch(IndexUnavailable):
    """The index was built with another embedding model than the configured one, which no endpoint serves any more."""

    kind = "embedding_model_mismatch"


class IndexCatchingUp(IndexUnavailable):
    """The index lacks too much to complete it while a turn waits; that is done in the background."""

    kind = "index_catching_up"


class UpstreamError(OpmError):
    """The chat endpoint gave no usable answer.

    ``status`` is the HTTP status for our client (400, 429, 502 or 504), ``code`` a short name for programs,
    ``retry_after_s`` what the endpoint asked for, if it did.
    """

    def __init__(self, message: str, *, status: int, code: str, retry_after_s: float | None = None) -> None:
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.call: ModelCall | None = None
        """What the endpoint was asked, where it was asked at all."""
        super().__init__(message)

    def of(self, call: ModelCall) -> Self:
        """Return this error as the outcome of a call."""
        self.call = call
        return self


class ContextExceeded(UpstreamError):
    """The chat model takes fewer tokens than the prompt has; ``limit_tokens`` is its maximum, None if not told."""

    def __init__(self, message: str, *, limit_tokens: int | None) -> None:
        super().__init__(message, status=400, code="context_length_exceeded")
        self.limit_tokens = limit_tokens

    @classmethod
    def of_question(cls, tokens: int, limit_tokens: int) -> ContextExceeded:
        """Return the error for a question that alone is too long."""
        return cls(
            f"the question takes about {tokens} tokens, and the chat model at most {limit_tokens} in all: shorten it, "
            "or set LLM_CONTEXT_TOKENS if the model takes more",
            limit_tokens=limit_tokens,
        )

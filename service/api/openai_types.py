"""A chat completion request: checked field by field and turned into the request of a turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from domain.errors import InvalidInput, Unrecordable
from domain.events import JsonObject, recorded_text
from domain.identity import DEFAULT_CONVERSATION, StreamId, check_id
from domain.origin import Origin
from service.knobs import Knobs, Whole
from service.turn_recorder import TurnRequest


def _numeric(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("give a number")  # noqa: TRY004 - pydantic turns a ValueError into a named error
    return value


Number = Annotated[float, BeforeValidator(_numeric)]

_UNSUPPORTED = {
    "tools": "tools are not supported: leave them out",
    "tool_choice": "tools are not supported: leave it out",
    "functions": "functions are not supported: leave them out",
    "function_call": "functions are not supported: leave it out",
    "logprobs": "log probabilities are not supported: leave it out",
    "top_logprobs": "log probabilities are not supported: leave it out",
    "audio": "audio is not supported: leave it out",
}
_HARMLESS: tuple[object, ...] = (None, False, [], {}, "none", "auto")
"""What clients send where they do not use a feature."""
_PASSED_ON = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "response_format",
    "reasoning_effort",
    "verbosity",
    # vLLM's own
    "top_k",
    "min_p",
    "repetition_penalty",
    "chat_template_kwargs",
)


class TextPart(BaseModel):
    """A part of a message. Only text is accepted; the error names any other type."""

    type: str
    text: str = ""


class ChatMessage(BaseModel):
    """A message of the request. Only system texts and the last user message are used."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None


class StreamOptions(BaseModel):
    """What a stream holds besides the answer."""

    include_usage: bool = False


class ChatCompletionRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``. Unknown fields are kept, to be passed on or refused by name."""

    model_config = ConfigDict(extra="allow")

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Number | None = Field(default=None, ge=0, le=2)
    top_p: Number | None = Field(default=None, ge=0, le=1)
    max_tokens: Whole | None = Field(default=None, ge=1)
    max_completion_tokens: Whole | None = Field(default=None, ge=1)
    n: Whole | None = Field(default=None, ge=1)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def as_turn(self, user_id: str, knobs: Knobs, kept: Callable[[StreamId], bool], origin: Origin) -> TurnRequest:
        """Return the request of a turn; raise :class:`InvalidInput` for what the service cannot do.

        ``kept`` tells whether a conversation stands in the ledger, see :func:`check_id`.
        """
        given = self.model_extra or {}
        for field, fix in _UNSUPPORTED.items():
            if given.get(field) not in _HARMLESS:
                raise InvalidInput(field, given[field], fix)
        if self.n is not None and self.n > 1:
            raise InvalidInput("n", self.n, "one answer per request: send 1 or leave it out")
        values = {field: getattr(self, field, None) for field in _PASSED_ON}
        parameters: JsonObject = {field: value for field, value in values.items() if value is not None}
        for field, value in parameters.items():
            _check_recordable(field, value)
        return TurnRequest(
            stream=StreamId(user_id, self._conversation(lambda name: kept(StreamId(user_id, name)))),
            question=self._question(),
            client_system=self._system(),
            knobs=knobs,
            parameters=parameters,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            origin=origin,
        )

    def _conversation(self, kept: Callable[[str], bool]) -> str:
        metadata = self.metadata or {}
        for name in ("conversation_id", "conv_id"):
            if metadata.get(name) is not None:
                return check_id(f"metadata.{name}", metadata[name], kept)
        return DEFAULT_CONVERSATION

    def _question(self) -> str:
        at = len(self.messages) - 1
        last = self.messages[at]
        if last.role != "user":
            raise InvalidInput(f"messages.{at}.role", last.role, "the last message must be the user's")
        text = _text(last, f"messages.{at}.content")
        if not text.strip():
            raise InvalidInput(f"messages.{at}.content", text, "say something")
        return text

    def _system(self) -> str:
        texts = [
            _text(message, f"messages.{at}.content")
            for at, message in enumerate(self.messages)
            if message.role in {"system", "developer"}
        ]
        return "\n\n".join(text for text in texts if text.strip())


def _check_recordable(field: str, value: object) -> None:
    """Refuse what could not be recorded with the answer, by the encoder that will record it, where it nests deepest."""
    try:
        recorded_text({"call": {"request": {field: value}}})
    except Unrecordable:
        fix = "send finite numbers and valid Unicode, nested less deeply"
        raise InvalidInput(field, value, fix) from None


def _text(message: ChatMessage, field: str) -> str:
    content = message.content
    if isinstance(content, list):
        for part in content:
            if part.type != "text":
                raise InvalidInput(f"{field}.type", part.type, "only text is supported")
        text = "\n".join(part.text for part in content)
    else:
        text = content or ""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(field, "text with half of a surrogate pair", "send valid Unicode") from None
    return text

"""A chat completion request: checked field by field and turned into the request of a turn."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from domain.asked_text import asked_text
from domain.chain import canonical, digest
from domain.client_messages import SYSTEM_ROLES, Message, text_of, without_bytes
from domain.errors import InvalidInput, Unrecordable
from domain.events import JsonObject, recorded_text
from domain.identity import StreamId, check_id
from domain.origin import Origin
from service.knobs import Knobs, Whole
from service.memory_mode import memory_mode
from service.side_tasks import side_task
from service.turn_recorder import MemoryMode, TurnRequest


def _numeric(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("give a number")  # noqa: TRY004 - pydantic turns a ValueError into a named error
    return value


def _as_text(value: Any) -> Any:
    """Return a number as the id that it is written as."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _limit(value: Any) -> Any:
    # Several clients say so that they want no limit.
    return None if value == -1 and not isinstance(value, bool) else value


Number = Annotated[float, BeforeValidator(_numeric)]

Named = Annotated[str | None, BeforeValidator(lambda value: _as_text(value) if value != "" else None)]
Limit = Annotated[Annotated[Whole, Field(ge=1)] | None, BeforeValidator(_limit)]

_KEPT_BACK = frozenset({"messages", "model", "user", "metadata", "store", "stream", "stream_options", "conversation"})
"""The fields that the chat model does not get as they are; every other one is its business."""
_OWN_METADATA = frozenset({"conversation_id", "conv_id", "session_id", "memory", "task", *Knobs.model_fields})
_CONVERSATION_HEADERS = (
    "x-conversation-id",
    "x-openwebui-chat-id",
    "x-librechat-conversation-id",
    "x-hermes-session-id",
    "x-litellm-session-id",
    "x-session-id",
)
_SEND_HISTORY = frozenset({"x-openwebui-chat-id", "x-librechat-conversation-id"})
"""The headers of clients that send their whole history with each message."""
_SESSION_HEADER = re.compile(r"x-.+-session-id", re.ASCII)
_RETRIES = "x-stainless-retry-count"
"""How often OpenAI's own libraries have asked before."""
_Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class ChatMessage(BaseModel):
    """A message of the request. What it holds beside its role and its content is passed on as it is."""

    model_config = ConfigDict(extra="allow")

    role: _Role
    content: str | list[str | dict[str, Any]] | None = None

    def as_sent(self) -> Message:
        """Return the message as the client sent it, without parts that say nothing; plain texts alone are one text.

        Not every endpoint takes a list.
        """
        message: Message = self.model_dump(exclude_unset=True)
        if isinstance(self.content, list):
            parts = [part for part in self.content if not _is_null_text(part)]
            plain = all(isinstance(part, str) or _is_plain_text(part) for part in parts)
            message["content"] = text_of({"content": parts}) if plain else parts
        return message


def _is_plain_text(part: dict[str, Any]) -> bool:
    return part.keys() == {"type", "text"} and part["type"] == "text"


def _is_null_text(part: str | dict[str, Any]) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and part.get("text") is None


class StreamOptions(BaseModel):
    """What a stream holds besides the answer."""

    model_config = ConfigDict(extra="allow")

    include_usage: bool = False


class ChatCompletionRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``. Unknown fields are kept, to be passed on or refused by name."""

    model_config = ConfigDict(extra="allow")

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    user: Named = None
    metadata: dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Number | None = Field(default=None, ge=0, le=2)
    top_p: Number | None = Field(default=None, ge=0, le=1)
    max_tokens: Limit | None = None
    max_completion_tokens: Limit | None = None
    n: Whole | None = Field(default=None, ge=1, le=128)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def as_turn(
        self,
        user_id: str,
        knobs: Knobs,
        kept: Callable[[StreamId], bool],
        origin: Origin,
        headers: Mapping[str, str] = MappingProxyType({}),
        user_as_conversation: str | None = None,
    ) -> TurnRequest:
        """Return the request of a turn; raise :class:`InvalidInput` for what cannot be recorded or understood.

        ``user_as_conversation`` is the field ``user`` of a client whose key says that it names a conversation by it.
        ``kept`` tells whether a conversation stands in the ledger, see :func:`check_id`.
        """
        messages = [message.as_sent() for message in self.messages]
        for at, message in enumerate(messages):
            check_recordable(f"messages.{at}.content", without_bytes([message])[0].get("content"))
            check_recordable(f"messages.{at}", without_bytes([message]))
        parameters = self._parameters()
        for field, value in parameters.items():
            check_recordable(field, value)
        at = max((at for at, each in enumerate(messages) if each["role"] == "user"), default=len(messages) - 1)
        question = asked_text(text_of(messages[at]))
        if not question.strip() and at == len(messages) - 1:
            raise InvalidInput(f"messages.{at}.content", question, "say something")
        # Many chat templates take a system message at the beginning only.
        leading = [text_of(message) for message in messages[:at] if message["role"] in SYSTEM_ROLES]
        history = tuple(message for message in messages[:at] if message["role"] not in SYSTEM_ROLES)
        return TurnRequest(
            user_id=user_id,
            conversation_id=self._conversation(
                headers, user_as_conversation, lambda name: kept(StreamId(user_id, name))
            ),
            question=question,
            client_system="\n\n".join(text for text in leading if text.strip()),
            asked=tuple(messages[at:]),
            knobs=knobs,
            parameters=parameters,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            history=history or None,
            messages=tuple(messages),
            memory=self._memory(messages, parameters, headers) if messages[at]["role"] == "user" else "off",
            origin=origin,
            request_key=self._request_key(user_id, headers),
            resends=not _SEND_HISTORY.isdisjoint(headers),
            is_retry="idempotency-key" in headers or headers.get(_RETRIES, "0") != "0",
        )

    def _memory(self, messages: list[Message], parameters: JsonObject, headers: Mapping[str, str]) -> MemoryMode:
        chats = [
            _as_text(value) for _, value in self._conversations_named(headers) if value is not None and value != ""
        ]
        task = side_task(
            messages,
            model=self.model,
            metadata=self.metadata,
            headers=headers,
            parameters=parameters,
            streamed=bool(self.stream),
            in_chat=bool(chats),
        )
        return memory_mode(
            metadata=self.metadata,
            headers=headers,
            store=(self.model_extra or {}).get("store"),
            chat_ids=[chat for chat in chats if isinstance(chat, str)],
            is_side_task=task is not None,
        )

    def _request_key(self, user_id: str, headers: Mapping[str, str]) -> str | None:
        """Return what a request and its repeats have in common, None where the client does not count its tries."""
        named = headers.get("idempotency-key", "")
        if not named and _RETRIES not in headers:
            return None
        body = self.model_dump(mode="json", exclude_unset=True, exclude={"stream", "stream_options"})
        return digest(canonical([user_id, named, body]))

    def _parameters(self) -> JsonObject:
        """Return what the chat model gets as it was sent."""
        given = {name: value for name, value in self.model_dump(exclude_unset=True).items() if value is not None}
        parameters: JsonObject = {name: value for name, value in given.items() if name not in _KEPT_BACK}
        options = self.stream_options.model_extra if self.stream_options is not None else None
        if options:
            parameters["stream_options"] = {**options, "include_usage": True}
        metadata = {name: value for name, value in (self.metadata or {}).items() if name not in _OWN_METADATA}
        if metadata:
            parameters["metadata"] = metadata
        return parameters

    def _conversation(self, headers: Mapping[str, str], user: str | None, kept: Callable[[str], bool]) -> str | None:
        """Return the conversation that the request names, in its body first; None where it names none."""
        for field, value in (*self._conversations_named(headers), ("user", user)):
            if value is not None and value != "":
                return check_id(field, _as_text(value), kept)
        return None

    def _conversations_named(self, headers: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        metadata, given = self.metadata or {}, self.model_extra or {}
        for name in ("conversation_id", "conv_id", "session_id"):
            yield f"metadata.{name}", metadata.get(name)
        conversation = given.get("conversation")
        yield "conversation", conversation.get("id") if isinstance(conversation, dict) else conversation
        for name in (*_CONVERSATION_HEADERS, *filter(_SESSION_HEADER.fullmatch, headers)):
            yield name, headers.get(name)
        yield "prompt_cache_key", given.get("prompt_cache_key")


def check_recordable(field: str, value: object) -> None:
    """Refuse what could not be recorded with the answer, by the encoder that will record it, where it nests deepest."""
    try:
        recorded_text({"call": {"request": {field: value}}})
    except Unrecordable as error:
        shown = "text with half of a surrogate pair" if "surrogate" in str(error) else value
        fix = "send finite numbers and valid Unicode, nested less deeply"
        raise InvalidInput(field, shown, fix) from None

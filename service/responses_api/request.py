"""A request to the Responses API, as the body of a chat completion. Pure.

What a response repeats of its request is recorded with the answer, see :attr:`Translated.repeated`: with the answer
itself that makes the whole response again, years later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from domain.client_messages import Message
from domain.errors import InvalidInput
from domain.events import JsonObject
from service.api.openai_types import ChatCompletionRequest, check_recordable
from service.responses_api.messages import Referred, Sent, messages_of
from service.responses_api.tools import Tools, tools_of

_REPEATED = (
    "previous_response_id",
    "conversation",
    "metadata",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "temperature",
    "top_p",
    "max_output_tokens",
    "max_tool_calls",
    "top_logprobs",
    "truncation",
    "user",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
)
"""The fields of a response that say what was asked for."""
_IDS = ("previous_response_id", "conversation", "user")
_NOT_SENT_ON = frozenset(
    {
        "input",
        "instructions",
        "previous_response_id",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "text",
        "reasoning",
        "max_output_tokens",
        "max_tool_calls",
        "top_logprobs",
        "truncation",
        "include",
        "background",
        "prompt",
        "stream_options",
        "client_metadata",
        "context_management",
    }
)
"""What a chat completion has no field for, or another one; every other field is sent on as it is."""
_NAMES = {
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}
"""What a field of the chat completion is called in the request."""


class ResponsesRequest(BaseModel):
    """The body of ``POST /v1/responses``. Fields that are not named here are sent on as they are."""

    model_config = ConfigDict(extra="allow")

    input: str | list[dict[str, Any]] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[dict[str, Any]] | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    include: list[str] | None = None
    stream: bool | None = None
    user: Any = None
    safety_identifier: Any = None

    @property
    def items(self) -> list[JsonObject]:
        """The input as items."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return list(self.input or ())

    @property
    def referred_ids(self) -> list[str]:
        """The ids of items of earlier responses that items of the input stand for."""
        return [str(item.get("id")) for item in self.items if item.get("type") == "item_reference"]

    @property
    def given(self) -> JsonObject:
        """The fields as the client sent them; null says nothing, and neither does an empty id."""
        given = self.model_dump(exclude_unset=True)
        return {name: value for name, value in given.items() if value is not None and (value != "" or name not in _IDS)}


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a request goes on: the messages of an earlier response, and of those before it.

    ``conversation_id`` is None where the messages alone tell which conversation it is. ``turn_id`` is the id of the
    turn that the earlier response is, None where it is none.
    """

    messages: tuple[Message, ...]
    conversation_id: str | None = None
    turn_id: str | None = None


@dataclass(frozen=True, slots=True)
class Translated:
    """A chat completion's body, the fields that its response repeats, and the tools."""

    body: ChatCompletionRequest
    repeated: JsonObject
    tools: Tools
    fields: Sequence[str] = field(default_factory=list)
    """For each message the field that it comes from."""


def named_as_sent(error: InvalidInput, fields: Sequence[str]) -> InvalidInput:
    """Return an error with the client's own name of the field; ``fields`` are as :attr:`Translated.fields`."""
    first, _, rest = error.field.partition(".")
    if first == "messages":
        at, _, rest = rest.partition(".")
        first = fields[int(at)] if at.isdecimal() and int(at) < len(fields) else "input"
    return InvalidInput(".".join(filter(None, (_NAMES.get(first, first), rest))), error.value, error.fix)


def translated(request: ResponsesRequest, earlier: Earlier | None, referred: Referred) -> Translated:
    """Return a request as the body of a chat completion.

    ``earlier`` is what ``previous_response_id`` stands for, ``referred`` gives the items that others refer to. Raises
    :class:`InvalidInput` for what cannot be had.
    """
    given = request.given
    _check(given)
    before = [Sent(message, "previous_response_id") for message in earlier.messages] if earlier is not None else []
    called = [call["id"] for sent in before for call in sent.message.get("tool_calls") or ()]
    said = messages_of(request.items, referred, called)
    if not said:
        raise InvalidInput("input", request.input, "say something")
    own = [Sent({"role": "system", "content": request.instructions}, "instructions")] if request.instructions else []
    sent = [*own, *before, *said]
    tools = tools_of(request.tools, given.get("tool_choice"), given.get("parallel_tool_calls"))
    fields = {
        **{name: value for name, value in given.items() if name not in _NOT_SENT_ON},
        **tools.body,
        **_text(request.text or {}),
        **_limits(given),
        "messages": [each.message for each in sent],
    }
    if earlier is not None and earlier.conversation_id is not None:
        fields["conversation"] = earlier.conversation_id
    repeated: JsonObject = {name: given[name] for name in _REPEATED if name in given}
    if tools.custom:
        repeated["custom_tools"] = list(tools.custom)
    if request.instructions and request.instructions.strip():
        # The text itself is recorded with what the client's system messages say, and begins it.
        repeated["instructions_chars"] = len(request.instructions)
    for name, value in repeated.items():
        check_recordable(name, value)
    names = [each.field for each in sent]
    try:
        return Translated(ChatCompletionRequest.model_validate(fields), repeated, tools, names)
    except ValidationError as error:
        first = error.errors()[0]
        wrong = ".".join(map(str, first["loc"]))
        fix = str(first["msg"]).removeprefix("Value error, ")
        raise named_as_sent(InvalidInput(wrong, first["input"], fix), names) from None


def _check(given: JsonObject) -> None:
    if given.get("background"):
        raise InvalidInput("background", given["background"], "answers come at once here: leave it out")
    if "prompt" in given:
        raise InvalidInput("prompt", given["prompt"], "no prompts are kept here: send instructions and input")
    if "conversation" in given and "previous_response_id" in given:
        fix = "a response stands in a conversation already: leave one of the two out"
        raise InvalidInput("previous_response_id", given["previous_response_id"], fix)


def _text(text: JsonObject) -> JsonObject:
    """Return how the answer is to be written."""
    fields: JsonObject = {}
    if text.get("verbosity") is not None:
        fields["verbosity"] = text["verbosity"]
    wanted = text.get("format")
    if wanted is None:
        return fields
    kind = wanted.get("type") if isinstance(wanted, dict) else wanted
    if kind == "json_schema":
        schema = {name: value for name, value in wanted.items() if name != "type" and value is not None}
        # Some clients send it as in a chat completion.
        schema = schema["json_schema"] if isinstance(schema.get("json_schema"), dict) else schema
        if not isinstance(schema.get("schema"), dict):
            raise InvalidInput("text.format.schema", schema.get("schema"), "send a JSON schema")
        return {**fields, "response_format": {"type": "json_schema", "json_schema": {"name": "answer", **schema}}}
    if kind == "json_object":
        return {**fields, "response_format": {"type": "json_object"}}
    if kind == "text":
        return fields
    raise InvalidInput("text.format.type", kind, "send text, json_object or json_schema")


def _limits(given: JsonObject) -> JsonObject:
    fields: JsonObject = {}
    if "max_output_tokens" in given:
        fields["max_tokens"] = given["max_output_tokens"]
    effort = (given.get("reasoning") or {}).get("effort")
    if effort is not None:
        fields["reasoning_effort"] = effort
    if "message.output_text.logprobs" in given.get("include", ()) or given.get("top_logprobs"):
        fields["logprobs"] = True
        fields |= {"top_logprobs": given["top_logprobs"]} if "top_logprobs" in given else {}
    return fields

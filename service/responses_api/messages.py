"""The items of the Responses API as messages of a chat completion, and back. Pure.

An item is a message, a call of a tool, the output of a tool, a reasoning, or a reference to an item of an earlier
response. Calls, and the text beside them, are one message of the assistant, and each output is a message of the tool.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from domain.client_messages import Message, text_of
from domain.errors import InvalidInput
from domain.events import JsonObject
from service.responses_api.events import call_item, output_message, output_text
from service.responses_api.tools import custom_arguments

_ROLES = ("user", "assistant", "system", "developer")
_TEXTS = ("input_text", "output_text", "text", "summary_text")
_NOT_SENT_ON = frozenset(
    {
        # What the model thought is shown and never kept, and a chat completion has no place for it.
        "reasoning",
        # What OpenAI's own tools did: the answer that came of it follows.
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_list_tools",
    }
)

Referred = Callable[[str], Sequence[JsonObject] | None]
"""Returns the items that an id stands for, None where it stands for none."""


class Sent(NamedTuple):
    """A message, and the field of the request that it comes from."""

    message: Message
    field: str


def messages_of(items: Iterable[JsonObject], referred: Referred, known_calls: Iterable[str] = ()) -> list[Sent]:
    """Return the messages that items make; ``known_calls`` are ids of calls that were made before them.

    Raises :class:`InvalidInput` for an item that cannot be sent on.
    """
    made: list[Sent] = []
    calls = set(known_calls)
    for at, item in enumerate(items):
        field = f"input.{at}"
        meant: Sequence[JsonObject] = [item]
        if item.get("type") == "item_reference":
            found = referred(str(item.get("id")))
            if found is None:
                raise InvalidInput(f"{field}.id", item.get("id"), "no response that is kept has this item: send it")
            meant = found
        for one in meant:
            _add(made, one, field, calls)
    return made


def items_of(messages: Sequence[Message], key: str, custom: Sequence[str] = ()) -> list[JsonObject]:
    """Return messages as the items of a list; ``key`` makes their ids, ``custom`` names the custom tools."""
    items: list[JsonObject] = []
    called: dict[str, str] = {}

    def new_id(prefix: str) -> str:
        return f"{prefix}_{key}_in{len(items)}"

    for message in messages:
        match message.get("role"):
            case "tool":
                call_id = str(message.get("tool_call_id") or "")
                kind = "custom_tool_call_output" if called.get(call_id) in custom else "function_call_output"
                output = {"call_id": call_id, "output": text_of(message)}
                items.append({"id": new_id("fco"), "type": kind, "status": "completed", **output})
            case "assistant":
                if text := text_of(message):
                    items.append(output_message(new_id("msg"), [output_text(text)]))
                for call in message.get("tool_calls") or ():
                    name, call_id = call["function"]["name"], str(call.get("id") or "")
                    called[call_id] = name
                    prefix = "ctc" if name in custom else "fc"
                    arguments = call["function"]["arguments"]
                    items.append(call_item(new_id(prefix), call_id, name, arguments, custom=name in custom))
            case role:
                content = [_input_part(part) for part in _parts(message.get("content"))]
                said = {"type": "message", "role": role, "status": "completed", "content": content}
                items.append({"id": new_id("msg"), **said})
    return items


def _add(made: list[Sent], item: JsonObject, field: str, calls: set[str]) -> None:
    kind = item.get("type") or ("message" if "role" in item else None)
    match kind:
        case "message":
            _add_message(made, item, field)
        case "function_call" | "custom_tool_call":
            call = _call(item, field)
            calls.add(call["id"])
            _add_call(made, call, field)
        case "function_call_output" | "custom_tool_call_output":
            call_id = item.get("call_id")
            if not isinstance(call_id, str) or call_id not in calls:
                fix = "no call with this id comes before: send it, or name its response in previous_response_id"
                raise InvalidInput(f"{field}.call_id", call_id, fix)
            content = _output(item.get("output"), f"{field}.output")
            made.append(Sent({"role": "tool", "tool_call_id": call_id, "content": content}, field))
        case str() if kind in _NOT_SENT_ON:
            return
        case _:
            fix = "this item cannot be had here: send messages, calls of functions and their outputs"
            raise InvalidInput(f"{field}.type", kind, fix)


def _add_message(made: list[Sent], item: JsonObject, field: str) -> None:
    role = item.get("role")
    if role not in _ROLES:
        raise InvalidInput(f"{field}.role", role, f"send one of {', '.join(_ROLES)}")
    content = item.get("content")
    if not isinstance(content, str | list | None):
        raise InvalidInput(f"{field}.content", content, "send a text or a list of parts")
    if isinstance(content, list):
        content = [_part(part, f"{field}.content.{at}") for at, part in enumerate(content)]
    before = made[-1].message if made else {}
    if role == "assistant" and before.get("role") == "assistant":
        # Several items may be one answer. Chat templates want a person's message between two, and the outputs of tools
        # directly after their calls.
        text = "\n".join(filter(None, (text_of(before), text_of({"content": content}))))
        made[-1] = Sent({**before, "content": text or None}, made[-1].field)
        return
    made.append(Sent({"role": role, "content": content}, field))


def _add_call(made: list[Sent], call: JsonObject, field: str) -> None:
    before = made[-1].message if made else {}
    if before.get("role") == "assistant":
        made[-1] = Sent({**before, "tool_calls": [*before.get("tool_calls", ()), call]}, made[-1].field)
    else:
        made.append(Sent({"role": "assistant", "content": None, "tool_calls": [call]}, field))


def _call(item: JsonObject, field: str) -> JsonObject:
    named: dict[str, str] = {}
    for name in ("call_id", "name"):
        value = item.get(name)
        if not isinstance(value, str) or not value:
            raise InvalidInput(f"{field}.{name}", value, "send the one of the call")
        named[name] = value
    given = "input" if item.get("type") == "custom_tool_call" else "arguments"
    said = item.get(given)
    if not isinstance(said, str):
        raise InvalidInput(f"{field}.{given}", said, "send the text of the call")
    arguments = custom_arguments(said) if given == "input" else said
    return {"id": named["call_id"], "type": "function", "function": {"name": named["name"], "arguments": arguments}}


def _output(output: Any, field: str) -> str | list[JsonObject]:
    if isinstance(output, str):
        return output
    if isinstance(output, list):
        return [_part(part, f"{field}.{at}") for at, part in enumerate(output)]
    # The clients of some frameworks send what the function returned.
    return json.dumps(output, ensure_ascii=False)


def _part(part: Any, field: str) -> JsonObject:
    """Return a part of a message as a chat completion has it."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXTS:
        return {"type": "text", "text": part.get("text")}
    if kind == "input_image":
        return {"type": "image_url", "image_url": _image(part, field)}
    if kind == "input_file":
        return {"type": "file", "file": _file(part, field)}
    if kind in ("image_url", "input_audio", "file", "refusal", "video_url", "audio_url"):
        return dict(part)  # as in a chat completion
    raise InvalidInput(f"{field}.type", kind, "send input_text, input_image, input_file or input_audio")


def _image(part: Mapping[str, Any], field: str) -> JsonObject:
    url = part.get("image_url")
    if not isinstance(url, str):
        given = "file_id" if part.get("file_id") else "image_url"
        raise InvalidInput(f"{field}.{given}", part.get(given), "send the image as a URL or a data: URL in image_url")
    return {"url": url, **({"detail": part["detail"]} if part.get("detail") else {})}


def _file(part: Mapping[str, Any], field: str) -> JsonObject:
    data = part.get("file_data")
    if not isinstance(data, str):
        given = next((name for name in ("file_id", "file_url") if part.get(name)), "file_data")
        raise InvalidInput(f"{field}.{given}", part.get(given), "send the file as a data: URL in file_data")
    return {"file_data": data, **({"filename": part["filename"]} if part.get("filename") else {})}


def _parts(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content or ""]


def _input_part(part: Any) -> JsonObject:
    """Return a part of a message as a response lists it. What is not kept of it is said in its place."""
    if isinstance(part, dict) and part.get("type") == "image_url" and isinstance(part.get("image_url"), dict):
        url, detail = part["image_url"].get("url"), part["image_url"].get("detail") or "auto"
        if isinstance(url, str) and url.startswith(("http://", "https://")):
            return {"type": "input_image", "image_url": url, "detail": detail}
    return {"type": "input_text", "text": text_of({"content": [part]})}

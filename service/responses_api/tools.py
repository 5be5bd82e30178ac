"""The tools of a request to the Responses API, as a chat completion has them, and back. Pure.

A custom tool takes free text. A chat completion knows functions only, so such a tool becomes a function with one
argument, and its calls become calls of a custom tool again.

Tools that OpenAI runs itself (a web search, a code interpreter) cannot be had here. A request for one is refused by the
name of its field: whoever asks for a web search would take an answer without one for an answer with it. But Codex
offers ``web_search`` with every request beside its own tools, and nobody asked for it. So beside tools that can be had
it is left out, and the answer says so.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domain.errors import InvalidInput
from domain.events import JsonObject

_OFFERED_BY_DEFAULT = frozenset({"web_search", "web_search_preview"})
"""What is left out beside other tools; OpenAI names versions of them by a date after the name."""
_INPUT = "input"
_FUNCTION_FIELDS = ("name", "description", "parameters", "strict")
_MODES = ("none", "auto", "required")


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a request.

    ``body`` are the fields of a chat completion. ``custom`` are the names of tools that take free text, ``left_out``
    the types of those that cannot be had.
    """

    body: JsonObject
    custom: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def tools_of(tools: Sequence[JsonObject] | None, choice: Any, parallel: Any) -> Tools:
    """Return the fields ``tools``, ``tool_choice`` and ``parallel_tool_calls`` of a chat completion.

    Raises :class:`InvalidInput` for what cannot be had.
    """
    given = list(tools or ())
    can_be_had = [_is_callable(tool) for tool in given]
    functions: list[JsonObject] = []
    custom: list[str] = []
    left_out: list[str] = []
    for at, tool in enumerate(given):
        field = f"tools.{at}"
        if can_be_had[at]:
            functions.append(_as_function(tool, field))
            if tool["type"] == "custom":
                custom.append(_name(functions[-1]))
        elif any(can_be_had) and _is_offered_by_default(tool):
            left_out.append(str(tool["type"]))
        else:
            raise InvalidInput(
                f"{field}.type", tool.get("type"), "only OpenAI has this tool: leave it out, or send a function"
            )
    chosen, allowed = _choice(choice)
    if allowed is not None:
        functions = [function for function in functions if _name(function) in allowed]
    if not functions:
        # An endpoint refuses to choose among no tools.
        return Tools({}, left_out=tuple(left_out))
    body: JsonObject = {"tools": functions}
    if chosen is not None:
        body["tool_choice"] = chosen
    if parallel is not None:
        body["parallel_tool_calls"] = parallel
    return Tools(body, tuple(custom), tuple(left_out))


def as_offered(functions: Sequence[JsonObject], custom: Sequence[str]) -> list[JsonObject]:
    """Return tools of a chat completion as a response repeats them."""
    offered: list[JsonObject] = []
    for tool in functions:
        function = tool.get("function") or {}
        if function.get("name") in custom:
            described = {name: function[name] for name in ("name", "description") if name in function}
            offered.append({"type": "custom", **described})
        else:
            offered.append({"type": "function", **{name: function.get(name) for name in _FUNCTION_FIELDS}})
    return offered


def custom_arguments(text: str) -> str:
    """Return free text as the arguments of the function that stands for a custom tool."""
    return json.dumps({_INPUT: text}, ensure_ascii=False)


def custom_input(arguments: str) -> str:
    """Return the free text that a model gave to a custom tool; all that it said where that is something else."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    text = given.get(_INPUT) if isinstance(given, dict) else None
    return text if isinstance(text, str) else arguments


def _is_callable(tool: JsonObject) -> bool:
    return tool.get("type") in ("function", "custom")


def _is_offered_by_default(tool: JsonObject) -> bool:
    kind = str(tool.get("type"))
    return any(kind == name or kind.startswith(f"{name}_20") for name in _OFFERED_BY_DEFAULT)


def _as_function(tool: JsonObject, field: str) -> JsonObject:
    """Return a tool as a chat completion has it; some clients send it like that."""
    if tool["type"] == "custom":
        return _from_custom(tool, field)
    function = _nested(tool, "function")
    _check_name(function, field)
    given = {name: function[name] for name in _FUNCTION_FIELDS if function.get(name) is not None}
    return {"type": "function", "function": given}


def _from_custom(tool: JsonObject, field: str) -> JsonObject:
    custom = _nested(tool, "custom")
    _check_name(custom, field)
    said = [str(custom["description"])] if custom.get("description") else []
    grammar = custom.get("format")
    if isinstance(grammar, dict) and grammar.get("definition"):
        said.append(f"The input follows this grammar ({grammar.get('syntax', 'lark')}):\n{grammar['definition']}")
    parameters = {
        "type": "object",
        "properties": {_INPUT: {"type": "string", "description": "The input of the tool, as plain text."}},
        "required": [_INPUT],
        "additionalProperties": False,
    }
    described = {"description": "\n\n".join(said)} if said else {}
    return {"type": "function", "function": {"name": custom["name"], **described, "parameters": parameters}}


def _nested(given: JsonObject, kind: Any) -> JsonObject:
    """Return what a chat completion has below a name and a response beside it."""
    nested = given.get(str(kind))
    return nested if isinstance(nested, dict) else given


def _check_name(function: JsonObject, field: str) -> None:
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidInput(f"{field}.name", name, "name the tool")


def _name(function: JsonObject) -> str:
    return str(function["function"]["name"])


def _choice(choice: Any) -> tuple[Any, set[str] | None]:
    """Return which tool is to be used as a chat completion says it, and the names of those that may be."""
    if choice is None or choice in _MODES:
        return choice, None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in ("function", "custom"):
        named = _nested(choice, kind).get("name")
        if not isinstance(named, str):
            raise InvalidInput("tool_choice.name", named, "name the tool")
        return {"type": "function", "function": {"name": named}}, None
    if kind == "allowed_tools":
        given = _nested(choice, kind)
        tools = [tool for tool in given.get("tools") or () if isinstance(tool, dict)]
        return given.get("mode", "auto"), {str(_nested(tool, tool.get("type")).get("name")) for tool in tools}
    if isinstance(choice, dict):
        raise InvalidInput("tool_choice.type", kind, "only OpenAI has this tool: choose a function")
    raise InvalidInput("tool_choice", choice, "send none, auto, required or a function")

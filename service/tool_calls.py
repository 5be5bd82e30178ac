"""Tool calls of an answer, as an OpenAI client reads them, whatever shape an endpoint gives them.

An endpoint of the plain kind sends a call's id and name first and its arguments in pieces, each with the call's index.
Others send whole calls: without index, all with index 0, without id, with the arguments as an object, with the name
and the id again in each piece. :class:`CallReader` makes the first kind of all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from domain.events import JsonObject
from service.answer_fields import TooDeep, merged, passed_on, plain

_OTHER_KIND = "custom"
"""A call that is no function has its name and its input in a field of this name."""
_CALL_FIELDS = ("index", "id", "type", "function", "name", "arguments", "parameters")


@dataclass(slots=True)
class _Call:
    id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class CallReader:
    """Reads the tool calls of one choice, piece by piece."""

    _calls: list[_Call] = field(default_factory=list)
    _at: dict[int, int] = field(default_factory=dict)
    """Which call an endpoint's index stands for."""
    _named: dict[str, int] = field(default_factory=dict)
    """Which call an id stands for."""

    def read(self, given: Any) -> tuple[JsonObject, ...]:
        """Return pieces of calls with their index; the first piece of a call has its id, type and name."""
        return tuple(self._piece(piece) for piece in _objects(given))

    def read_whole(self, given: Any) -> tuple[JsonObject, ...]:
        """Return the calls of a whole message."""
        return tuple(self._piece({**call, "index": at}, no_arguments="{}") for at, call in enumerate(_objects(given)))

    def _piece(self, given: JsonObject, no_arguments: str = "") -> JsonObject:
        function = given["function"] if isinstance(given.get("function"), dict) else given
        index, call_id, name = _index(given), _id(given), _name(function)
        arguments = arguments_text(function.get("arguments", function.get("parameters")), no_arguments)
        at = self._goes_on_with(index, call_id, name)
        begins = at is None
        if at is None:
            at = self._begin(call_id)
        call = self._calls[at]
        if index is not None:
            self._at[index] = at
        piece: JsonObject = {"index": at}
        if begins:
            kind = given.get("type")
            piece |= {"id": call.id, "type": kind if isinstance(kind, str) and kind else "function"}
        more = passed_on(given, _CALL_FIELDS)
        if _OTHER_KIND not in more:
            inner = passed_on(function, _CALL_FIELDS) if function is not given else {}
            # A name that comes again with each piece would be put together with itself.
            named = {"name": name} if begins or (name and name != call.name) else {}
            piece["function"] = {**inner, **named, "arguments": arguments}
            call.name += named.get("name", "")
            call.arguments += [arguments] if arguments else []
        return {**piece, **more}

    def _begin(self, call_id: str | None) -> int:
        """Note a new call, under an id of our own where it has none; return its place."""
        call = _Call(call_id or f"call_{uuid4().hex}")
        self._named[call.id] = len(self._calls)
        self._calls.append(call)
        return self._named[call.id]

    def _goes_on_with(self, index: int | None, call_id: str | None, name: str) -> int | None:
        """Return which call a piece goes on with, None where it begins one."""
        if index is not None and index not in self._at:
            return None
        if call_id in self._named:
            return self._named[call_id]
        at = self._at[index] if index is not None else len(self._calls) - 1
        if at < 0:
            return None
        call = self._calls[at]
        begins = name and (call_id or index is None or (call.arguments and _is_another(name, call)))
        return None if begins else at


def _index(piece: JsonObject) -> int | None:
    index = piece.get("index")
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def _id(piece: JsonObject) -> str | None:
    call_id = piece.get("id")
    return str(call_id) if isinstance(call_id, str | int) and call_id != "" else None


def _name(function: JsonObject) -> str:
    name = function.get("name")
    return name if isinstance(name, str) else ""


def joined_calls(pieces: Iterable[JsonObject]) -> tuple[JsonObject, ...]:
    """Return pieces of calls as one piece of each, by their index."""
    calls: dict[int, list[JsonObject]] = {}
    for piece in pieces:
        calls.setdefault(piece["index"], []).append(piece)
    return tuple(merged(calls[at]) for at in sorted(calls))


def whole_calls(pieces: Iterable[JsonObject]) -> list[JsonObject]:
    """Return the calls that came in pieces, as they stand in a whole answer."""
    return [{name: value for name, value in call.items() if name != "index"} for call in joined_calls(pieces)]


def arguments_text(arguments: Any, none: str = "") -> str:
    """Return a call's arguments as the text that clients expect; ``none`` where there are none."""
    if arguments is None:
        return none
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _objects(given: Any) -> list[JsonObject]:
    try:
        pieces = plain(given if isinstance(given, list) else [given])
    except TooDeep:
        return []
    return [piece for piece in pieces if isinstance(piece, dict)]


def _is_another(name: str, call: _Call) -> bool:
    """Tell whether a name that comes after arguments is that of another call, and not the same one repeated."""
    if name != call.name:
        return True
    if not call.arguments[-1].rstrip().endswith("}"):
        return False
    try:
        json.loads("".join(call.arguments))
    except (ValueError, RecursionError):
        return False
    return True

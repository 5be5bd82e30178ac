"""Fields of an answer that this service does not read: made fit to be sent on, and put together from pieces. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from domain.events import JsonObject
from domain.reasoning import storable

_LEVELS_MAX = 64
"""More than any API nests; deeper values could not be written again."""
_NOTHING: tuple[object, ...] = (None, "", [], {})
"""What endpoints send for a field that says nothing."""
_SAID_WHOLE = {"id", "type", "role", "format", "object"}
"""Texts that never come in pieces, but may come with each of them."""


class TooDeep(ValueError):
    """A value that nests too deeply to be sent on."""


def passed_on(fields: Mapping[str, Any], known: Collection[str] = ()) -> JsonObject:
    """Return the fields that say something and are not ``known``; what could not be written again is left out."""
    found: JsonObject = {}
    for name, value in fields.items():
        if name not in known and value not in _NOTHING:
            try:
                found[storable(name)] = plain(value)
            except TooDeep:
                continue
    return found


def plain(value: Any, levels: int = _LEVELS_MAX) -> Any:
    """Return parsed JSON that can be written as JSON again: no halves of surrogate pairs, no infinite numbers."""
    if not levels:
        raise TooDeep
    match value:
        case str():
            return storable(value)
        case list():
            return [plain(item, levels - 1) for item in value]
        case dict():
            return {storable(name): plain(item, levels - 1) for name, item in value.items()}
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def merged(pieces: Sequence[Any]) -> Any:
    """Return pieces of a value (at least one) as one, as OpenAI's clients do: texts and lists go on, else the newest.

    Entries of lists that carry the same ``index`` are pieces of one entry.
    """
    said = [piece for piece in pieces if piece is not None] or [None]
    if len(said) == 1:
        return said[0]
    if all(isinstance(piece, str) for piece in said):
        return "".join(said)
    if all(isinstance(piece, dict) for piece in said):
        return {name: _field(name, values) for name, values in _by_name(said).items()}
    if all(isinstance(piece, list) for piece in said):
        return [merged(group) for group in _entries(said)]
    return said[-1]


def extended(chunks: Sequence[JsonObject]) -> JsonObject:
    """Return what chunks say about a choice: lists go on, of other values the newest one."""
    return {
        name: list(chain(*values)) if all(isinstance(value, list) for value in values) else values[-1]
        for name, values in _by_name(chunks).items()
    }


def _by_name(objects: Iterable[JsonObject]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for each in objects:
        for name, value in each.items():
            found.setdefault(name, []).append(value)
    return found


def _field(name: str, values: list[Any]) -> Any:
    if name in _SAID_WHOLE:
        return next((value for value in values if isinstance(value, str) and value), values[-1])
    return merged(values)


def _entries(lists: Iterable[list[Any]]) -> list[list[Any]]:
    """Return the pieces of each entry."""
    found: list[list[Any]] = []
    at: dict[int, list[Any]] = {}
    for entry in chain(*lists):
        index = entry.get("index") if isinstance(entry, dict) else None
        if not isinstance(index, int):
            found.append([entry])
        elif index in at:
            at[index].append(entry)
        else:
            at[index] = [entry]
            found.append(at[index])
    return found

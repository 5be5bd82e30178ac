"""Read what a chat endpoint answers, whole or in pieces, in all the shapes that endpoints give it. Pure.

Everything is made recordable here: what an endpoint answers must never keep a turn out of the ledger. What says nothing
is None. What cannot be read raises :class:`Unreadable`, and an error inside an answer of status 200
raises :class:`Reported`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from domain.events import Usage
from domain.model_call import ModelCall
from domain.reasoning import storable
from projections.refusal_reason import reason_of

_REASONING = ("reasoning_content", "reasoning", "thinking")
_NAME_CHARS_MAX = 200
_TOKENS_MAX = 2**53
"""No endpoint has counted more; a larger number is no count, and views could not add it up."""
_FINISH_REASON_CHARS_MAX = 100
_READABLE = (ValueError, RecursionError, LookupError, TypeError, AttributeError)


class Unreadable(ValueError):
    """An answer of an unknown shape."""


class Reported(Exception):
    """An error inside an answer; the message is the endpoint's reason, and may be empty."""


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    finish_reason: str | None
    usage: Usage | None
    reasoning: str = ""
    model: str | None = None
    fingerprint: str | None = None
    call: ModelCall | None = None
    """What was asked for it, where a client asked."""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer as it comes. ``reasoning`` is shown and never stored.

    ``model`` and ``fingerprint`` are what the endpoint says to have answered with.
    """

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    fingerprint: str | None = None


def read_chunk(data: bytes) -> Delta | None:
    """Read one chunk of a streamed answer."""
    try:
        chunk: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise Unreadable from None
    _raise_reported(chunk)
    try:
        usage = _usage(chunk.get("usage"))
        choice = chunk["choices"][0] if chunk.get("choices") else None
        if choice is None:
            return Delta(usage=usage) if usage is not None else None
        # Some endpoints end a stream with the whole message.
        said = choice.get("delta") or {}
        text, thought = _content(said.get("content"))
        return Delta(
            text,
            thought + _reasoning(said),
            _finish_reason(choice),
            usage,
            _named(chunk, "model"),
            _named(chunk, "system_fingerprint"),
        )
    except _READABLE:
        raise Unreadable from None


def read_completion(body: bytes) -> Completion:
    """Read a whole answer."""
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreadable from None
    _raise_reported(answer)
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text, thought = _content(message.get("content"))
        return Completion(
            text,
            _finish_reason(choice),
            _usage(answer.get("usage")),
            thought + _reasoning(message),
            _named(answer, "model"),
            _named(answer, "system_fingerprint"),
        )
    except _READABLE:
        raise Unreadable from None


def joined(deltas: Sequence[Delta]) -> Delta:
    """Return pieces (at least one) that came together as one."""
    if len(deltas) == 1:
        return deltas[0]
    reasons = [delta.finish_reason for delta in deltas if delta.finish_reason is not None]
    usages = [delta.usage for delta in deltas if delta.usage is not None]
    return Delta(
        text="".join([delta.text for delta in deltas]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        finish_reason=reasons[-1] if reasons else None,
        usage=usages[-1] if usages else None,
        model=deltas[0].model,
        fingerprint=deltas[0].fingerprint,
    )


def is_count(value: Any) -> TypeGuard[int]:
    """Tell whether a value can be a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _TOKENS_MAX


def _raise_reported(answer: Any) -> None:
    if not isinstance(answer, dict):
        raise Unreadable
    if answer.get("error"):
        raise Reported(storable(reason_of(answer["error"])))
    if "choices" not in answer and (reason := reason_of(answer)):
        raise Reported(storable(reason))


def _content(content: Any) -> tuple[str, str]:
    """Return the text and the reasoning of a content: a string, null, or a list of parts."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return storable(content), ""
    if not isinstance(content, list):
        raise Unreadable
    text = thought = ""
    for part in content:
        if isinstance(part, str):
            text += part
        elif part.get("type") in {"thinking", "reasoning"}:
            thought += _flat(part.get("thinking") or part.get("text") or part.get("reasoning"))
        else:
            text += _flat(part.get("text"))
    return storable(text), storable(thought)


def _flat(value: Any) -> str:
    """Return a text that may itself be a list of text parts."""
    if isinstance(value, list):
        return "".join(_flat(item.get("text") if isinstance(item, dict) else item) for item in value)
    if isinstance(value, dict):
        return _flat(value.get("value"))
    return value if isinstance(value, str) else ""


def _reasoning(said: Any) -> str:
    found = next((said[name] for name in _REASONING if isinstance(said.get(name), str)), "")
    return storable(found)


def _finish_reason(choice: Any) -> str | None:
    reason = choice.get("finish_reason")
    if not isinstance(reason, str | None):
        raise Unreadable
    # An empty one, as some endpoints send with every chunk, is none.
    return storable(reason[:_FINISH_REASON_CHARS_MAX]) if reason else None


def _named(answer: Any, name: str) -> str | None:
    value = answer.get(name)
    return storable(value[:_NAME_CHARS_MAX]) if isinstance(value, str) and value else None


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    if not is_count(prompt) or not is_count(completion):
        return None
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

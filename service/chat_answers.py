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

import msgspec

from domain.events import JsonObject, Usage
from domain.model_call import ModelCall
from domain.reasoning import storable
from projections.refusal_reason import reason_of
from service.answer_fields import TooDeep, extended, merged, passed_on, plain
from service.tool_calls import CallReader, arguments_text, joined_calls

_REASONING = ("reasoning_content", "reasoning", "thinking")
_NAME_CHARS_MAX = 200
_TOKENS_MAX = 2**53
"""No endpoint has counted more; a larger number is no count, and views could not add it up."""
_FINISH_REASON_CHARS_MAX = 100
_ANSWER_FIELDS = {"id", "object", "created", "model", "choices", "usage", "system_fingerprint", "error"}
_CHOICE_FIELDS = {"index", "delta", "message", "finish_reason", "logprobs"}
_SAID_FIELDS = {"role", "content", "tool_calls", "function_call", "refusal"}
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")
_DETAILS_MAX = 32
_IMPOSSIBLE_LOGPROB = -9999.0
"""What OpenAI and vLLM send for the logarithm of nothing, which JSON cannot write."""
_READABLE = (ValueError, RecursionError, LookupError, TypeError, AttributeError)


class Unreadable(ValueError):
    """An answer of an unknown shape."""


class Reported(Exception):
    """An error inside an answer; the message is the endpoint's reason, and may be empty."""


class Delta(msgspec.Struct, frozen=True):
    """A piece of one choice of an answer as it comes, one for each token. ``reasoning`` is shown and never stored.

    ``model`` and ``fingerprint`` are what the endpoint says to have answered with, ``usage`` what can be recorded of
    ``spent``, its own count of tokens. ``tool_calls`` are pieces of calls as :class:`CallReader` gives them; ``more``,
    ``choice`` and ``answer`` hold what else the delta, the choice and the whole chunk say, by the endpoint's names.
    """

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    fingerprint: str | None = None
    index: int = 0
    tool_calls: tuple[JsonObject, ...] = ()
    logprobs: JsonObject | None = None
    more: JsonObject = {}
    choice: JsonObject = {}
    answer: JsonObject = {}
    spent: JsonObject | None = None

    @property
    def says(self) -> bool:
        """Whether the model says anything with it."""
        return bool(self.text or self.reasoning or self.tool_calls or self.more)

    @property
    def chars(self) -> int:
        """How much the model says with it."""
        called = [call.get("function", {}) for call in self.tool_calls]
        arguments = sum(len(function.get("name", "")) + len(function.get("arguments", "")) for function in called)
        return len(self.text) + len(self.reasoning) + arguments

    @property
    def said_otherwise(self) -> str:
        """What is said to the person in another way than as content: a refusal, or the transcript of spoken words."""
        audio = self.more.get("audio")
        transcript = audio.get("transcript") if isinstance(audio, dict) else None
        return f"{self.more.get('refusal', '')}{transcript or ''}"


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer; ``choices`` holds everything of it, the other fields what the first choice says."""

    text: str
    finish_reason: str | None
    usage: Usage | None
    reasoning: str = ""
    model: str | None = None
    fingerprint: str | None = None
    call: ModelCall | None = None
    """What was asked for it, where a client asked."""
    choices: tuple[Delta, ...] = ()


class ChunkReader:
    """Reads the chunks of one streamed answer. Where one choice was asked for, one is read, whatever its index."""

    def __init__(self, *, several: bool = False) -> None:
        self._several = several
        self._calls: dict[int, CallReader] = {}
        self._begun = False
        self._before: JsonObject = {}
        """What was said of the whole answer before the model began."""

    def read(self, data: bytes) -> list[Delta]:
        """Read one chunk: a piece of each choice in it, first what it says of the whole answer."""
        try:
            chunk: Any = json.loads(data)
        except (ValueError, RecursionError):
            raise Unreadable from None
        _raise_reported(chunk)
        try:
            choices = (chunk.get("choices") or [])[: None if self._several else 1]
            about = _about(chunk)
            if self._before:
                about["answer"] = {**self._before, **about["answer"]}
            deltas = [
                self._choice(choice, place, {} if place else about)
                for place, choice in enumerate(choices)
                if choice is not None
            ]
        except _READABLE:
            raise Unreadable from None
        self._begun = self._begun or bool(deltas) or about["usage"] is not None
        self._before = {} if self._begun else about["answer"]
        if not deltas and self._begun and (about["answer"] or about["usage"] is not None):
            return [Delta(**about)]
        return deltas

    def _choice(self, choice: Any, place: int, about: JsonObject) -> Delta:
        # Some endpoints end a stream with the whole message, which has come already.
        said = choice.get("delta") or {}
        index = _index(choice, place) if self._several else 0
        calls: tuple[JsonObject, ...] = ()
        if said.get("tool_calls"):
            calls = self._calls.setdefault(index, CallReader()).read(said["tool_calls"])
        return _piece(choice, said, index, calls, about)


def read_completion(body: bytes, *, several: bool = False) -> Completion:
    """Read a whole answer; ``several`` as for :class:`ChunkReader`."""
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise Unreadable from None
    _raise_reported(answer)
    try:
        given = answer["choices"][: None if several else 1]
        about = _about(answer)
        choices = [
            _whole(choice, _index(choice, place) if several else 0, {} if place else about)
            for place, choice in enumerate(given)
        ]
        said = choices[0]
    except _READABLE:
        raise Unreadable from None
    return Completion(
        said.text,
        said.finish_reason,
        said.usage,
        said.reasoning,
        said.model,
        said.fingerprint,
        choices=tuple(choices),
    )


def joined(deltas: Sequence[Delta]) -> list[Delta]:
    """Return pieces (at least one) that came together as one of each choice; the first has what is said of all."""
    if len(deltas) == 1:
        return list(deltas)
    choices: dict[int, list[Delta]] = {}
    for delta in deltas:
        choices.setdefault(delta.index, []).append(delta)
    usages = [delta for delta in deltas if delta.usage is not None]
    about: JsonObject = {
        "usage": usages[-1].usage if usages else None,
        "spent": usages[-1].spent if usages else None,
        "model": next((delta.model for delta in deltas if delta.model), None),
        "fingerprint": next((delta.fingerprint for delta in deltas if delta.fingerprint), None),
        # Each chunk says the whole of it, such as the sources of the answer.
        "answer": {name: value for delta in deltas for name, value in delta.answer.items()},
    }
    first, *others = sorted(choices)
    return [_joined_choice(choices[first], about), *(_joined_choice(choices[index], {}) for index in others)]


def _joined_choice(deltas: Sequence[Delta], about: JsonObject) -> Delta:
    reasons = [delta.finish_reason for delta in deltas if delta.finish_reason is not None]
    return Delta(
        text="".join([delta.text for delta in deltas]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        finish_reason=reasons[-1] if reasons else None,
        index=deltas[0].index,
        tool_calls=joined_calls(call for delta in deltas for call in delta.tool_calls),
        logprobs=merged([delta.logprobs for delta in deltas]),
        more=merged([delta.more for delta in deltas]),
        choice=extended([delta.choice for delta in deltas]),
        **about,
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


def _index(choice: Any, place: int) -> int:
    """Return a choice's own index, or its place where it tells none."""
    return index if is_count(index := choice.get("index")) else place


def _whole(choice: Any, index: int, about: JsonObject) -> Delta:
    message = choice["message"]
    return _piece(choice, message, index, CallReader().read_whole(message.get("tool_calls") or []), about)


def _piece(choice: Any, said: Any, index: int, calls: tuple[JsonObject, ...], about: JsonObject) -> Delta:
    """Return what a choice says, in a delta or a message; ``about`` are fields that say more of its chunk."""
    text, thought = _content(said.get("content"))
    more = passed_on(said, _SAID_FIELDS)
    if more:
        more = {name: value for name, value in more.items() if name not in _REASONING or not isinstance(value, str)}
    if isinstance(refusal := said.get("refusal"), str) and refusal:
        more["refusal"] = storable(refusal)
    if isinstance(function := said.get("function_call"), dict) and function:
        more["function_call"] = _function(function)
    return Delta(
        text,
        thought + _reasoning(said),
        _finish_reason(choice),
        index=index,
        tool_calls=calls,
        logprobs=_logprobs(choice.get("logprobs")),
        more=more,
        choice=passed_on(choice, _CHOICE_FIELDS),
        **about,
    )


def _about(chunk: Any) -> JsonObject:
    """Return the fields of a :class:`Delta` that a chunk, or an answer, says of all its choices."""
    usage = _usage(chunk.get("usage"))
    return {
        "usage": usage,
        "spent": _spent(chunk["usage"], usage) if usage is not None else None,
        "model": _named(chunk, "model"),
        "fingerprint": _named(chunk, "system_fingerprint"),
        "answer": passed_on(chunk, _ANSWER_FIELDS),
    }


def _function(given: JsonObject) -> JsonObject:
    function = passed_on(given, {"arguments"})
    if "arguments" in given:
        function["arguments"] = storable(arguments_text(given["arguments"]))
    return function


def _logprobs(given: Any) -> JsonObject | None:
    """Return log probabilities as clients read them."""
    if not isinstance(given, dict):
        return None
    try:
        read: JsonObject = plain(given)
    except TooDeep:
        return None
    for name in ("content", "refusal"):
        if name in read and (tokens := read.pop(name)) is not None and isinstance(tokens, list):
            read[name] = [{"top_logprobs": [], **token} for token in map(_token, tokens) if token is not None]
            for token in read[name]:
                tops = token["top_logprobs"]
                token["top_logprobs"] = [top for top in map(_token, tops if isinstance(tops, list) else []) if top]
    return read or None


def _token(given: Any) -> JsonObject | None:
    if not isinstance(given, dict) or not isinstance(given.get("token"), str):
        return None
    logprob = given.get("logprob")
    logprob = given.get("logprob")
    is_number = isinstance(logprob, int | float) and not isinstance(logprob, bool)
    return {"bytes": None, **given, "logprob": logprob if is_number else _IMPOSSIBLE_LOGPROB}


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    if not is_count(prompt) or not is_count(completion):
        return None
    details = {name: counts for name in _DETAILS if (counts := _counts(value.get(name)))}
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion, **details)


def _counts(details: Any) -> dict[str, int]:
    if not isinstance(details, dict):
        return {}
    counts = [(storable(name[:_NAME_CHARS_MAX]), count) for name, count in details.items() if is_count(count)]
    return dict(counts[:_DETAILS_MAX])


def _spent(given: Any, usage: Usage) -> JsonObject:
    """Return an endpoint's own count of tokens, as clients read it."""
    total = given.get("total_tokens")
    more = passed_on(given, {"prompt_tokens", "completion_tokens", "total_tokens", *_DETAILS})
    counted = usage.model_dump()
    return {**more, **counted, "total_tokens": total if is_count(total) else usage.total_tokens}

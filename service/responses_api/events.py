"""A turn as it comes, told in the events of the Responses API, and the whole response that they make. Pure.

The order is OpenAI's: ``response.created``, ``response.in_progress``, then the items of the output, and last
``response.completed``, ``response.incomplete`` or ``response.failed``, which holds the whole response. An item is
added, its parts are added, grow and are done, and then it is done itself. A reasoning item or a message is done when
the next item begins. Calls of tools stay open until the answer has ended, since their pieces may come in turns.

How it differs from a chat completion: a text that goes on after a call of a tool is a second message.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from domain.events import JsonObject, Usage
from service.responses_api.tools import custom_input

Status = Literal["in_progress", "completed", "incomplete"]

_CUT: Mapping[str, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is not whole, by the finish reason of the chat completion."""
_ERROR_CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}


@dataclass(slots=True)
class _Reasoning:
    """What the model thinks, shown as its summary: nothing else is shown by every client."""

    id: str
    index: int
    status: Status = "in_progress"
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def as_json(self) -> JsonObject:
        summary = [{"type": "summary_text", "text": self.text}] if self.pieces else []
        shown = {"summary": summary, "encrypted_content": None}
        return {"id": self.id, "type": "reasoning", "status": self.status, **shown}


@dataclass(slots=True)
class _Part:
    """A part of a message: what it says, or why the model refuses to."""

    kind: Literal["output_text", "refusal"]
    index: int
    pieces: list[str] = field(default_factory=list)
    annotations: list[JsonObject] = field(default_factory=list)
    logprobs: list[JsonObject] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def as_json(self) -> JsonObject:
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": self.text}
        return {
            "type": "output_text",
            "text": self.text,
            "annotations": list(self.annotations),
            "logprobs": list(self.logprobs),
        }


@dataclass(slots=True)
class _Message:
    id: str
    index: int
    status: Status = "in_progress"
    parts: list[_Part] = field(default_factory=list)

    def as_json(self) -> JsonObject:
        return output_message(self.id, [part.as_json() for part in self.parts], self.status)


@dataclass(slots=True)
class _Call:
    """A call of a tool; ``custom`` is one with free text as its input."""

    id: str
    index: int
    call_id: str
    name: str
    custom: bool
    status: Status = "in_progress"
    pieces: list[str] = field(default_factory=list)

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)

    def as_json(self) -> JsonObject:
        return call_item(self.id, self.call_id, self.name, self.arguments, self.status, custom=self.custom)


_Item = _Reasoning | _Message | _Call


class ResponseEvents:
    """Tells one answer. ``custom`` are the names of the tools that take free text.

    ``response`` is the response as it is now; it is empty before :meth:`begun`.
    """

    def __init__(self, custom: Collection[str] = ()) -> None:
        self._custom = custom
        self._frame: JsonObject = {}
        self._key = ""
        self._number = 0
        self._items: list[_Item] = []
        self._calls: dict[int, _Call] = {}
        self._ended: JsonObject = {}

    @property
    def has_begun(self) -> bool:
        return bool(self._frame)

    @property
    def response(self) -> JsonObject:
        if self._ended or not self._frame:
            return self._ended
        return {**self._frame, "status": "in_progress", "output": self._output}

    def begun(self, frame: JsonObject) -> list[JsonObject]:
        """Return the events with which a response begins; ``frame`` holds its fields, see :mod:`.frame`."""
        self._frame = frame
        self._key = key_of(frame["id"])
        return [
            self._event("response.created", response=self.response),
            self._event("response.in_progress", response=self.response),
        ]

    def said(
        self,
        *,
        reasoning: str = "",
        text: str = "",
        refusal: str = "",
        annotations: Sequence[JsonObject] = (),
        logprobs: Sequence[JsonObject] = (),
        calls: Sequence[JsonObject] = (),
    ) -> list[JsonObject]:
        """Return the events of the next piece of an answer.

        ``calls`` and ``logprobs`` are those of a chat completion: pieces of calls have an ``index``, the first of each
        its id and its name.
        """
        events: list[JsonObject] = []
        if reasoning:
            events += self._thought(reasoning)
        if text or annotations or logprobs:
            events += self._told(text, annotations, [_logprob(entry) for entry in logprobs])
        if refusal:
            events += self._refused(refusal)
        for call in calls:
            events += self._called(call)
        return events

    def finished(self, finish_reason: str, usage: Usage | None, completed_at: int) -> list[JsonObject]:
        """Return the events with which a response ends. ``completed_at`` is in seconds since 1970."""
        cut = finish_reason in _CUT
        events: list[JsonObject] = []
        still_open = self._open
        for item in still_open:
            # The last one is where the model was cut off.
            events += self._done(item, "incomplete" if cut and item is still_open[-1] else "completed")
        self._ended = {
            **self._frame,
            **ending(finish_reason, completed_at),
            "output": self._output,
            "usage": usage_of(usage),
        }
        kind = "response.incomplete" if cut else "response.completed"
        return [*events, self._event(kind, response=self._ended)]

    def failed(self, status: int, error: Mapping[str, Any]) -> list[JsonObject]:
        """Return the events that tell of an error with an HTTP status, in OpenAI's shape of errors.

        Before a response has begun that is an ``error`` event, then a failed response. There are none after its end.
        """
        if self._ended:
            return []
        message = str(error.get("message") or "")
        if not self.has_begun:
            return [self._event("error", code=error.get("code"), message=message, param=error.get("param"))]
        for item in self._open:
            item.status = "incomplete"
        said = {"code": error_code(status), "message": message}
        self._ended = {**self._frame, "status": "failed", "error": said, "output": self._output}
        return [self._event("response.failed", response=self._ended)]

    @property
    def _output(self) -> list[JsonObject]:
        return [item.as_json() for item in self._items]

    @property
    def _open(self) -> list[_Item]:
        return [item for item in self._items if item.status == "in_progress"]

    @property
    def _current(self) -> _Item | None:
        """The item that was begun last, unless it is done."""
        last = self._items[-1] if self._items else None
        return last if last is not None and last.status == "in_progress" else None

    def _event(self, kind: str, **fields: Any) -> JsonObject:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **fields}

    def _add(self, item: _Item) -> list[JsonObject]:
        """Begin an item. The one before is done with it, unless that is the call of a tool."""
        current = self._current
        events = self._done(current) if current is not None and not isinstance(current, _Call) else []
        self._items.append(item)
        added = item.as_json()
        return [*events, self._event("response.output_item.added", output_index=item.index, item=added)]

    def _done(self, item: _Item, status: Status = "completed") -> list[JsonObject]:
        item.status = status
        at = {"item_id": item.id, "output_index": item.index}
        events: list[JsonObject] = []
        match item:
            case _Reasoning(text=text):
                part = {"type": "summary_text", "text": text}
                events += [
                    self._event("response.reasoning_summary_text.done", **at, summary_index=0, text=text),
                    self._event("response.reasoning_summary_part.done", **at, summary_index=0, part=part),
                ]
            case _Message(parts=parts):
                events += self._part_done(item, parts[-1])
            case _Call(custom=True, arguments=arguments):
                given = custom_input(arguments)
                if given:
                    events.append(self._event("response.custom_tool_call_input.delta", **at, delta=given))
                events.append(self._event("response.custom_tool_call_input.done", **at, input=given))
            case _Call(name=name, arguments=arguments):
                events.append(
                    self._event("response.function_call_arguments.done", **at, name=name, arguments=arguments)
                )
        done = item.as_json()
        return [*events, self._event("response.output_item.done", output_index=item.index, item=done)]

    def _thought(self, text: str) -> list[JsonObject]:
        current = self._current
        events: list[JsonObject] = []
        if not isinstance(current, _Reasoning):
            current = _Reasoning(self._new_id("rs", _Reasoning), len(self._items))
            events += self._add(current)
            part = {"type": "summary_text", "text": ""}
            events.append(
                self._event(
                    "response.reasoning_summary_part.added",
                    item_id=current.id,
                    output_index=current.index,
                    summary_index=0,
                    part=part,
                )
            )
        current.pieces.append(text)
        at = {"item_id": current.id, "output_index": current.index, "summary_index": 0}
        return [*events, self._event("response.reasoning_summary_text.delta", **at, delta=text)]

    def _told(self, text: str, annotations: Sequence[JsonObject], logprobs: list[JsonObject]) -> list[JsonObject]:
        message, part, events = self._part("output_text")
        part.pieces.append(text)
        part.logprobs += logprobs
        at = _of_part(message, part)
        if text or logprobs:
            events.append(self._event("response.output_text.delta", **at, delta=text, logprobs=logprobs))
        for annotation in annotations:
            flat = _annotation(annotation)
            number = len(part.annotations)
            part.annotations.append(flat)
            events.append(
                self._event("response.output_text.annotation.added", **at, annotation_index=number, annotation=flat)
            )
        return events

    def _refused(self, text: str) -> list[JsonObject]:
        message, part, events = self._part("refusal")
        part.pieces.append(text)
        return [*events, self._event("response.refusal.delta", **_of_part(message, part), delta=text)]

    def _part(self, kind: Literal["output_text", "refusal"]) -> tuple[_Message, _Part, list[JsonObject]]:
        """Return the part that grows, and the events with which it began, if it begins here."""
        current = self._current
        events: list[JsonObject] = []
        if not isinstance(current, _Message):
            current = _Message(self._new_id("msg", _Message), len(self._items))
            events += self._add(current)
        if current.parts and current.parts[-1].kind == kind:
            return current, current.parts[-1], events
        if current.parts:
            events += self._part_done(current, current.parts[-1])
        part = _Part(kind, len(current.parts))
        current.parts.append(part)
        added = self._event("response.content_part.added", **_of_part(current, part), part=part.as_json())
        return current, part, [*events, added]

    def _part_done(self, message: _Message, part: _Part) -> list[JsonObject]:
        at = _of_part(message, part)
        if part.kind == "refusal":
            done = self._event("response.refusal.done", **at, refusal=part.text)
        else:
            done = self._event("response.output_text.done", **at, text=part.text, logprobs=list(part.logprobs))
        return [done, self._event("response.content_part.done", **at, part=part.as_json())]

    def _called(self, piece: JsonObject) -> list[JsonObject]:
        function = piece.get("function") or {}
        call = self._calls.get(piece["index"])
        events: list[JsonObject] = []
        if call is None:
            name = str(function.get("name") or "")
            custom = name in self._custom
            item_id = call_item_id(self._key, len(self._calls), custom=custom)
            call = _Call(item_id, len(self._items), str(piece.get("id") or item_id), name, custom)
            self._calls[piece["index"]] = call
            events += self._add(call)
        said = function.get("arguments") or ""
        call.pieces.append(said)
        if said and not call.custom:
            at = {"item_id": call.id, "output_index": call.index}
            events.append(self._event("response.function_call_arguments.delta", **at, delta=said))
        return events

    def _new_id(self, prefix: str, kind: type[_Item]) -> str:
        """Return an id by which an item is found again, see :mod:`.stored`: the first message holds the whole text."""
        before = sum(isinstance(item, kind) for item in self._items)
        return f"{prefix}_{self._key}" if not before else f"{prefix}_{self._key}_{before}"


def key_of(response_id: str) -> str:
    """Return what the ids of a response and of its items have in common."""
    return response_id.partition("_")[2]


def call_item_id(key: str, number: int, *, custom: bool) -> str:
    """Return the id of the item that is a response's call of a tool, counted from 0."""
    return f"{'ctc' if custom else 'fc'}_{key}_{number}"


def output_message(item_id: str, content: list[JsonObject], status: Status = "completed") -> JsonObject:
    """Return a message of the model as an item."""
    return {"id": item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def output_text(text: str) -> JsonObject:
    """Return a text of the model as a part of a message."""
    return _Part("output_text", 0, [text]).as_json()


def call_item(
    item_id: str, call_id: str, name: str, arguments: str, status: Status = "completed", *, custom: bool
) -> JsonObject:
    """Return the call of a tool as an item; that of a custom tool has free text as its input."""
    call = {"id": item_id, "call_id": call_id, "name": name}
    if custom:
        return {**call, "type": "custom_tool_call", "input": custom_input(arguments)}
    return {**call, "type": "function_call", "status": status, "arguments": arguments}


def ending(finish_reason: str, completed_at: int) -> JsonObject:
    """Return the fields of a response that say how it ended."""
    if finish_reason in _CUT:
        return {"status": "incomplete", "incomplete_details": {"reason": _CUT[finish_reason]}, "completed_at": None}
    return {"status": "completed", "completed_at": completed_at}


def error_code(status: int) -> str:
    """Return the code of an error of a response, of which there are few."""
    return _ERROR_CODES.get(status, "server_error")


def usage_of(usage: Usage | None) -> JsonObject | None:
    """Return the count of tokens in the words of the Responses API. What an endpoint does not tell is none."""
    if usage is None:
        return None
    given = usage.model_dump()
    asked, said = given.get("prompt_tokens_details") or {}, given.get("completion_tokens_details") or {}
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": asked.get("cached_tokens", 0),
            "cache_write_tokens": asked.get("cache_write_tokens", 0),
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": said.get("reasoning_tokens", 0)},
        "total_tokens": usage.total_tokens,
    }


def objects(value: Any) -> list[JsonObject]:
    """Return the objects of a list; an endpoint may send anything in its place."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _of_part(message: _Message, part: _Part) -> JsonObject:
    return {"item_id": message.id, "output_index": message.index, "content_index": part.index}


def _logprob(entry: JsonObject) -> JsonObject:
    """Return what a chat completion says of a token, as a response says it: bytes are always a list."""
    others = [{**other, "bytes": other.get("bytes") or []} for other in objects(entry.get("top_logprobs"))]
    return {**entry, "bytes": entry.get("bytes") or [], "top_logprobs": others}


def _annotation(annotation: JsonObject) -> JsonObject:
    """Return an annotation of a chat completion, which nests it below its type, as one of a response."""
    kind = annotation.get("type")
    nested = annotation.get(str(kind))
    return {"type": kind, **nested} if isinstance(nested, dict) else annotation

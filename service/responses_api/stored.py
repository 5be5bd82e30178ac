"""Responses as the ledger has them: given back, gone on from, referred to, deleted.

A response is an answer: the event with which it ended, and what that names. Its id is that of the answer. An exchange
in which tools are called takes several answers, and each is a response of its own.

What was thought and what was sent as bytes is not kept, so a response that is given back has no reasoning, and says an
image in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from domain.client_messages import Message, exchange_messages, said_again
from domain.errors import InvalidInput, UnknownResponse
from domain.events import (
    Event,
    JsonObject,
    MessagesSent,
    NewEvent,
    ResponseDeleted,
    ToolsCalled,
    ToolsOffered,
    TurnFailed,
    TurnRecorded,
)
from domain.identity import DEFAULT_CONVERSATION
from domain.ledger import Ledger
from domain.origin import Origin
from domain.prompt import asked_alone
from domain.prompt_reconstruction import Answered
from service.memory_commands import MemoryCommands
from service.responses_api.events import (
    Status,
    call_item,
    call_item_id,
    ending,
    error_code,
    key_of,
    output_message,
    output_text,
    usage_of,
)
from service.responses_api.frame import answer_id_of, frame, response_id_of
from service.responses_api.messages import items_of
from service.responses_api.request import Earlier
from service.turn_recorder import DISCONNECTED, STOPPED

_TURNS_MAX = 100
"""How far back a request goes that names an earlier response."""
_CHARS_MAX = 2_000_000
"""No model is shown more, and a request that names a response is not to read everything that was ever said."""
_ANSWER_ID = re.compile(r"(chatcmpl-[0-9a-f]{32})(?:-(\d{1,6}))?", re.ASCII)
_ITEM_ID = re.compile(r"(msg|rs|fc|ctc)_([0-9a-f]{32}(?:-\d{1,6})?)(?:_(\d{1,6}))?", re.ASCII)
DELETED = "the response was deleted"


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response as it is kept.

    ``asked`` are the messages of the question and all after it, ``history`` those that the client sent before.
    """

    answer_id: str
    event: Event
    answered: Answered
    repeated: JsonObject
    tools: tuple[JsonObject, ...]
    history: tuple[Message, ...]
    asked: tuple[Message, ...]

    @property
    def response_id(self) -> str:
        return response_id_of(self.answer_id)

    @property
    def memory_id(self) -> str | None:
        """The id of the memory that it is, None where it is none."""
        return self.event.event_id if isinstance(self.answered, TurnRecorded) else None

    @property
    def custom(self) -> Sequence[str]:
        custom: Sequence[str] = self.repeated.get("custom_tools", ())
        return custom

    @property
    def instructions(self) -> str | None:
        chars = self.repeated.get("instructions_chars")
        return (self.answered.client_system or "")[:chars] if chars else None

    @property
    def system(self) -> str:
        """What system messages of the input said, which goes on with the next response; instructions do not."""
        return (self.answered.client_system or "")[self.repeated.get("instructions_chars", 0) :].strip()

    @property
    def said(self) -> str:
        answered = self.answered
        return answered.partial_assistant if isinstance(answered, TurnFailed) else answered.assistant

    @property
    def output(self) -> list[JsonObject]:
        """The items of the response, with the ids that they had when it came."""
        key = key_of(self.response_id)
        status: Status = "incomplete" if isinstance(self.answered, TurnFailed) else "completed"
        items = [output_message(f"msg_{key}", [output_text(self.said)], status)] if self.said else []
        if isinstance(self.answered, ToolsCalled):
            for number, call in enumerate(self.answered.calls):
                custom = call.name in self.custom
                item_id = call_item_id(key, number, custom=custom)
                items.append(call_item(item_id, call.call_id, call.name, call.arguments or "", custom=custom))
        return items

    @property
    def input_items(self) -> list[JsonObject]:
        """What the model was shown of the client's own, oldest first."""
        system = [{"role": "developer", "content": self.system}] if self.system else []
        return items_of([*system, *self.history, *self.asked], key_of(self.response_id), self.custom)

    @property
    def response(self) -> JsonObject:
        answered = self.answered
        created_at = int(answered.ts.timestamp())
        made = frame(
            self.answer_id,
            created_at,
            answered.model,
            self.repeated,
            instructions=self.instructions,
            tools=self.tools,
        )
        return {**made, **self._ended(), "output": self.output, "usage": usage_of(answered.usage)}

    def _ended(self) -> JsonObject:
        answered = self.answered
        if isinstance(answered, TurnFailed):
            return {"status": "failed", "error": {"code": error_code(answered.status), "message": answered.error}}
        if answered.finish_reason in {DISCONNECTED, STOPPED}:
            return {"status": "cancelled"}
        return ending(answered.finish_reason, int(self.event.recorded_at.timestamp()))


class StoredResponses:
    """Finds responses. Calls block; each raises :class:`UnknownResponse` for one that is not kept, or not any more.

    ``user_id`` is whose responses are looked for, None for anybody's.
    """

    def __init__(self, ledger: Ledger, user_id: str | None) -> None:
        self._ledger = ledger
        self._user_id = user_id

    def find(self, response_id: str, field: str = "response_id") -> StoredResponse:
        """Return a response; ``field`` is where the client named it."""
        found = self._find(answer_id_of(response_id) or "")
        if found is None:
            raise UnknownResponse(field, response_id)
        return found

    def earlier(self, response_id: str) -> Earlier:
        """Return what a request goes on that names this response as the one before."""
        field = "previous_response_id"
        found = self.find(response_id, field)
        event, answered = found.event, found.answered
        if isinstance(answered, TurnFailed):
            raise InvalidInput(field, response_id, "it failed: name a response that was completed")
        last = event.event_id if isinstance(answered, TurnRecorded) else answered.follows
        messages: list[Message] = [{"role": "system", "content": found.system}] if found.system else []
        messages += self._told_until(event.user_id, last)
        if isinstance(answered, ToolsCalled):
            messages += [*found.asked, _calls(answered)]
        shared = event.conversation_id == DEFAULT_CONVERSATION
        return Earlier(tuple(messages), None if shared else event.conversation_id, last)

    def referred(self, ids: Iterable[str]) -> Mapping[str, Sequence[JsonObject]]:
        """Return the items that ids stand for; an id that stands for none is missing.

        What was thought is not kept, and of several messages of a response the first has all of its text: such an id
        stands for nothing, which is no error.
        """
        found: dict[str, Sequence[JsonObject]] = {}
        outputs: dict[str, list[JsonObject]] = {}
        for item_id in ids:
            named = _ITEM_ID.fullmatch(item_id)
            if named is None:
                continue
            kind, key, number = named.groups()
            if kind == "rs" or (kind == "msg" and number):
                found[item_id] = []
                continue
            if key not in outputs:
                stored = self._find(answer_id_of(f"resp_{key}") or "")
                outputs[key] = stored.output if stored is not None else []
            meant = [item for item in outputs[key] if item["id"] == item_id]
            if meant:
                found[item_id] = meant
        return found

    def delete(self, found: StoredResponse, origin: Origin) -> None:
        """Delete a response: where it is a memory, that is forgotten."""
        event = found.event
        if isinstance(found.answered, TurnRecorded):
            MemoryCommands(self._ledger, origin).forget(event.user_id, event.event_id, DELETED)
            return
        payload = ResponseDeleted(answer=event.event_id)
        deleted = NewEvent(self._ledger.clock.new_id(), payload, causation_id=event.event_id, origin=origin)
        self._ledger.append(event.stream, lambda _head: [deleted], builds_on=event.event_id).result()

    def _find(self, answer_id: str) -> StoredResponse | None:
        named = _ANSWER_ID.fullmatch(answer_id)
        if named is None:
            return None
        correlation_id, number = named[1], int(named[2] or 0)
        event = _ended(self._ledger.reader.events_of_answer(correlation_id), number)
        if event is None or not isinstance(answered := event.payload, TurnRecorded | ToolsCalled | TurnFailed):
            return None
        given = answered.from_client
        if given is None or given.response is None or self._user_id not in {None, event.user_id}:
            return None
        if self._ledger.conversations.is_withdrawn(event.user_id, event.event_id):
            return None
        named_ids = [*(given.history or ()), *(each for each in (given.asked, given.tools) if each is not None)]
        events = self._ledger.reader.events_named(named_ids)
        offered = events.get(given.tools or "")
        return StoredResponse(
            answer_id,
            event,
            answered,
            given.response,
            offered.payload.tools if offered is not None and isinstance(offered.payload, ToolsOffered) else (),
            tuple(message for each in given.history or () for message in _messages(events.get(each))),
            tuple(_messages(events.get(given.asked)) if given.asked is not None else asked_alone(answered.user)),
        )

    def _told_until(self, user_id: str, event_id: str | None) -> list[Message]:
        """Return the messages of a turn and of those before it on its branch, as many as a model may be shown."""
        if event_id is None:
            return []
        turns = self._ledger.conversations.turns_followed(user_id, event_id, _TURNS_MAX)
        told: list[list[Message]] = []
        chars = 0
        for turn in reversed(turns):
            if isinstance(turn.payload, TurnRecorded):
                chars += len(turn.payload.user) + len(turn.payload.assistant)
                if told and chars > _CHARS_MAX:
                    break
                told.append(exchange_messages(turn.payload.user, turn.payload.assistant))
        return [message for exchange in reversed(told) for message in exchange]


def _ended(events: Sequence[Event], number: int) -> Event | None:
    """Return the event with which an answer of an exchange ended; several failed tries have the same number."""
    ended = None
    calls = 0
    for event in events:
        if isinstance(event.payload, TurnRecorded | ToolsCalled | TurnFailed) and calls == number:
            ended = event
        calls += isinstance(event.payload, ToolsCalled)
    return ended


def _messages(event: Event | None) -> list[Message]:
    match event.payload if event is not None else None:
        case TurnRecorded(user=user, assistant=assistant):
            return exchange_messages(user, assistant)
        case MessagesSent(messages=messages):
            return said_again(messages)
        case _:
            return []


def _calls(answered: ToolsCalled) -> Message:
    """Return the message of an answer that called tools."""
    calls = [
        {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments or "{}"}}
        for call in answered.calls
    ]
    return {"role": "assistant", "content": answered.assistant or None, "tool_calls": calls}

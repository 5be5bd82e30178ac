"""How a turn comes to stand in the ledger, wherever it ended: answered, failed, or interrupted in between.

What was decided on the way and how the turn ended go into one append, each event caused by the one before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import anyio

from domain.branches import moves_to
from domain.chain import canonical
from domain.client_messages import ClientTurn, Message, exchange_key, text_of, without_bytes
from domain.errors import LedgerError, OpmError, UpstreamError
from domain.events import (
    Event,
    FromClient,
    GateDecided,
    JsonObject,
    MessagesSent,
    NewEvent,
    Payload,
    PromptReport,
    RerankDecided,
    RetrievalRecorded,
    ToolCall,
    ToolsCalled,
    ToolsOffered,
    TurnFailed,
    TurnRecorded,
    Usage,
)
from domain.excerpt import excerpt
from domain.ledger import Ledger, StreamHead
from domain.model_call import ModelCall
from domain.origin import Origin
from domain.prompt import BuiltPrompt, asked_alone
from domain.reasoning import visible
from domain.temporal.zones import in_zone, zone_named
from projections.follower import safe_message
from service.answer_fields import merged
from service.chat_answers import Delta
from service.chat_client import answered
from service.knobs import Knobs
from service.placing import Place, text_of_messages
from service.tool_calls import whole_calls

log = logging.getLogger(__name__)

_IMPORTED = "imported"
_FROM_HISTORY = "client history"
_NOTHING: Mapping[str, str] = MappingProxyType({})
_QUERY_CHARS_MAX = 4000
"""Of a long paste, this much is searched for and shown to gate and rerank; the chat model gets all of it."""

_SHOWN = {"audio", "images"}
"""What an answer may consist of without any words; the record has a mark of it."""

DISCONNECTED = "client_disconnected"
"""``finish_reason`` of an answer whose client hung up: what was generated until then is kept."""
STOPPED = "service_stopped"
"""The same where it was the service that ended."""


class Failure(NamedTuple):
    """Why a question got no answer, as the ledger and the client are told."""

    error: str
    code: str
    status: int


_INTERRUPTIONS = {
    DISCONNECTED: Failure("the client hung up before the answer began", DISCONNECTED, 499),
    STOPPED: Failure("the service was stopped before the answer began", STOPPED, 503),
}


def failure_of(error: Exception) -> Failure:
    """Return what is recorded of an error: what the client is told, and nothing of an unexpected one."""
    match error:
        case UpstreamError():
            return Failure(str(error), error.code, error.status)
        case LedgerError():
            return Failure(str(error), "ledger_unavailable", 503)
        case OpmError():
            return Failure(str(error), "unavailable", 503)
        case _:
            return Failure("an internal error, see the log", "internal_error", 500)


MemoryMode = Literal["on", "read", "write", "off"]
"""What a request does with memory: recalls and records, recalls only, records only, neither."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What a client asks. ``parameters`` go to the chat model as they are.

    ``conversation_id`` is None where the client did not name one. ``history`` are the messages that it sent before the
    question, None where it sent none. ``asked`` are the question's message and all after it, as they were sent;
    ``question`` is what the person says in it, without a template that a frontend puts around it. ``messages`` is all
    that was sent, for a request that is passed on as it is.
    """

    user_id: str
    conversation_id: str | None
    question: str
    client_system: str
    asked: tuple[Message, ...]
    knobs: Knobs
    parameters: JsonObject
    max_tokens: int | None
    history: tuple[Message, ...] | None = None
    messages: tuple[Message, ...] = ()
    memory: MemoryMode = "on"
    origin: Origin | None = None
    request_key: str | None = None
    """What this request and its repeats have in common; None where the client does not say that it repeats."""
    is_retry: bool = False
    resends: bool = False
    """Whether the client is known to send its history always."""
    instead_of: Event | None = None
    """The turn of an earlier try, whose answer the client did not get whole."""
    previous: str | None = None
    """The turn that the client names as the one before; it need not be the newest of its conversation."""
    response: JsonObject | None = None
    """The fields of a request to ``/v1/responses`` that its answer repeats."""

    @property
    def plain(self) -> bool:
        """Whether texts alone were sent: no images, no tools, nothing after the question."""
        return list(self.asked) == asked_alone(self.question) and not self.parameters.get("tools")

    @property
    def offers_tools(self) -> bool:
        """Whether the model may call tools: what looks like a call of one elsewhere is a part of an answer."""
        return bool(self.parameters.get("tools") or self.parameters.get("functions"))

    @property
    def begun(self) -> str:
        """The beginning of an answer that the model is to go on with; empty where there is none."""
        last = self.asked[-1]
        return text_of(last) if last.get("role") == "assistant" and not last.get("tool_calls") else ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is whole. What is recorded of it is on the disk; ``turn`` is None where nothing is, or no turn yet."""

    finish_reason: str
    usage: Usage | None
    conversation_id: str
    turn: TurnRecorded | None = None
    memory_id: str | None = None


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """What the chat model was shown, and what the ledger says of it."""

    built: BuiltPrompt
    report: PromptReport


@dataclass(slots=True)
class AnswerSoFar:
    """What the chat model has said until now: of several choices, the first is the one that is recorded."""

    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    usage: Usage | None = None
    model: str | None = None
    fingerprint: str | None = None
    reasoned: bool = False
    said_otherwise: list[str] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)
    calls: list[JsonObject] = field(default_factory=list)
    functions: list[JsonObject] = field(default_factory=list)

    @property
    def text(self) -> str:
        """What was said. Where the model refuses, speaks or draws, that stands in another place than the content."""
        text = "".join(self.pieces)
        if text.strip() or not (self.said_otherwise or self.shown):
            return text
        return "".join(self.said_otherwise) or " ".join(f"[{name}]" for name in sorted(self.shown))

    @property
    def tool_calls(self) -> list[JsonObject]:
        """The calls of the answer, put together from their pieces. One of the old API, of a function, has no id."""
        function = {"id": "", "type": "function", "function": merged(self.functions)} if self.functions else None
        return [*whole_calls(self.calls), *([function] if function is not None else [])]

    def add(self, delta: Delta) -> None:
        self.usage = delta.usage or self.usage
        self.model = self.model or delta.model
        self.fingerprint = self.fingerprint or delta.fingerprint
        if delta.index != 0:
            return
        self.pieces.append(delta.text)
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.reasoned = self.reasoned or bool(delta.reasoning)
        self.calls += delta.tool_calls
        if delta.more:
            self.said_otherwise.append(delta.said_otherwise)
            self.shown |= delta.more.keys() & _SHOWN
            self.functions += [delta.more["function_call"]] if "function_call" in delta.more else []


def answer_id(correlation_id: str, step: int) -> str:
    """Return the id of an answer, before which ``step`` answers of its exchange called tools."""
    return f"{correlation_id}-{step}" if step else correlation_id


class TurnLog:
    """What happened in a turn so far: the events of its decisions, in their order, and how long its steps took."""

    def __init__(self, request: TurnRequest, place: Place, knobs: Knobs, ledger: Ledger) -> None:
        """``knobs`` are those of the request, with the operator's defaults where it does not say."""
        self.request = request
        self.place = place
        self.stream = place.stream
        self.query = excerpt(request.question, _QUERY_CHARS_MAX)
        """The question as it is searched for, and as gate and rerank see it."""
        self.knobs = knobs
        self.ts: datetime = ledger.clock.now()
        self.asked_at = in_zone(self.ts, zone_named(knobs.timezone or "UTC"))
        """The same moment in the zone of the person, whose days count."""
        self.correlation_id = f"chatcmpl-{ledger.clock.new_id().replace('-', '')}"
        self.answer_id = self.correlation_id
        """The id of this answer. An exchange in which tools are called takes several, all of one correlation."""
        continued = place.continued
        if continued is not None and continued.event.correlation_id is not None:
            self.correlation_id = continued.event.correlation_id
            self.answer_id = answer_id(self.correlation_id, continued.step)
        self.timings_ms: dict[str, float] = {}
        self.events: list[NewEvent] = []
        self.builds_on: str | None = None
        """A memory that the answer is given from. If it was erased meanwhile, nothing of the turn is recorded."""
        self.prompt: ShownPrompt | None = None
        """What the chat model was shown last."""
        self.call: ModelCall | None = None
        self._clock = ledger.clock
        self._began = time.perf_counter()

    def add(self, payload: RetrievalRecorded | GateDecided | RerankDecided) -> None:
        """Note a decision, ready to be written: one that cannot be recorded fails here, before any answer is shown."""
        self.events.append(self.event(payload))
        if not isinstance(payload, RetrievalRecorded) and payload.outcome == "fallback":
            # Why is in the event only: it may quote what the endpoint said.
            log.warning("turn %s: no decision that could be read (%s)", self.correlation_id, payload.type)

    def event(self, payload: Payload) -> NewEvent:
        """Return the next event of this turn, caused by the last one."""
        continued = self.place.continued
        before = continued.event.event_id if continued is not None else None
        cause = self.events[-1].event_id if self.events else before
        return NewEvent(self._clock.new_id(), payload, self.correlation_id, cause, self.request.origin)

    @property
    def left_behind(self) -> frozenset[str]:
        """The turns that the conversation leaves behind with this one."""
        return self.place.move.left_behind if self.place.move is not None else frozenset()

    def moves(self) -> list[NewEvent]:
        """Return the events by which the conversation goes on from another turn than its last."""
        move = self.place.move
        if move is None:
            return []
        return moves_to(
            move.path, move.turns, move.reason, self.new_id, self.correlation_id, origin=self.request.origin
        )

    def new_id(self) -> str:
        return self._clock.new_id()

    def beside(self, payload: Payload, cause: str | None) -> NewEvent:
        """Return an event of this turn that is no step of it."""
        return NewEvent(self._clock.new_id(), payload, self.correlation_id, cause, self.request.origin)

    def called(self, call: ModelCall | None) -> None:
        """Note a call of the chat model, unless it is noted already; of several, the last one and all attempts."""
        if call is None or (self.call is not None and call.messages_hash == self.call.messages_hash):
            return
        before = self.call.attempts if self.call is not None else 0
        self.call = call.model_copy(update={"attempts": before + call.attempts})

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Note how long a step takes, if it comes to its end."""
        started = time.perf_counter()
        yield
        self.mark(step, started)

    def mark(self, step: str, since: float | None = None) -> None:
        """Note the time since ``since``, or since the turn began, in milliseconds."""
        self.timings_ms[step] = round((time.perf_counter() - (since or self._began)) * 1000, 3)


class TurnRecorder:
    """Appends turns. ``model`` is the chat model's name."""

    def __init__(self, ledger: Ledger, model: str) -> None:
        self._ledger = ledger
        self._model = model

    async def finished(self, turn: TurnLog, answer: AnswerSoFar, finish_reason: str) -> Finished:
        """Record the question and its answer; return what stands in the ledger."""
        if turn.request.memory == "read":
            return Finished(finish_reason, answer.usage, turn.stream.conversation_id)
        turn.mark("total")
        assert turn.prompt is not None, "an answer has a prompt"

        imports = _Imports(turn)
        sent = _Sent(turn, turn.prompt, imports.ids)
        shown, call = _shown(turn, turn.prompt, sent), _answered(turn, answer, sent)
        # Not in the writer's thread, where everybody's appends would wait for it.
        said = _whole(turn.request.begun, answer.text)
        key = exchange_key(turn.request.question, said)

        def recorded(head: StreamHead) -> TurnRecorded:
            return TurnRecorded(
                turn_id=head.turn_id + len(imports.ids) + 1,
                ts=turn.ts,
                user=turn.request.question,
                assistant=said,
                model=self._model,
                parameters=sent.parameters,
                finish_reason=finish_reason,
                usage=answer.usage,
                **shown,
                timings_ms=turn.timings_ms,
                call=call,
                follows=next(reversed(imports.ids.values()), turn.place.follows),
                exchange_key=key,
                request_key=turn.request.request_key,
                tools_used=_tools_used(turn.request),
            )

        # The turn's number is known to the ledger alone, so its event is made there.
        events = await self._append(turn, sent, lambda head: turn.event(recorded(head)), imports.events, turn.moves())
        for event in reversed(events):
            if isinstance(event.payload, TurnRecorded):
                return Finished(finish_reason, answer.usage, event.conversation_id, event.payload, event.event_id)
        raise AssertionError("the turn was not recorded")

    async def called_tools(self, turn: TurnLog, answer: AnswerSoFar, finish_reason: str) -> Finished:
        """Record an answer that calls tools, from which the exchange goes on when their results come."""
        if turn.request.memory == "read":
            return Finished(finish_reason, answer.usage, turn.stream.conversation_id)
        turn.mark("total")
        assert turn.prompt is not None, "an answer has a prompt"
        sent = _Sent(turn, turn.prompt)
        called = turn.event(
            ToolsCalled(
                ts=turn.ts,
                user=turn.request.question,
                assistant=visible(answer.text),
                model=self._model,
                calls=tuple(_call_of(call) for call in answer.tool_calls),
                finish_reason=finish_reason,
                usage=answer.usage,
                **_shown(turn, turn.prompt, sent),
                timings_ms=turn.timings_ms,
                call=_answered(turn, answer, sent),
                follows=turn.place.follows,
            )
        )
        events = await self._append(turn, sent, lambda _head: called)
        return Finished(finish_reason, answer.usage, events[-1].conversation_id)

    async def failed(self, turn: TurnLog, answer: AnswerSoFar, failure: Failure) -> None:
        """Record the question and why it got no answer.

        Where that cannot be recorded the log says so, and nothing is raised: what the client is to be told is the
        failure itself.
        """
        log.warning("turn %s failed: %s (%d)", turn.correlation_id, failure.code, failure.status)
        if turn.request.memory == "read":
            return
        turn.mark("total")
        sent = _Sent(turn, turn.prompt)
        failed = turn.event(
            TurnFailed(
                ts=turn.ts,
                user=turn.request.question,
                partial_assistant=visible(answer.text),
                model=self._model,
                error=failure.error,
                code=failure.code,
                status=failure.status,
                timings_ms=turn.timings_ms,
                usage=answer.usage,
                **(_shown(turn, turn.prompt, sent) if turn.prompt is not None else {}),
                call=_answered(turn, answer, sent),
            )
        )
        try:
            await self._append(turn, sent, lambda _head: failed)
        except Exception as error:  # noqa: BLE001 - a second failure must not stand in the way of the first
            log.error("turn %s: its failure could not be recorded: %s", turn.correlation_id, safe_message(error))  # noqa: TRY400 - a traceback may quote texts

    async def interrupted(self, turn: TurnLog, answer: AnswerSoFar, reason: str) -> None:
        """Record what was said until somebody stopped it: ``reason`` is :data:`DISCONNECTED` or :data:`STOPPED`."""
        if visible(answer.text):
            await self.finished(turn, answer, answer.finish_reason or reason)
        else:
            await self.failed(turn, answer, _INTERRUPTIONS[reason])

    async def _append(
        self,
        turn: TurnLog,
        sent: _Sent,
        last: Callable[[StreamHead], NewEvent],
        before: Callable[[StreamHead], list[NewEvent]] = lambda _head: [],
        moves: Sequence[NewEvent] = (),
    ) -> tuple[Event, ...]:
        """Append what was decided, what the client sent and how the turn ended, in one commit."""
        append = self._ledger.append(
            turn.stream,
            lambda head: [*before(head), *turn.events, *sent.events, last(head), *moves],
            builds_on=turn.builds_on,
        )
        # Once handed over it is written, whether or not anybody still waits for it.
        written = asyncio.shield(asyncio.wrap_future(append))
        with anyio.CancelScope(shield=True):
            await written
        return written.result()


class _Imports:
    """The turns of a client's history that are recorded with the turn, because the request wants that.

    ``ids`` are those that they get as memories, by their exchange, oldest first.
    """

    def __init__(self, turn: TurnLog) -> None:
        self._turn = turn
        told = turn.place.history or [] if turn.knobs.memory_import else []
        self._told = [each for each in told if each.memory is None and each.user.strip() and each.assistant.strip()]
        self.ids = {each.words: turn.new_id() for each in self._told}

    def events(self, head: StreamHead) -> list[NewEvent]:
        """Return the events, for a conversation that has come to ``head``."""
        made: list[NewEvent] = []
        follows = self._turn.place.follows
        for number, told in enumerate({each.words: each for each in self._told}.values(), start=1):
            payload = TurnRecorded(
                turn_id=head.turn_id + number,
                ts=self._turn.ts,
                user=told.user,
                assistant=told.assistant,
                model=_IMPORTED,
                parameters={},
                finish_reason="stop",
                usage=None,
                window=(),
                replayed=(),
                summarised=(),
                imported_from=_FROM_HISTORY,
                prompt=None,
                timings_ms={},
                follows=follows,
                exchange_key=told.key,
            )
            follows = self.ids[told.words]
            made.append(NewEvent(follows, payload, origin=self._turn.request.origin))
        return made


class _Sent:
    """What the client itself sent of a prompt, as the ledger names it, and the events for what none holds yet."""

    def __init__(self, turn: TurnLog, prompt: ShownPrompt | None, imported: Mapping[str, str] = _NOTHING) -> None:
        """``imported`` are the ids of turns that are recorded now, by their exchange."""
        self._imported = imported
        self.events: list[NewEvent] = []
        self._turn = turn
        request = turn.request
        self.parameters, tools = _apart(request.parameters)
        self._tools = self._offered(tools) if tools and prompt is not None else None
        self.as_event: FromClient | None = None
        if prompt is None:
            return
        history = None
        if turn.place.history is not None:
            history = tuple(self._told(told) for told in prompt.built.window if isinstance(told, ClientTurn))
        alone = list(request.asked) == asked_alone(request.question)
        asked = None if alone else self._said(request.asked, None)
        if history is not None or asked is not None or self._tools is not None or request.response is not None:
            self.as_event = FromClient(history=history, asked=asked, tools=self._tools, response=request.response)

    def short(self, call: ModelCall) -> ModelCall:
        """Return a call whose request names the tools instead of holding them."""
        request, tools = _apart(call.request)
        return call.model_copy(update={"request": request}) if tools else call

    def _told(self, told: ClientTurn) -> str:
        if told.exact:
            return told.memory_id
        imported = self._imported.get(told.words)
        if imported is not None and told.is_exchange(told.user, told.assistant):
            return imported
        return self._said(told.messages, told.memory_id or imported)

    def _said(self, messages: Sequence[Message], memory_id: str | None) -> str:
        payload = MessagesSent(messages=tuple(without_bytes(messages)), memory_id=memory_id)
        return self._kept(text_of_messages(messages), payload, memory_id)

    def _offered(self, tools: Sequence[JsonObject]) -> str:
        return self._kept(canonical(list(tools)), ToolsOffered(tools=tuple(tools)), None)

    def _kept(self, text: str, payload: Payload, cause: str | None) -> str:
        """Return the id of the event that holds a text, of a new one where none does."""
        known = self._turn.place.kept.get(text)
        if known is None:
            event = self._turn.beside(payload, cause)
            self.events.append(event)
            known = event.event_id
        return known


def _apart(parameters: JsonObject) -> tuple[JsonObject, list[JsonObject]]:
    """Return parameters with the names of the tools, and the tools, of which there may be many long ones."""
    tools = parameters.get("tools")
    if not isinstance(tools, list) or not tools or not all(isinstance(tool, dict) for tool in tools):
        return parameters, []  # what is no tool at all is for the endpoint to refuse
    return {**parameters, "tools": [_tool_name(tool) for tool in tools]}, tools


def _tool_name(tool: JsonObject) -> str:
    function = tool.get("function")
    named = function if isinstance(function, dict) else tool
    return str(named.get("name") or named.get("type") or "")


def _tools_used(request: TurnRequest) -> tuple[str, ...]:
    """Return the names of the tools whose results came with a request, each once."""
    calls = [call for message in request.asked for call in message.get("tool_calls") or ()]
    return tuple(dict.fromkeys(_tool_name(call) for call in calls if isinstance(call, dict)))


def _call_of(call: JsonObject) -> ToolCall:
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, dict) else None
    said = arguments if isinstance(arguments, str) else None
    return ToolCall(call_id=str(call.get("id") or ""), name=_tool_name(call), arguments=said)


def _whole(begun: str, text: str) -> str:
    """Return what is said in an answer, after the beginning that the client gave it, unless that was said again."""
    said = visible(text)
    if said.startswith(begun):
        return said
    return f"{begun}{' ' if text[:1].isspace() else ''}{said}"


def _shown(turn: TurnLog, prompt: ShownPrompt, sent: _Sent) -> dict[str, Any]:
    """Return the fields of a turn's event that say what the chat model was shown."""
    built = prompt.built
    return {
        "window": tuple(memory.memory_id for memory in built.window if memory.memory_id),
        "replayed": tuple(memory.memory_id for memory in built.replayed),
        "summarised": tuple(memory.memory_id for memory in built.summarised),
        "neighbours": tuple(neighbor.memory.memory_id for neighbor in built.neighbors),
        "client_system": turn.request.client_system,
        "prompt": prompt.report,
        "from_client": sent.as_event,
    }


def _answered(turn: TurnLog, answer: AnswerSoFar, sent: _Sent) -> ModelCall | None:
    """Return the call of the chat model, with what the endpoint says to have answered with."""
    return answered(sent.short(turn.call), answer.model, answer.fingerprint) if turn.call is not None else None

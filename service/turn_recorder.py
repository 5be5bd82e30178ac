"""How a turn comes to stand in the ledger, wherever it ended: answered, failed, or interrupted in between.

What was decided on the way and how the turn ended go into one append, each event caused by the one before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import anyio

from domain.errors import LedgerError, OpmError, UpstreamError
from domain.events import (
    Event,
    GateDecided,
    JsonObject,
    NewEvent,
    Payload,
    PromptReport,
    RerankDecided,
    RetrievalRecorded,
    TurnFailed,
    TurnRecorded,
    Usage,
)
from domain.excerpt import excerpt
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from domain.model_call import ModelCall
from domain.origin import Origin
from domain.prompt import BuiltPrompt
from domain.reasoning import visible
from domain.temporal.zones import in_zone, zone_named
from projections.follower import safe_message
from service.answer_fields import merged
from service.chat_answers import Delta
from service.chat_client import answered
from service.knobs import Knobs
from service.tool_calls import whole_calls

log = logging.getLogger(__name__)

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


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What a client asks. ``parameters`` go to the chat model as they are."""

    stream: StreamId
    question: str
    client_system: str
    knobs: Knobs
    parameters: JsonObject
    max_tokens: int | None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Finished:
    """The turn is on the disk."""

    turn: TurnRecorded
    memory_id: str
    conversation_id: str


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


class TurnLog:
    """What happened in a turn so far: the events of its decisions, in their order, and how long its steps took."""

    def __init__(self, request: TurnRequest, knobs: Knobs, ledger: Ledger) -> None:
        """``knobs`` are those of the request, with the operator's defaults where it does not say."""
        self.request = request
        self.query = excerpt(request.question, _QUERY_CHARS_MAX)
        """The question as it is searched for, and as gate and rerank see it."""
        self.knobs = knobs
        self.ts: datetime = ledger.clock.now()
        self.asked_at = in_zone(self.ts, zone_named(knobs.timezone or "UTC"))
        """The same moment in the zone of the person, whose days count."""
        self.correlation_id = f"chatcmpl-{ledger.clock.new_id().replace('-', '')}"
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
        cause = self.events[-1].event_id if self.events else None
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
        turn.mark("total")
        assert turn.prompt is not None, "an answer has a prompt"

        shown, call = _shown(turn.request, turn.prompt), _answered(turn, answer)
        # Not in the writer's thread, where everybody's appends would wait for it.
        said = visible(answer.text)

        def recorded(head: StreamHead) -> TurnRecorded:
            return TurnRecorded(
                turn_id=head.turn_id + 1,
                ts=turn.ts,
                user=turn.request.question,
                assistant=said,
                model=self._model,
                parameters=turn.request.parameters,
                finish_reason=finish_reason,
                usage=answer.usage,
                **shown,
                timings_ms=turn.timings_ms,
                call=call,
            )

        # The turn's number is known to the ledger alone, so its event is made there.
        events = await self._append(turn, lambda head: turn.event(recorded(head)))
        last = events[-1]
        assert isinstance(last.payload, TurnRecorded)
        return Finished(last.payload, last.event_id, last.conversation_id)

    async def failed(self, turn: TurnLog, answer: AnswerSoFar, failure: Failure) -> None:
        """Record the question and why it got no answer.

        Where that cannot be recorded the log says so, and nothing is raised: what the client is to be told is the
        failure itself.
        """
        log.warning("turn %s failed: %s (%d)", turn.correlation_id, failure.code, failure.status)
        turn.mark("total")
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
                **(_shown(turn.request, turn.prompt) if turn.prompt is not None else {}),
                call=_answered(turn, answer),
            )
        )
        try:
            await self._append(turn, lambda _head: failed)
        except Exception as error:  # noqa: BLE001 - a second failure must not stand in the way of the first
            log.error("turn %s: its failure could not be recorded: %s", turn.correlation_id, safe_message(error))  # noqa: TRY400 - a traceback may quote texts

    async def interrupted(self, turn: TurnLog, answer: AnswerSoFar, reason: str) -> None:
        """Record what was said until somebody stopped it: ``reason`` is :data:`DISCONNECTED` or :data:`STOPPED`."""
        if visible(answer.text):
            await self.finished(turn, answer, answer.finish_reason or reason)
        else:
            await self.failed(turn, answer, _INTERRUPTIONS[reason])

    async def _append(self, turn: TurnLog, last: Callable[[StreamHead], NewEvent]) -> tuple[Event, ...]:
        """Append what was decided and how the turn ended, in one commit."""
        append = self._ledger.append(
            turn.request.stream, lambda head: [*turn.events, last(head)], builds_on=turn.builds_on
        )
        # Once handed over it is written, whether or not anybody still waits for it.
        written = asyncio.shield(asyncio.wrap_future(append))
        with anyio.CancelScope(shield=True):
            await written
        return written.result()


def _shown(request: TurnRequest, prompt: ShownPrompt) -> dict[str, Any]:
    """Return the fields of a turn's event that say what the chat model was shown."""
    built = prompt.built
    return {
        "window": tuple(memory.memory_id for memory in built.window),
        "replayed": tuple(memory.memory_id for memory in built.replayed),
        "summarised": tuple(memory.memory_id for memory in built.summarised),
        "neighbours": tuple(neighbor.memory.memory_id for neighbor in built.neighbors),
        "client_system": request.client_system,
        "prompt": prompt.report,
    }


def _answered(turn: TurnLog, answer: AnswerSoFar) -> ModelCall | None:
    """Return the call of the chat model, with what the endpoint says to have answered with."""
    return answered(turn.call, answer.model, answer.fingerprint) if turn.call is not None else None

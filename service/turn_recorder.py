"""How a turn comes to stand in the ledger, wherever it ended: answered, failed, or broken off in between.

Everything that was decided on the way and how the turn ended go into one append, each event caused by the one before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import anyio

from domain.events import (
    Event,
    GateDecided,
    JsonObject,
    NewEvent,
    Payload,
    PromptReport,
    RerankDecided,
    RetrievalMode,
    RetrievalRecorded,
    TurnFailed,
    TurnRecorded,
    Usage,
)
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from domain.memory import Memory
from domain.prompt import BuiltPrompt
from domain.reasoning import visible
from service.knobs import Knobs

log = logging.getLogger(__name__)

DISCONNECTED = "client_disconnected"
"""``finish_reason`` of an answer whose client hung up: what was generated until then is kept."""
STOPPED = "service_stopped"
"""The same where it was the service that ended."""
_INTERRUPTED_STATUS = {DISCONNECTED: 499, STOPPED: 503}
INTERNAL_ERROR = "internal_error"
LastEvent = Callable[[StreamHead], Payload]


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """What a client asks. ``parameters`` go to the chat model as they are."""

    stream: StreamId
    question: str
    client_system: str
    knobs: Knobs
    parameters: JsonObject
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class Finished:
    """The turn is on the disk."""

    turn: TurnRecorded
    memory_id: str
    conversation_id: str


@dataclass
class Draft:
    """A turn in the making: what is known of it so far, so that it can be recorded wherever it ends."""

    request: TurnRequest
    knobs: Knobs
    """Those of the request, with the operator's defaults where it does not say."""
    correlation_id: str
    ts: datetime
    began: float
    window: list[Memory] = field(default_factory=list)
    retrieval: Callable[[], RetrievalRecorded] | None = None
    """Gives the event, which is put together when it is first asked for, as those of the gate and the rerank are."""
    mode: RetrievalMode = "dense"
    """How the candidates were found, and so what their scores mean."""
    notice: str | None = None
    gate: Callable[[], GateDecided] | None = None
    rerank: Callable[[], RerankDecided] | None = None
    prompt: BuiltPrompt | None = None
    report: Callable[[], PromptReport] | None = None
    text: str = ""
    finish_reason: str = ""
    usage: Usage | None = None
    timings_ms: dict[str, float] = field(default_factory=dict)
    counted_ahead: bool = False
    decided: list[NewEvent] = field(default_factory=list)
    """The events of what was decided, as far as :meth:`TurnRecorder.prepare` has made them."""

    def mark(self, name: str, since: float) -> None:
        self.timings_ms[name] = round((time.perf_counter() - since) * 1000, 3)


class TurnRecorder:
    """Appends turns. ``model`` is the chat model's name."""

    def __init__(self, ledger: Ledger, model: str) -> None:
        self._ledger = ledger
        self._model = model

    async def finished(self, draft: Draft, finish_reason: str) -> Finished:
        """Record the question and its answer; return what stands in the ledger."""
        prompt = draft.prompt
        assert prompt is not None
        assert draft.report is not None
        report = draft.report()
        draft.mark("total", draft.began)

        def turn(head: StreamHead) -> TurnRecorded:
            return TurnRecorded(
                turn_id=head.turn_id + 1,
                ts=draft.ts,
                user=draft.request.question,
                assistant=visible(draft.text),
                model=self._model,
                parameters=draft.request.parameters,
                finish_reason=finish_reason,
                usage=draft.usage,
                window=tuple(memory.memory_id for memory in prompt.window),
                replayed=tuple(memory.memory_id for memory in prompt.replayed),
                summarised=tuple(memory.memory_id for memory in prompt.summarised),
                neighbours=tuple(neighbor.memory.memory_id for neighbor in prompt.neighbors),
                client_system=draft.request.client_system,
                prompt=report,
                timings_ms=draft.timings_ms,
            )

        recorded = (await self._append(draft, turn))[-1]
        assert isinstance(recorded.payload, TurnRecorded)
        return Finished(recorded.payload, recorded.event_id, recorded.conversation_id)

    async def failed(self, draft: Draft, error: str, code: str, status: int) -> None:
        """Record the question and why it got no answer."""
        draft.mark("total", draft.began)
        failed = TurnFailed(
            ts=draft.ts,
            user=draft.request.question,
            partial_assistant=visible(draft.text),
            model=self._model,
            error=error,
            code=code,
            status=status,
            timings_ms=draft.timings_ms,
        )
        log.warning("turn %s failed: %s (%d)", draft.correlation_id, code, status)
        try:
            self.prepare(draft)
        except Exception as fault:  # noqa: BLE001 - a fault in what was decided must not lose the question
            log.warning("turn %s: what was decided cannot be recorded (%s)", draft.correlation_id, type(fault).__name__)
            # Events made by now are appended all the same, and what cannot be made is not asked for again.
            draft.retrieval = draft.retrieval if draft.decided else None
            draft.gate = draft.rerank = draft.report = None
        await self._append(draft, lambda _head: failed)

    async def interrupted(self, draft: Draft, reason: str) -> None:
        """Record what was said until somebody stopped it: ``reason`` is :data:`DISCONNECTED` or :data:`STOPPED`."""
        if visible(draft.text):
            await self.finished(draft, draft.finish_reason or reason)
        else:
            said = {
                DISCONNECTED: "the client hung up before the answer began",
                STOPPED: "the service was stopped before the answer began",
            }
            await self.failed(draft, said[reason], reason, _INTERRUPTED_STATUS[reason])

    def prepare(self, draft: Draft) -> None:
        """Make the events of what was decided so far, each caused by the one before it, and write them out.

        Whoever waits for an endpoint does well to have this done meanwhile: the append would do it otherwise. A
        decision that could not be read is told in the log when its event is made.
        """
        decisions = [decision for decision in (draft.retrieval, draft.gate, draft.rerank) if decision is not None]
        for decision in decisions[len(draft.decided) :]:
            payload = decision()
            cause = draft.decided[-1].event_id if draft.decided else None
            event = NewEvent(self._ledger.clock.new_id(), payload, draft.correlation_id, cause)
            draft.decided.append(event)
            if isinstance(payload, GateDecided | RerankDecided) and payload.outcome == "fallback":
                # An endpoint that never decides would go unnoticed. Why is in the event: it may quote what that said.
                log.warning("turn %s: no decision that could be read (%s)", draft.correlation_id, payload.type)
        if draft.report is not None:
            draft.report()

    async def _append(self, draft: Draft, last: LastEvent) -> tuple[Event, ...]:
        """Append what was decided and how the turn ended, in one commit."""
        self.prepare(draft)
        decided = tuple(draft.decided)
        last_id, cause = self._ledger.clock.new_id(), decided[-1].event_id if decided else None

        def decide(head: StreamHead) -> list[NewEvent]:
            return [*decided, NewEvent(last_id, last(head), draft.correlation_id, cause)]

        # Once handed over it is written, whether or not anybody still waits for it.
        append = self._ledger.append(draft.request.stream, decide, builds_on=_any_memory(draft))
        written = asyncio.shield(asyncio.wrap_future(append))
        with anyio.CancelScope(shield=True):
            await written
        return written.result()


def _any_memory(draft: Draft) -> str | None:
    """Return a memory that an answer was given from, if there is one.

    An erasure takes all of a user's memories at once. An answer that drew on them must not come into the ledger after.
    """
    if draft.window:
        return draft.window[0].memory_id
    candidates = draft.retrieval().candidates if draft.retrieval is not None else ()
    return candidates[0].memory_id if candidates else None

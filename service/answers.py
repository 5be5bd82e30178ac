"""How a request comes to its answer: passed on as it is, answered with memory, or given the answer that it had already.

A client that hears nothing asks again. Where it says so (``Idempotency-Key``, or the count of retries that OpenAI's
libraries send), it joins the answer that still runs, or gets the recorded one, and no turn is recorded twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace

import anyio

from domain.events import Event, ToolsCalled, TurnRecorded
from domain.ledger import Ledger
from service.chat_answers import Delta
from service.turn import PassedOn, Started, TurnService
from service.turn_recorder import DISCONNECTED, STOPPED, Finished, TurnRequest, answer_id


@dataclass(frozen=True, slots=True)
class Placed:
    """The conversation in which a request is answered; empty for one that belongs to none."""

    conversation_id: str


Item = Placed | Started | PassedOn | Delta | Finished
Answering = AsyncGenerator[Item, None]
"""First :class:`Placed`, then :class:`Started` or :class:`PassedOn`, the pieces, and :class:`Finished`."""


class Answers:
    """Begins answers, and knows which of those that may be asked for again still run."""

    def __init__(self, ledger: Ledger, turns: TurnService) -> None:
        self._ledger = ledger
        self._turns = turns
        self._running: dict[str, _Running] = {}

    def begin(self, request: TurnRequest) -> Answering:
        """Return the items of the answer to a request; raises, while they come, as :meth:`TurnService.answer` does."""
        key = request.request_key
        if key is None:
            return self._answer(request)
        running = self._running.get(key)
        if running is not None and not running.abandoned and request.is_retry:
            return running.follow()
        if running is not None and not request.is_retry:
            # The same question on purpose, twice at once.
            return self._answer(request)
        # What all have left is about to be recorded as far as it came.
        begun = self._running[key] = _Running(self._answer(request, after=running), lambda: self._end(key, begun))
        return begun.follow()

    def _end(self, key: str, ended: _Running) -> None:
        if self._running.get(key) is ended:
            del self._running[key]

    async def _answer(self, request: TurnRequest, *, after: _Running | None = None) -> Answering:
        if after is not None:
            await after.ended()
        if request.memory == "off":
            yield Placed("")
            async with aclosing(self._turns.pass_on(request)) as passed:
                async for item in passed:
                    yield item
            return
        before = await self._before(request)
        if before is not None and isinstance(before.payload, TurnRecorded):
            if before.payload.finish_reason not in {DISCONNECTED, STOPPED}:
                for told in _again(before, before.payload, await self._answer_id(before)):
                    yield told
                return
            request = replace(request, instead_of=before)
        place = await self._turns.place(request)
        yield Placed(place.stream.conversation_id)
        async with aclosing(self._turns.answer(request, place)) as answering:
            async for part in answering:
                yield part

    async def _before(self, request: TurnRequest) -> Event | None:
        """Return the turn that a request is recorded with already, None where it is not asked again."""
        if request.request_key is None or not request.is_retry:
            return None
        find = self._ledger.conversations.turn_of_request
        return await asyncio.to_thread(find, request.user_id, request.request_key)

    async def _answer_id(self, event: Event) -> str:
        """Return the id that the answer of a turn was given with."""
        correlation_id = event.correlation_id or event.event_id
        events = await asyncio.to_thread(self._ledger.reader.events_of_answer, correlation_id)
        return answer_id(correlation_id, sum(isinstance(each.payload, ToolsCalled) for each in events))


def _again(event: Event, turn: TurnRecorded, given_as: str) -> list[Item]:
    """Return the items of an answer that is recorded; ``given_as`` is its id."""
    return [
        Placed(event.conversation_id),
        PassedOn(given_as, turn.ts, turn.model),
        Delta(turn.assistant, finish_reason=turn.finish_reason, usage=turn.usage),
        Finished(turn.finish_reason, turn.usage, event.conversation_id, turn, event.event_id),
    ]


class _Running:
    """An answer that several may follow, each from its beginning. It is cut short when the last of them has gone."""

    def __init__(self, answering: Answering, ended: Callable[[], object]) -> None:
        self._items: list[Item] = []
        self._changed = asyncio.Event()
        self._followers = 0
        self._begun = False
        self._ended = ended
        self._task = asyncio.create_task(self._run(answering))
        self._task.add_done_callback(self._end)

    async def _run(self, answering: Answering) -> None:
        async with aclosing(answering) as items:
            async for item in items:
                self._items.append(item)
                self._wake()

    def _end(self, _task: asyncio.Task[None]) -> None:
        self._ended()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def abandoned(self) -> bool:
        """Whether somebody followed it, and all of them have gone."""
        return self._begun and not self._followers

    async def ended(self) -> None:
        """Wait until it has come to an end, whatever that is."""
        await asyncio.wait({self._task})

    async def follow(self) -> Answering:
        """Yield all items; raises as the answer does."""
        self._followers += 1
        self._begun = True
        at = 0
        reason: str | None = None
        try:
            while True:
                changed = self._changed
                if at < len(self._items):
                    at += 1
                    yield self._items[at - 1]
                elif self._task.done():
                    self._task.result()
                    return
                else:
                    await changed.wait()
        except GeneratorExit:
            reason = DISCONNECTED
            raise
        except asyncio.CancelledError as error:
            reason = DISCONNECTED if DISCONNECTED in error.args else None
            raise
        finally:
            self._followers -= 1
            if not self._followers and not self._task.done():
                self._task.cancel(reason)
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({self._task})

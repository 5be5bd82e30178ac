"""Writes a summary for each turn that lacks one, in the background.

It keeps no list of its own: a turn without a ``SummaryRecorded`` event lacks a summary, and each start tries all such
turns again. A turn whose attempts are used up gets a ``SummaryFailed`` event and waits for the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from domain.errors import MemoryErased, UpstreamError
from domain.events import Event, NewEvent, Payload, SummaryFailed, SummaryRecorded, TurnRecorded
from domain.ledger import Ledger
from domain.prompts import Prompt
from domain.reasoning import visible
from domain.tokens import beginning, estimate_tokens
from projections.follower import safe_message
from service.chat_client import ChatClient
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

_SUMMARY_TOKENS_MAX = 256
_BACKOFF_FIRST_S = 1.0
_BACKOFF_MAX_S = 60.0
_TEMPLATE_TOKENS = 64


class Summarizer:
    """A :class:`~projections.follower.Projection` that appends a summary for each turn."""

    name = "summaries"

    def __init__(
        self,
        ledger: Ledger,
        chat: ChatClient,
        prompt: Prompt,
        settings: ServiceSettings,
        context_tokens: Callable[[], int],
    ) -> None:
        self._ledger = ledger
        self._chat = chat
        self._prompt = prompt
        self._settings = settings
        self._context_tokens = context_tokens
        self._position = 0
        self._running: set[asyncio.Task[None]] = set()
        self.failures = 0

    async def advance(self) -> bool:
        """Start on the next turns without a summary, while there are free slots; return True if there may be more."""
        free = self._settings.summary_concurrency - len(self._running)
        if free == 0:
            # A call that hangs keeps only its own slot: go on as soon as any other is free.
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            return True
        turns = await asyncio.to_thread(self._ledger.reader.turns_without_summary, self._position, free)
        for turn in turns:
            task = asyncio.get_running_loop().create_task(self._summarise_counted(turn))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
            self._position = turn.position
        return bool(turns)

    async def close(self) -> None:
        """Cancel the summaries being written; the next start tries them again."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _summarise_counted(self, turn: Event) -> None:
        try:
            await self._summarise(turn)
        except Exception as error:  # noqa: BLE001 - outermost level of a background task: logged and counted
            self.failures += 1
            log.warning("the summary of turn %s could not be recorded: %s", turn.correlation_id, safe_message(error))

    async def _summarise(self, event: Event) -> None:
        turn = event.payload
        assert isinstance(turn, TurnRecorded)
        attempts = 0
        outcome: Payload
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(UpstreamError),
                wait=wait_exponential_jitter(initial=_BACKOFF_FIRST_S, max=_BACKOFF_MAX_S),
                stop=stop_after_attempt(self._settings.summary_attempts),
                reraise=True,
            ):
                with attempt:
                    attempts += 1
                    outcome = await self._ask(event.event_id, turn, attempts)
        except UpstreamError as error:
            log.warning("no summary for turn %s after %d attempts: %s", event.correlation_id, attempts, error.code)
            outcome = SummaryFailed(
                memory_id=event.event_id,
                turn_id=turn.turn_id,
                model=self._chat.model,
                prompt_version=self._prompt.version,
                error=str(error),
                attempts=attempts,
            )
        new = NewEvent(self._ledger.clock.new_id(), outcome, event.correlation_id, event.event_id)
        try:
            append = self._ledger.append(event.stream, lambda _head: [new], builds_on=event.event_id)
            await asyncio.wrap_future(append)
        except MemoryErased:
            log.info("no summary for turn %s: it has been erased", event.correlation_id)

    async def _ask(self, memory_id: str, turn: TurnRecorded, attempts: int) -> SummaryRecorded:
        # The exchange alone: what was recalled for it is a memory already and must not be stored again.
        # Of texts too long for the model, the beginning says most.
        room = self._context_tokens() - _SUMMARY_TOKENS_MAX - _TEMPLATE_TOKENS - estimate_tokens(self._prompt.text)
        exchange = (
            f"Date: {turn.ts:%Y-%m-%d}\n"
            f"Person: {beginning(turn.user, room // 2)}\n"
            f"Assistant: {beginning(turn.assistant, room // 2)}"
        )
        completion = await self._chat.complete(
            [{"role": "system", "content": self._prompt.text}, {"role": "user", "content": exchange}],
            timeout_s=self._settings.summary_timeout_s,
            max_tokens=_SUMMARY_TOKENS_MAX,
        )
        summary = visible(completion.text)
        if not summary:
            raise UpstreamError("the chat endpoint gave an empty summary", status=502, code="upstream_empty")
        return SummaryRecorded(
            memory_id=memory_id,
            turn_id=turn.turn_id,
            summary=summary,
            model=self._chat.model,
            prompt_version=self._prompt.version,
            usage=completion.usage,
            attempts=attempts,
        )

"""Writes a summary for each turn that lacks one, in the background.

It keeps no list of its own: a turn without a ``SummaryRecorded`` event lacks a summary, and each start tries all such
turns again. A turn whose attempts are used up gets a ``SummaryFailed`` event and waits for the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from domain.errors import MemoryErased, UpstreamError
from domain.events import Event, NewEvent, Payload, SummaryFailed, SummaryRecorded, TurnRecorded
from domain.ledger import Ledger
from domain.prompts import Prompt
from domain.reasoning import visible
from domain.temporal.zones import in_zone, recorded_zone
from domain.tokens import beginning, estimate_tokens
from projections.background_tasks import BackgroundTasks
from projections.threads import in_background
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
        self._writing = BackgroundTasks()

    async def advance(self) -> bool:
        """Start on the next turns without a summary, while there are free slots; return True if there may be more."""
        free = self._settings.summary_concurrency - len(self._writing)
        if free == 0:
            # A call that hangs keeps only its own slot: go on as soon as any other is free.
            await self._writing.wait_for_one()
            return True
        turns = await in_background(self._ledger.reader.turns_without_summary, self._position, free)
        for turn in turns:
            what = f"recording the summary of turn {turn.correlation_id}"
            self._writing.start(turn.event_id, what, partial(self._summarise, turn))
            self._position = turn.position
        return bool(turns)

    @property
    def writing(self) -> int:
        """How many summaries are being written."""
        return len(self._writing)

    @property
    def failures(self) -> int:
        """How many summaries could not be recorded."""
        return self._writing.failures

    async def close(self) -> None:
        """Cancel the summaries being written; the next start tries them again."""
        await self._writing.close()

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
        zone = turn.prompt.timezone if turn.prompt is not None else self._settings.timezone
        exchange = (
            f"Date: {in_zone(turn.ts, recorded_zone(zone)).date()}\n"
            f"Person: {beginning(turn.user, room // 2)}\n"
            f"Assistant: {beginning(turn.assistant, room // 2)}"
        )
        completion = await self._chat.complete(
            [{"role": "system", "content": self._prompt.text}, {"role": "user", "content": exchange}],
            timeout_s=self._settings.summary_timeout_s,
            timeout_setting="SUMMARY_TIMEOUT_S",
            max_tokens=_SUMMARY_TOKENS_MAX,
        )
        summary = visible(completion.text)
        if not summary:
            raise self._chat.names.said_nothing(
                completion.finish_reason,
                reasoned=bool(completion.reasoning or completion.text.strip()),
                tokens_max=_SUMMARY_TOKENS_MAX,
                extra_setting="DECISION_EXTRA_BODY",
            )
        return SummaryRecorded(
            memory_id=memory_id,
            turn_id=turn.turn_id,
            summary=summary,
            model=self._chat.model,
            prompt_version=self._prompt.version,
            usage=completion.usage,
            attempts=attempts,
        )

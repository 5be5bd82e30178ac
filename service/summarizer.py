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
from domain.events import Event, NewEvent, Payload, SummaryAsked, SummaryFailed, SummaryRecorded, TurnRecorded, Usage
from domain.ledger import Ledger
from domain.prompts import Prompt
from domain.reasoning import visible
from domain.summary_request import Message, summary_messages
from domain.tokens import beginning, estimate_tokens
from projections.background_tasks import BackgroundTasks
from projections.threads import in_background
from service.chat_answers import Completion
from service.chat_client import ChatClient
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

_SUMMARY_TOKENS_MAX = 256
_LONG_CHARS = 50_000
"""Longer exchanges are counted in a thread."""
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
            self._position = turn.position
            if not isinstance(turn.payload, TurnRecorded):
                continue  # damaged, so there is nothing to summarise
            what = f"recording the summary of turn {turn.correlation_id}"
            self._writing.start(turn.event_id, what, partial(self._summarise, turn))
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
        asked: SummaryAsked | None = None
        spent: Usage | None = None
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(UpstreamError),
                wait=wait_exponential_jitter(initial=_BACKOFF_FIRST_S, max=_BACKOFF_MAX_S),
                stop=stop_after_attempt(self._settings.summary_attempts),
                reraise=True,
            ):
                with attempt:
                    attempts += 1
                    asked, messages = await self._request(turn)
                    completion = await self._ask(messages)
                    spent = _together(spent, completion.usage)
                    summary = _summary_in(completion)
            outcome = SummaryRecorded(
                memory_id=event.event_id,
                turn_id=turn.turn_id,
                summary=summary,
                model=self._chat.model,
                prompt_version=self._prompt.version,
                usage=spent,
                attempts=attempts,
                asked=asked,
                call=completion.call,
            )
        except UpstreamError as error:
            log.warning("no summary for turn %s after %d attempts: %s", event.correlation_id, attempts, error.code)
            outcome = SummaryFailed(
                memory_id=event.event_id,
                turn_id=turn.turn_id,
                model=self._chat.model,
                prompt_version=self._prompt.version,
                error=str(error),
                attempts=attempts,
                usage=spent,
                asked=asked,
                call=error.call,
            )
        new = NewEvent(self._ledger.clock.new_id(), outcome, event.correlation_id, event.event_id)
        try:
            append = self._ledger.append(event.stream, lambda _head: [new], builds_on=event.event_id)
            await asyncio.wrap_future(append)
        except MemoryErased:
            log.info("no summary for turn %s: it has been erased", event.correlation_id)

    async def _request(self, turn: TurnRecorded) -> tuple[SummaryAsked, list[Message]]:
        """Return how much of a turn is shown to the model, and the messages.

        The exchange alone: what was recalled for it is a memory already and must not be stored again. Of texts too long
        for the model, the beginning says most.
        """
        room = self._context_tokens() - _SUMMARY_TOKENS_MAX - _TEMPLATE_TOKENS - estimate_tokens(self._prompt.text)
        long = len(turn.user) + len(turn.assistant) > _LONG_CHARS
        question, answer = await in_background(_beginnings, turn, room // 2) if long else _beginnings(turn, room // 2)
        asked = SummaryAsked(
            question_chars=len(question),
            answer_chars=len(answer),
            timezone=turn.prompt.timezone if turn.prompt is not None else self._settings.timezone,
        )
        return asked, summary_messages(self._prompt.text, turn, asked)

    async def _ask(self, messages: list[Message]) -> Completion:
        return await self._chat.complete(
            messages,
            timeout_s=self._settings.summary_timeout_s,
            timeout_setting="SUMMARY_TIMEOUT_S",
            max_tokens=_SUMMARY_TOKENS_MAX,
        )


def _summary_in(completion: Completion) -> str:
    """Return the summary in an answer; raise :class:`UpstreamError` where there is none."""
    summary = visible(completion.text)
    if not summary:
        error = UpstreamError("the chat endpoint gave an empty summary", status=502, code="upstream_empty")
        raise error.of(completion.call) if completion.call is not None else error
    return summary


def _together(one: Usage | None, other: Usage | None) -> Usage | None:
    """Return the tokens of both, as far as they are known."""
    if one is None or other is None:
        return one or other
    return Usage(
        prompt_tokens=one.prompt_tokens + other.prompt_tokens,
        completion_tokens=one.completion_tokens + other.completion_tokens,
        total_tokens=one.total_tokens + other.total_tokens,
    )


def _beginnings(turn: TurnRecorded, tokens_max: int) -> tuple[str, str]:
    """Return as much of a question and of its answer; of long ones this takes long."""
    return beginning(turn.user, tokens_max), beginning(turn.assistant, tokens_max)

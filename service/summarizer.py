"""Writes a summary for each turn that lacks one, in the background.

A turn without a ``SummaryRecorded`` event lacks a summary, and each start tries all such turns again. A turn whose
attempts are used up gets a ``SummaryFailed`` event and waits for the next start. What cannot be recorded, or fails in a
way that nobody foresaw, is tried again for as long as it takes, ever more rarely; a summary that is there already is
kept for that, and the model not asked again.

More turns are summarised at a time the more of them wait, so that summaries do not fall behind under load.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
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
from service.long_texts import with_texts
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

_SUMMARY_TOKENS_MAX = 256
_BACKOFF_FIRST_S = 1.0
_BACKOFF_MAX_S = 60.0
_AGAIN_FIRST_S = 1.0
_TEMPLATE_TOKENS = 64
_WAITING_PER_SLOT = 16
"""One more turn is summarised at a time for so many that wait."""
_LOOK_AGAIN_S = 0.25
"""How often what no commit tells is looked at: whether a summary is to be tried again, and whether many wait."""


@dataclass(frozen=True, slots=True)
class _Lacking:
    """A turn that lacks a summary: what is to be recorded of it, once that is known, and how often that has failed.

    ``due_s`` is when it is tried again, on the event loop's clock.
    """

    turn: Event
    outcome: Payload | None = None
    failures: int = 0
    due_s: float = 0.0


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
        self._again: dict[str, _Lacking] = {}

    async def advance(self) -> bool:
        """Start on the next turns without a summary, while there are free slots; return True if there may be more."""
        free = await in_background(self._slots) - len(self._writing)
        if free <= 0:
            # A call that hangs keeps only its own slot: go on as soon as any other is free, or there are more.
            await self._writing.wait_for_one(_LOOK_AGAIN_S)
            return True
        lacking = self._due()[:free]
        reader = self._ledger.reader
        turns, reached = await in_background(reader.turns_without_summary, self._position, free - len(lacking))
        # Of a damaged turn there is nothing to summarise.
        readable = [turn for turn in turns if isinstance(turn.payload, TurnRecorded)]
        for one in (*lacking, *map(_Lacking, readable)):
            what = f"recording the summary of turn {one.turn.correlation_id}"
            self._writing.start(one.turn.event_id, what, partial(self._summarise, one))
        self._position = reached
        if not lacking and not turns and self._again:
            await asyncio.sleep(_LOOK_AGAIN_S)
        return bool(lacking or turns or self._again)

    @property
    def writing(self) -> int:
        """How many summaries are being written, or are to be tried again."""
        return len(self._writing) + sum(key not in self._writing for key in self._again)

    @property
    def failures(self) -> int:
        """How often a summary could not be recorded."""
        return self._writing.failures

    @property
    def failing(self) -> bool:
        """Whether the ledger did not take a summary that is there."""
        return any(one.outcome is not None for one in self._again.values())

    @property
    def degraded(self) -> bool:
        """Whether some turns could not be summarised for a reason that nobody foresaw; they are tried again."""
        return bool(self._again)

    def waiting(self) -> int:
        """Count the turns that wait for a summary, those being written included. Reads the ledger."""
        return self._ledger.reader.count_turns_without_summary(self._position) + self.writing

    def _slots(self) -> int:
        """Return how many summaries may be written at a time now."""
        least, most = self._settings.summary_concurrency, self._settings.summary_concurrency_max
        if least >= most:
            return least
        enough = (most - least) * _WAITING_PER_SLOT
        waiting = self._ledger.reader.count_turns_without_summary(self._position, enough)
        return least + waiting // _WAITING_PER_SLOT

    def _due(self) -> list[_Lacking]:
        now_s = asyncio.get_running_loop().time()
        return [one for key, one in self._again.items() if one.due_s <= now_s and key not in self._writing]

    async def close(self) -> None:
        """Cancel the summaries being written; the next start tries them again."""
        await self._writing.close()

    async def _summarise(self, lacking: _Lacking) -> None:
        """Write a summary and record it; where that fails, note it to be tried again."""
        turn, outcome = lacking.turn, lacking.outcome
        try:
            if not lacking.failures or await in_background(self._still_lacks, turn):
                if outcome is None:
                    outcome = await self._outcome(turn)
                await self._record(turn, outcome)
            self._again.pop(turn.event_id, None)
        except Exception:
            pause_s = min(_AGAIN_FIRST_S * 2.0 ** min(lacking.failures, 10), _BACKOFF_MAX_S)
            due_s = asyncio.get_running_loop().time() + pause_s
            self._again[turn.event_id] = _Lacking(turn, outcome, lacking.failures + 1, due_s)
            raise  # logged and counted there

    def _still_lacks(self, turn: Event) -> bool:
        """Tell whether a turn still lacks a summary: meanwhile a person may have written one, or erased the turn."""
        turns, _ = self._ledger.reader.turns_without_summary(turn.position - 1, 1)
        return [lacks.event_id for lacks in turns] == [turn.event_id]

    async def _record(self, turn: Event, outcome: Payload) -> None:
        new = NewEvent(self._ledger.clock.new_id(), outcome, turn.correlation_id, turn.event_id)
        try:
            append = self._ledger.append(turn.stream, lambda _head: [new], builds_on=turn.event_id)
            await asyncio.wrap_future(append)
        except MemoryErased:
            log.info("no summary for turn %s: it has been erased", turn.correlation_id)

    async def _outcome(self, event: Event) -> Payload:
        """Ask for a summary, again where that fails; return it, or that there is none."""
        turn = event.payload
        assert isinstance(turn, TurnRecorded)
        attempts = 0
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
                    summary = self._summary_in(completion)
            return SummaryRecorded(
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
            return SummaryFailed(
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

    async def _request(self, turn: TurnRecorded) -> tuple[SummaryAsked, list[Message]]:
        """Return how much of a turn is shown to the model, and the messages.

        The exchange alone: what was recalled for it is a memory already and must not be stored again. Of texts too long
        for the model, the beginning says most.
        """
        room = self._context_tokens() - _SUMMARY_TOKENS_MAX - _TEMPLATE_TOKENS - estimate_tokens(self._prompt.text)
        chars = len(turn.user) + len(turn.assistant)
        question, answer = await with_texts(
            chars, lambda: (beginning(turn.user, room // 2), beginning(turn.assistant, room // 2))
        )
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

    def _summary_in(self, completion: Completion) -> str:
        """Return the summary in an answer; raise :class:`UpstreamError` where there is none."""
        summary = visible(completion.text)
        if not summary:
            error = self._chat.names.said_nothing(
                completion.finish_reason,
                reasoned=bool(completion.reasoning or completion.text.strip()),
                tokens_max=_SUMMARY_TOKENS_MAX,
                extra_setting="DECISION_EXTRA_BODY",
            )
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

"""One chat turn, from request to durable event.

Read :meth:`TurnService.answer` top to bottom and you know the product.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import anyio

from domain.client_messages import WindowTurn, text_of
from domain.errors import ContextExceeded, EmbeddingError, IndexUnavailable, UpstreamError
from domain.events import GateDecided, JsonObject, PromptReport, RerankDecided, RetrievalRecorded
from domain.identity import DEFAULT_USER
from domain.ledger import Ledger
from domain.ledger_reader import turn_chars_max
from domain.neighbors import Neighbor, neighbors_of, placed
from domain.prompt import (
    LAYOUT,
    NOTES_LAYOUT,
    PREFIX_LAYOUT,
    FittedWindow,
    beginning_with_a_block,
    build_prompt,
    fit_window,
    fixed_tokens,
    messages_hash,
)
from domain.prompts import Prompts
from domain.reasoning import visible
from domain.retrieval import Candidate, exclude_window
from domain.temporal.time_range import time_range
from projections.search.memory_search import MemorySearch
from service.chat_answers import Delta
from service.chat_client import ChatClient
from service.context_limit import ContextLimit
from service.decider import Decider, Gated, Reranked
from service.knobs import Knobs
from service.long_texts import with_texts
from service.placing import Continued, Place, place_of
from service.prompt_prefixes import PromptPrefixes
from service.reranker import Reranker
from service.settings import ServiceSettings
from service.token_counter import Counting, TokenCounter
from service.turn_recorder import (
    DISCONNECTED,
    STOPPED,
    AnswerSoFar,
    Finished,
    ShownPrompt,
    TurnLog,
    TurnRecorder,
    TurnRequest,
    failure_of,
)

log = logging.getLogger(__name__)

_LAYOUTS = {"turns": LAYOUT, "notes": NOTES_LAYOUT, "prefix_cache": PREFIX_LAYOUT}
_SURELY_TOO_LONG = 2.0
"""An estimate of tokens may be too high, but not by that factor."""


@dataclass(frozen=True, slots=True)
class Retrieved:
    """The memories that may come in, best first, and the event that says how they were found.

    ``notice`` is what a person should be told of a search that went well.
    """

    candidates: list[Candidate]
    event: RetrievalRecorded
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class Recalled:
    """What comes into the prompt from persistent memory, and how that was decided."""

    retrieval: RetrievalRecorded
    gate: GateDecided
    reranked: Reranked
    neighbors: list[Neighbor]
    notice: str | None = None


@dataclass(frozen=True, slots=True)
class PassedOn:
    """The chat model has begun to answer a request that has nothing to do with memory."""

    answer_id: str
    created: datetime
    model: str


@dataclass(frozen=True, slots=True)
class Started:
    """The chat model has begun to answer; this is what it was shown, and what the operator should know of memory."""

    answer_id: str
    created: datetime
    model: str
    replayed: list[Candidate]
    summarised: list[Candidate]
    neighbors: list[Neighbor]
    window: list[str]
    retrieval: RetrievalRecorded
    gate: GateDecided
    rerank: RerankDecided
    prompt: PromptReport
    notice: str | None


class TurnService:
    """Answers requests with memory and records every turn. All state is in the ledger."""

    def __init__(
        self,
        ledger: Ledger,
        memory: MemorySearch,
        chat: ChatClient,
        prompts: Prompts,
        settings: ServiceSettings,
        reranker: Reranker | None = None,
    ) -> None:
        self._ledger = ledger
        self._memory = memory
        self._chat = chat
        self._prompts = prompts
        self._settings = settings
        self._recorder = TurnRecorder(ledger, chat.model)
        self._prefixes = PromptPrefixes()
        self.tokens = TokenCounter(chat)
        self.context = ContextLimit(settings)
        self._decider = Decider(chat, prompts, settings, reranker, self.context.refused)

    async def place(self, request: TurnRequest) -> Place:
        """Return where in the ledger a request goes on. Raises :class:`LedgerError`."""
        find = partial(
            place_of,
            self._ledger,
            request.user_id,
            request.conversation_id,
            request.history,
            request.asked,
            new_each_time=self._settings.conversation_without_id == "new",
            plain=request.plain,
            resends=request.resends,
            imports=bool(self.effective(request.knobs, request.user_id).memory_import),
            instead_of=request.instead_of,
            previous=request.previous,
        )
        return await self._memory.in_search_thread(find)

    async def pass_on(self, request: TurnRequest) -> AsyncGenerator[PassedOn | Delta | Finished, None]:
        """Let the chat model answer what was sent as it was sent; nothing is recalled, nothing recorded.

        Raises :class:`UpstreamError`.
        """
        clock = self._ledger.clock
        answer = AnswerSoFar()
        async with self._chat.stream(request.messages, self._parameters(request)) as answering:
            began = False
            async for delta in answering.deltas:
                if not began:
                    began = True
                    yield PassedOn(f"chatcmpl-{clock.new_id().replace('-', '')}", clock.now(), self._chat.model)
                answer.add(delta)
                yield delta
        yield Finished(answer.finish_reason or "", answer.usage, request.conversation_id or "")

    async def answer(self, request: TurnRequest, place: Place) -> AsyncGenerator[Started | Delta | Finished, None]:
        """Answer one request: first :class:`Started`, then the pieces of the answer, last :class:`Finished`.

        Raises :class:`UpstreamError` when the chat model gives no whole answer, or an empty one (a ``TurnFailed`` event
        then holds the question), and :class:`LedgerError` when the turn could not be recorded. Closing the iterator
        early, or cancelling the task (with :data:`DISCONNECTED` where the client is gone), records what was generated
        so far.
        """
        turn = TurnLog(request, place, self.effective(request.knobs, request.user_id), self._ledger)
        answer = AnswerSoFar()
        try:
            window = await self._window(turn)
            recalled = await self._recalled(turn, window.shown)
            began = time.perf_counter()
            async with aclosing(self._said(turn, window, recalled)) as said:
                async for delta in said:
                    if "first_token" not in turn.timings_ms:
                        turn.mark("first_token", began)
                        yield self._started(turn, recalled)
                    answer.add(delta)
                    yield delta
            turn.mark("answer", began)
            self._check_said(answer, request.max_tokens)
        except Exception as error:
            await self._recorder.failed(turn, answer, failure_of(error))
            raise
        except (asyncio.CancelledError, GeneratorExit) as error:
            # The client is gone, and with it every reason to go on; what was said so far still happened.
            gone = isinstance(error, GeneratorExit) or DISCONNECTED in error.args
            with anyio.CancelScope(shield=True):
                await self._recorder.interrupted(turn, answer, DISCONNECTED if gone else STOPPED)
            raise
        if request.offers_tools and answer.tool_calls:
            yield await self._recorder.called_tools(turn, answer, answer.finish_reason or "")
        else:
            yield await self._recorder.finished(turn, answer, answer.finish_reason or "")

    @property
    def decision_troubles(self) -> dict[str, str]:
        """Which of gate and rerank cannot be had, and why."""
        return self._decider.troubles

    def effective(self, knobs: Knobs, user_id: str = DEFAULT_USER) -> Knobs:
        """Return the knobs with the operator's default where a request of this user did not say."""
        defaults = {
            "memory_import": self._settings.memory_import_default,
            "neighbor_turns": self._settings.neighbor_turns_default,
            "timezone": self._settings.timezone_of(user_id),
            "use_rerank": self._settings.use_rerank_default and self._settings.rerank_strategy != "none",
        }
        return knobs.model_copy(
            update={name: default for name, default in defaults.items() if getattr(knobs, name) is None}
        )

    async def _window(self, turn: TurnLog) -> FittedWindow:
        """Tell which turns before the question are shown for certain: the client's own history, or the newest turns.

        A history is cut to the newest turns only where the request says to how many.
        """
        limit = turn.knobs.recent_turns
        window: list[WindowTurn]
        if turn.place.history is not None:
            asks_for_fewer = "recent_turns" in turn.request.knobs.model_fields_set
            first = max(len(turn.place.history) - limit, 0) if asks_for_fewer else 0
            window = list(turn.place.history[first:])
        else:
            block = self._block(turn)
            read = partial(self._ledger.reader.recent_turns, chars_max=turn_chars_max(limit))
            with turn.timed("window"):
                newest = await self._memory.in_search_thread(read, turn.stream, limit if block is None else 2 * limit)
            newest = [memory for memory in newest if memory.memory_id not in turn.left_behind]
            window = [*(newest if block is None else beginning_with_a_block(newest, block))]
        turn.builds_on = next((told.memory_id for told in window if told.memory_id), None)
        return await self._fitted(turn, window)

    async def _fitted(self, turn: TurnLog, window: list[WindowTurn]) -> FittedWindow:
        """Tell what is shown of the window. Raises :class:`ContextExceeded` where the question is surely too long."""
        return await with_texts(_chars(turn, window), lambda: self._fit(turn, window))

    def _fit(self, turn: TurnLog, window: list[WindowTurn]) -> FittedWindow:
        request, count = turn.request, self.tokens.counting()
        system = self._prompts.longest_chat_for(request.question).text
        fixed = fixed_tokens(system, request.client_system, request.asked, turn.asked_at, count)
        if self.context.known and fixed > _SURELY_TOO_LONG * self.context.tokens:
            raise ContextExceeded.of_question(fixed, self.context.tokens)
        return fit_window(window, turn.asked_at, self._budget(request) - fixed, count, self._block(turn))

    def _block(self, turn: TurnLog) -> int | None:
        """Return by how many turns at once the window is cut at its beginning; None for one by one."""
        return max(turn.knobs.recent_turns, 1) if self._settings.replay_as == "prefix_cache" else None

    async def _recalled(self, turn: TurnLog, window: list[WindowTurn]) -> Recalled:
        """Decide what comes in from memory; an exchange that goes on keeps what was decided when it began."""
        if turn.place.continued is not None:
            return _as_before(turn.place.continued)
        retrieved = await self._retrieve(turn, window)
        gated = await self._gate(turn, retrieved)
        reranked = await self._rerank(turn, gated)
        neighbors = await self._neighbors(turn, window, reranked.replay)
        return Recalled(retrieved.event, gated.event, reranked, neighbors, retrieved.notice)

    async def _retrieve(self, turn: TurnLog, window: list[WindowTurn]) -> Retrieved:
        """Search persistent memory. Where it cannot be searched, the turn goes on without, and the event says why."""
        with turn.timed("retrieve"):
            retrieved = await self._search(turn, window)
        turn.add(retrieved.event)
        if turn.builds_on is None and retrieved.event.candidates:
            turn.builds_on = retrieved.event.candidates[0].memory_id
        if retrieved.event.outcome == "degraded":
            searched = f"by {retrieved.event.mode} search only" if retrieved.event.mode else "without memory"
            # Why is in the event: it may quote what the endpoint said.
            log.warning("turn %s is answered %s: %s", turn.correlation_id, searched, retrieved.event.degraded_code)
        return retrieved

    async def _search(self, turn: TurnLog, window: list[WindowTurn]) -> Retrieved:
        request, knobs = turn.request, turn.knobs
        asked = partial(
            RetrievalRecorded,
            query=turn.query,
            knobs=knobs.model_dump(),
            window=tuple(memory.memory_id for memory in window if memory.memory_id),
        )
        if request.memory == "write":
            return Retrieved([], asked(outcome="skipped", degraded_reason="the request wants nothing recalled"))
        if knobs.candidate_n == 0:
            return Retrieved([], asked(outcome="skipped", degraded_reason="candidate_n is 0"))
        wanted_time = time_range(turn.query, turn.asked_at)
        try:
            found = await self._memory.search(
                request.user_id,
                turn.query,
                # Every turn of the window may be among the nearest, so that many more are asked for.
                knobs.candidate_n + max(knobs.recent_turns, len(window)),
                knobs.retrieval,
                wanted_time,
            )
        except (EmbeddingError, IndexUnavailable) as error:
            return Retrieved([], asked(outcome="degraded", degraded_code=error.kind, degraded_reason=error.told))
        memories = [candidate.memory for candidate in found.candidates]
        candidates, excluded = await with_texts(
            _chars(turn, [*window, *memories]),
            lambda: _compared(found.candidates, window, knobs.candidate_n, turn.left_behind),
        )
        proposed = sorted([*candidates, *excluded], key=lambda candidate: candidate.rank)
        event = asked(
            outcome="ok" if found.trouble is None else "degraded",
            degraded_code=found.trouble.kind if found.trouble is not None else None,
            degraded_reason=found.trouble.told if found.trouble is not None else None,
            mode=found.mode,
            fusion=found.fusion.as_event() if found.fusion is not None else None,
            time_range=wanted_time.as_event() if wanted_time is not None else None,
            embedding_model=found.space.model if found.space is not None else None,
            dimensions=found.space.dimensions if found.space is not None else None,
            index_position=found.position,
            candidates=tuple(candidate.as_event() for candidate in proposed),
            embed_ms=round(found.embed_ms, 3),
            search_ms=round(found.search_ms, 3),
            lexical_ms=round(found.lexical_ms, 3),
        )
        return Retrieved(candidates, event, found.notice)

    async def _gate(self, turn: TurnLog, retrieved: Retrieved) -> Gated:
        """Keep or drop each candidate."""
        with turn.timed("gate"):
            gated = await self._decider.gate(
                turn.query,
                retrieved.candidates,
                turn.knobs.gate_keep_max,
                asked_at=turn.asked_at,
                mode=retrieved.event.mode,
                use_gate=turn.knobs.use_gate,
                context_tokens=self.context.tokens,
            )
        turn.add(gated.event)
        return gated

    async def _rerank(self, turn: TurnLog, gated: Gated) -> Reranked:
        """Choose which of the kept candidates are replayed."""
        with turn.timed("rerank"):
            reranked = await self._decider.rerank(
                turn.query,
                gated.kept,
                turn.knobs.retrieve_k,
                asked_at=turn.asked_at,
                use_rerank=bool(turn.knobs.use_rerank),
                context_tokens=self.context.tokens,
            )
        turn.add(reranked.event)
        return reranked

    async def _neighbors(self, turn: TurnLog, window: list[WindowTurn], replay: list[Candidate]) -> list[Neighbor]:
        """Read the turns beside the replayed ones, and choose which of them come along."""
        reach = turn.knobs.neighbor_turns or 0
        if not replay or not reach:
            return []
        replayed = [candidate.memory for candidate in replay]
        positions = [memory.position for memory in replayed]
        with turn.timed("neighbours"):
            read = partial(self._ledger.reader.neighbors, chars_max=turn_chars_max(2 * reach * len(positions)))
            around = await self._memory.in_search_thread(read, turn.stream.user_id, positions, reach)
            around = [memory for memory in around if memory.memory_id not in turn.left_behind]
            return neighbors_of(replayed, around, window, reach)

    async def _said(self, turn: TurnLog, window: FittedWindow, recalled: Recalled) -> AsyncGenerator[Delta]:
        """Ask the chat model; yield the pieces of its answer.

        Where the endpoint says that the prompt is too long, it is asked once more with a shorter one.
        """
        for last_try in (False, True):
            prompt = turn.prompt = await self._prompt(turn, window, recalled)
            try:
                async with self._chat.stream(
                    prompt.built.messages, self._parameters(turn.request), turn.called
                ) as answering:
                    turn.called(answering.call)
                    async for delta in answering.deltas:
                        yield delta
                break
            except UpstreamError as error:
                turn.called(error.call)
                if not isinstance(error, ContextExceeded):
                    raise
                self.context.refused(error.limit_tokens)
                if last_try or not prompt.built.can_be_shorter:
                    raise
            window = await self._fitted(turn, [*window.older, *window.shown])

    def _check_said(self, answer: AnswerSoFar, max_tokens: int | None) -> None:
        """Raise :class:`UpstreamError` for an empty answer, which would be an empty memory. A tool call is no such."""
        if not visible(answer.text) and not answer.tool_calls:
            raise self._chat.names.said_nothing(
                answer.finish_reason,
                reasoned=answer.reasoned or bool(answer.text.strip()),
                tokens_max=max_tokens,
                extra_setting="LLM_EXTRA_BODY",
            )

    async def _prompt(self, turn: TurnLog, window: FittedWindow, recalled: Recalled) -> ShownPrompt:
        """Put the prompt together from what fits the budget, and say what did not."""
        budget = self._budget(turn.request)
        counting = self.tokens.counting()
        reranked = recalled.reranked
        memories: list[WindowTurn] = [candidate.memory for candidate in (*reranked.replay, *reranked.summarised)]
        memories += [*window.shown, *window.older, *(neighbor.memory for neighbor in recalled.neighbors)]
        shown = await with_texts(
            _chars(turn, memories), lambda: self._put_together(turn, window, recalled, budget, counting)
        )
        self.tokens.learn(counting, budget)
        return shown

    def _put_together(
        self,
        turn: TurnLog,
        window: FittedWindow,
        recalled: Recalled,
        budget: int,
        counting: Counting,
    ) -> ShownPrompt:
        reranked = recalled.reranked
        system = self._prompts.chat_for(turn.request.question, recalled=bool(reranked.replay or reranked.summarised))
        layout = _LAYOUTS[self._settings.replay_as]
        built = build_prompt(
            system=system.text,
            client_system=turn.request.client_system,
            window=window,
            replay=[candidate.memory for candidate in reranked.replay],
            summarised=[candidate.memory for candidate in reranked.summarised],
            neighbors=recalled.neighbors,
            asked=turn.request.asked,
            asked_at=turn.asked_at,
            budget_tokens=budget,
            count=counting,
            layout=layout,
        )
        report = PromptReport(
            layout=layout,
            timezone=str(turn.asked_at.tzinfo),
            system_version=system.version,
            budget_tokens=budget,
            tokens=built.tokens,
            counted=counting.kind,
            left_out=built.left_out,
            shares=built.shares,
            shortened=built.shortened,
            shared_tokens=self._prefixes.shared(turn.stream, built.messages, built.tokens),
            messages_hash=messages_hash(built.messages),
        )
        return ShownPrompt(built, report)

    def _parameters(self, request: TurnRequest) -> JsonObject:
        """Return what goes to the chat model beside the messages."""
        if not self._settings.cache_salt:
            return request.parameters
        # Whoever could guess it could find out by the time an answer takes what others have asked.
        secret = self._settings.openai_api_key.get_secret_value().encode()
        salt = hmac.new(secret, request.user_id.encode(), hashlib.sha256).hexdigest()
        return {"cache_salt": salt, **request.parameters}

    def _budget(self, request: TurnRequest) -> int:
        if self._settings.prompt_budget_tokens is not None:
            return min(self._settings.prompt_budget_tokens, self.context.tokens)
        takes = self.context.tokens
        answer = request.max_tokens or min(self._settings.answer_reserve_tokens, takes // 4)
        return max(takes - answer, takes // 4)

    def _started(self, turn: TurnLog, recalled: Recalled) -> Started:
        prompt, reranked = turn.prompt, recalled.reranked
        assert prompt is not None, "an answer has begun, so the model was shown something"
        replayed = {memory.memory_id for memory in prompt.built.replayed}
        summarised = {memory.memory_id for memory in prompt.built.summarised}
        return Started(
            answer_id=turn.answer_id,
            created=turn.ts,
            model=self._chat.model,
            replayed=[candidate for candidate in reranked.replay if candidate.memory.memory_id in replayed],
            summarised=[
                candidate
                for candidate in (*reranked.replay, *reranked.summarised)
                if candidate.memory.memory_id in summarised
            ],
            neighbors=prompt.built.neighbors,
            window=[memory.memory_id for memory in prompt.built.window if memory.memory_id],
            retrieval=recalled.retrieval,
            gate=recalled.gate,
            rerank=reranked.event,
            prompt=prompt.report,
            notice=recalled.notice,
        )


def _as_before(continued: Continued) -> Recalled:
    """Return what was recalled when an exchange began that now goes on."""
    memories, called = continued.memories, continued.called
    found = {candidate.memory_id: candidate for candidate in continued.retrieval.candidates}

    def candidates(ids: Iterable[str]) -> list[Candidate]:
        return [Candidate.found_before(found[each], memories[each]) for each in ids if each in found]

    replay = candidates(called.replayed)
    neighbors = placed([memories[each] for each in called.neighbours], [candidate.memory for candidate in replay])
    reranked = Reranked(replay, candidates(called.summarised), continued.rerank)
    return Recalled(continued.retrieval, continued.gate, reranked, neighbors)


def _chars(turn: TurnLog, memories: Iterable[WindowTurn]) -> int:
    """Return how long the texts of a turn are together."""
    own = sum(len(text_of(message)) for message in turn.request.asked) + len(turn.request.client_system)
    return own + sum(len(memory.user) + len(memory.assistant) for memory in memories)


def _compared(
    found: list[Candidate], window: list[WindowTurn], limit: int, left_behind: frozenset[str]
) -> tuple[list[Candidate], list[Candidate]]:
    """Exclude what the window shows, and put each candidate on one line, as the decisions will read it."""
    candidates, excluded = exclude_window(found, window, limit, left_behind)
    for candidate in candidates:
        _ = candidate.memory.line
    return candidates, excluded

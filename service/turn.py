"""One chat turn, from request to durable event.

Read :meth:`TurnService.answer` top to bottom and you know the product.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial

import anyio

from domain.errors import EmbeddingError, IndexUnavailable, UpstreamError
from domain.events import (
    GateDecided,
    JsonObject,
    PromptReport,
    RerankDecided,
    RetrievalRecorded,
)
from domain.ledger import Ledger
from domain.memory import Memory
from domain.neighbors import Neighbor, neighbors_of
from domain.prompt import LAYOUT, build_prompt, messages_hash, texts_to_count
from domain.prompts import Prompts
from domain.retrieval import Candidate, exclude_window
from domain.temporal.time_range import TimeRange, time_range
from projections.search.memory_search import MemorySearch, SearchResult
from service.chat_client import ChatClient, Delta
from service.decider import Decider
from service.knobs import Knobs
from service.meanwhile import begun, meanwhile
from service.reranker import Reranker
from service.settings import ServiceSettings
from service.token_counter import TokenCounter
from service.turn_recorder import DISCONNECTED, INTERNAL_ERROR, STOPPED, Draft, Finished, TurnRecorder, TurnRequest

log = logging.getLogger(__name__)

_BY = {"lexical": "words", "dense": "meaning"}
DEFAULT_CONTEXT_TOKENS = 4096
"""What a model takes when nobody says: the smallest context that self-hosted chat models commonly run with."""


def context_tokens(max_model_len: int | None, settings: ServiceSettings) -> int:
    """Return what a chat model takes in all, question and answer together, as far as anybody knows."""
    return max_model_len or settings.prompt_budget_tokens or DEFAULT_CONTEXT_TOKENS


@dataclass(frozen=True, slots=True)
class Started:
    """The chat model has begun to answer; this is what it was shown, and what the operator should know of memory."""

    correlation_id: str
    created: datetime
    model: str
    replay: list[Candidate]
    notes: list[Candidate]
    neighbors: list[Neighbor]
    retrieval: RetrievalRecorded
    gate: GateDecided
    rerank: RerankDecided
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
        self._decider = Decider(chat, prompts, settings, reranker)
        self.tokens = TokenCounter(chat)
        self.max_model_len: int | None = None
        """What the chat endpoint says its model takes, once it has said so."""

    async def answer(self, request: TurnRequest) -> AsyncGenerator[Started | Delta | Finished, None]:
        """Answer one request: first :class:`Started`, then the pieces of the answer, last :class:`Finished`.

        Raises :class:`UpstreamError` when the chat model gives no whole answer (a ``TurnFailed`` event then holds the
        question), and :class:`LedgerError` when the turn could not be recorded. Closing the iterator early, or
        cancelling the task (with :data:`DISCONNECTED` where the client is gone), records what was generated so far.
        """
        clock = self._ledger.clock
        correlation_id = f"chatcmpl-{clock.new_id().replace('-', '')}"
        draft = Draft(request, self.effective(request.knobs), correlation_id, clock.now(), time.perf_counter())
        try:
            candidates = await self._retrieve(draft)
            async with meanwhile(lambda: self._prepare(draft, candidates)):
                kept = await self._gate(draft, candidates)
            around = self._around(draft, kept)
            async with meanwhile(lambda: self._prepare(draft, candidates)):
                replay, notes = await self._rerank(draft, kept)
            self._count_ahead(draft, candidates)
            neighbors = await self._neighbors(draft, replay, around)
            messages = self._build_prompt(draft, replay, notes, neighbors)
            started = time.perf_counter()
            async with (
                meanwhile(lambda: self._recorder.prepare(draft)),
                self._chat.stream(messages, request.parameters) as deltas,
            ):
                async for delta in deltas:
                    if "first_token" not in draft.timings_ms:
                        draft.mark("first_token", started)
                        # By now as a rule: what cannot be recorded must come to light while nothing was shown.
                        self._recorder.prepare(draft)
                        yield self._started(draft, replay, notes)
                    draft.text += delta.text
                    draft.finish_reason = delta.finish_reason or draft.finish_reason
                    draft.usage = delta.usage or draft.usage
                    yield delta
            draft.mark("answer", started)
        except UpstreamError as error:
            await self._recorder.failed(draft, str(error), error.code, error.status)
            raise
        except Exception:
            await self._recorder.failed(draft, "an internal error, see the log", INTERNAL_ERROR, 500)
            raise
        except (asyncio.CancelledError, GeneratorExit) as error:
            # The client is gone, and with it every reason to go on; what was said so far still happened.
            gone = isinstance(error, GeneratorExit) or DISCONNECTED in error.args
            with anyio.CancelScope(shield=True):
                await self._recorder.interrupted(draft, DISCONNECTED if gone else STOPPED)
            raise
        yield await self._recorder.finished(draft, draft.finish_reason)

    @property
    def context_tokens(self) -> int:
        """What the chat model takes in all: what its endpoint says, else a safe default."""
        return context_tokens(self.max_model_len, self._settings)

    def effective(self, knobs: Knobs) -> Knobs:
        """Return the knobs with the operator's default where a request did not say."""
        defaults = {
            "neighbor_turns": self._settings.neighbor_turns_default,
            "use_rerank": self._settings.use_rerank_default and self._settings.rerank_strategy != "none",
        }
        return knobs.model_copy(
            update={name: default for name, default in defaults.items() if getattr(knobs, name) is None}
        )

    async def _read_window(self, draft: Draft) -> None:
        started = time.perf_counter()
        draft.window = await asyncio.to_thread(
            self._ledger.reader.recent_turns, draft.request.stream, draft.knobs.recent_turns
        )
        draft.mark("window", started)

    async def _retrieve(self, draft: Draft) -> list[Candidate]:
        """Read the window and search persistent memory; say what could not be searched, and go on with the rest."""
        started = time.perf_counter()
        request, knobs = draft.request, draft.knobs
        wanted_time = time_range(request.question, draft.ts)
        found: SearchResult | None = None
        trouble: EmbeddingError | IndexUnavailable | None = None
        window_read = asyncio.create_task(self._read_window(draft))
        try:
            if knobs.candidate_n > 0:
                # Every turn of the window may be among the nearest, so that many more are asked for.
                wanted = knobs.candidate_n + knobs.recent_turns
                found = await self._memory.search(
                    request.stream.user_id, request.question, wanted, knobs.retrieval, wanted_time
                )
                trouble = found.trouble
                draft.notice = found.notice
        except (EmbeddingError, IndexUnavailable) as error:
            trouble = error
        finally:
            await window_read
        draft.mark("retrieve", started)
        if trouble is not None:
            what = f"with memory searched by {_BY[found.mode]} only" if found is not None else "without memory"
            log.warning("turn %s is answered %s: %s", draft.correlation_id, what, trouble)
        recorded = partial(
            RetrievalRecorded,
            query=request.question,
            knobs=knobs.model_dump(),
            window=tuple(turn.memory_id for turn in draft.window),
        )
        if trouble is not None:
            recorded = partial(recorded, outcome="degraded", degraded_code=trouble.kind, degraded_reason=str(trouble))
            if found is None:
                draft.retrieval = cache(recorded)
                return []
        elif found is None:
            draft.retrieval = cache(partial(recorded, outcome="skipped", degraded_reason="candidate_n is 0"))
            return []
        else:
            recorded = partial(recorded, outcome="ok")
        candidates, excluded = exclude_window(found.candidates, draft.window, knobs.candidate_n)
        draft.mode = found.mode
        proposed = sorted([*candidates, *excluded], key=lambda item: item.rank)
        draft.retrieval = cache(lambda: recorded(**_event_fields(found, wanted_time, proposed)))
        return candidates

    def _prepare(self, draft: Draft, candidates: list[Candidate]) -> None:
        """Do what the prompt and the record of the turn will need, as far as it is known by now."""
        self._count_ahead(draft, candidates)
        self._recorder.prepare(draft)

    def _count_ahead(self, draft: Draft, candidates: list[Candidate]) -> None:
        """Count the tokens of what may come into the prompt, once in a turn; exact counts are fetched if need be."""
        if draft.counted_ahead:
            return
        draft.counted_ahead = True
        request = draft.request
        memories = [candidate.memory for candidate in candidates]
        texts = texts_to_count(
            system=self._prompts.chat.text,
            client_system=request.client_system,
            window=draft.window,
            replay=memories[: draft.knobs.retrieve_k],
            notes=memories,
            question=request.question,
            asked_at=draft.ts,
        )
        self.tokens.prefetch(texts, self._budget(request))

    async def _gate(self, draft: Draft, candidates: list[Candidate]) -> list[Candidate]:
        started = time.perf_counter()
        knobs = draft.knobs
        kept, draft.gate = await self._decider.gate(
            draft.request.question,
            candidates,
            knobs.gate_keep_max,
            asked_at=draft.ts,
            mode=draft.mode,
            use_gate=knobs.use_gate,
            context_tokens=self.context_tokens,
        )
        draft.mark("gate", started)
        return kept

    async def _rerank(self, draft: Draft, kept: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
        started = time.perf_counter()
        knobs = draft.knobs
        replay, notes, draft.rerank = await self._decider.rerank(
            draft.request.question,
            kept,
            knobs.retrieve_k,
            asked_at=draft.ts,
            use_rerank=bool(knobs.use_rerank),
            context_tokens=self.context_tokens,
        )
        draft.mark("rerank", started)
        return replay, notes

    def _around(self, draft: Draft, kept: list[Candidate]) -> asyncio.Future[list[Memory]] | None:
        """Begin to read the turns beside those that may be replayed; None where none is wanted.

        Which are replayed the rerank has yet to say, if it is asked. What is forgotten while it answers still comes
        along once, as a replayed turn does that is forgotten then.
        """
        knobs = draft.knobs
        may_be = kept if knobs.use_rerank else kept[: knobs.retrieve_k]
        if not may_be or not knobs.neighbor_turns:
            return None
        positions = [candidate.memory.position for candidate in may_be]
        user_id = draft.request.stream.user_id
        return begun(partial(self._ledger.reader.neighbors, user_id, positions, knobs.neighbor_turns))

    async def _neighbors(
        self, draft: Draft, replay: list[Candidate], around: asyncio.Future[list[Memory]] | None
    ) -> list[Neighbor]:
        """Choose which of the turns beside the replayed ones come along."""
        started = time.perf_counter()
        reach = draft.knobs.neighbor_turns or 0
        if not replay or around is None:
            return []
        chosen = neighbors_of([candidate.memory for candidate in replay], await around, draft.window, reach)
        draft.mark("neighbours", started)
        return chosen

    def _build_prompt(
        self, draft: Draft, replay: list[Candidate], notes: list[Candidate], neighbors: list[Neighbor]
    ) -> list[dict[str, str]]:
        budget = self._budget(draft.request)
        counting = self.tokens.counting()
        prompt = build_prompt(
            system=self._prompts.chat.text,
            client_system=draft.request.client_system,
            window=draft.window,
            replay=[candidate.memory for candidate in replay],
            notes=[candidate.memory for candidate in notes],
            neighbors=neighbors,
            question=draft.request.question,
            asked_at=draft.ts,
            budget_tokens=budget,
            count=counting,
        )
        counted = counting.kind
        draft.prompt = prompt
        draft.report = cache(
            lambda: PromptReport(
                layout=LAYOUT,
                system_version=self._prompts.chat.version,
                budget_tokens=budget,
                tokens=prompt.tokens,
                counted=counted,
                left_out=prompt.left_out,
                messages_hash=messages_hash(prompt.messages),
            )
        )
        return prompt.messages

    def _budget(self, request: TurnRequest) -> int:
        if self._settings.prompt_budget_tokens is not None:
            return self._settings.prompt_budget_tokens
        takes = self.context_tokens
        answer = request.max_tokens or min(self._settings.answer_reserve_tokens, takes // 4)
        return max(takes - answer, takes // 4)

    def _started(self, draft: Draft, replay: list[Candidate], notes: list[Candidate]) -> Started:
        assert draft.prompt is not None
        assert draft.retrieval is not None
        assert draft.gate is not None
        assert draft.rerank is not None
        replayed = {memory.memory_id for memory in draft.prompt.replayed}
        summarised = {memory.memory_id for memory in draft.prompt.summarised}
        return Started(
            correlation_id=draft.correlation_id,
            created=draft.ts,
            model=self._chat.model,
            replay=[candidate for candidate in replay if candidate.memory.memory_id in replayed],
            notes=[candidate for candidate in notes if candidate.memory.memory_id in summarised],
            neighbors=draft.prompt.neighbors,
            retrieval=draft.retrieval(),
            gate=draft.gate(),
            rerank=draft.rerank(),
            notice=draft.notice,
        )


def _event_fields(found: SearchResult, wanted: TimeRange | None, proposed: list[Candidate]) -> JsonObject:
    """Return what the retrieval's event says of a search: ``proposed`` are its candidates, excluded ones too."""
    return {
        "mode": found.mode,
        "fusion": found.fusion.as_event() if found.fusion is not None else None,
        "time_range": wanted.as_event() if wanted is not None else None,
        "embedding_model": found.space.model if found.space is not None else None,
        "dimensions": found.space.dimensions if found.space is not None else None,
        "index_position": found.position,
        "candidates": tuple(candidate.as_event() for candidate in proposed),
        "embed_ms": round(found.embed_ms, 3),
        "search_ms": round(found.search_ms, 3),
        "lexical_ms": round(found.lexical_ms, 3),
    }

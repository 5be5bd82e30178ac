"""The gate and the rerank: which candidates come in, and which of those are replayed.

Each always decides, and returns the event that records it: where the chat model, or a rerank endpoint, gives nothing
that can be read, the order of the candidates stands in, and the event says so with the raw answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from domain.decisions import (
    NOT_ASKED,
    QUOTED_LAYOUT,
    Answer,
    fitting_lines,
    full_order,
    gate_format,
    gate_messages,
    read_answer,
    rerank_format,
    rerank_messages,
    staying,
    verdicts,
)
from domain.errors import ContextExceeded, UpstreamError
from domain.events import (
    DecisionAsked,
    GateDecided,
    JsonObject,
    Outcome,
    RerankDecided,
    RetrievalMode,
    Usage,
)
from domain.excerpt import excerpt
from domain.memory import Memory
from domain.model_call import ModelCall
from domain.prompts import Prompts
from domain.rerank_scores import LINE_CHARS_MAX, QUESTION_CHARS_MAX, read_scores
from domain.retrieval import Candidate, split
from domain.score_gate import rule_for
from domain.tokens import KeptEstimates, estimate_tokens
from service.chat_client import ChatClient
from service.decision_streak import DecisionStreak
from service.reranker import Reranker
from service.settings import ServiceSettings

_TOKENS_PER_NUMBER = 6
_TOKENS_PER_REASON = 40
_TOKENS_BASE = 64
_TEMPLATE_TOKENS = 80
"""The fixed words around question and candidates, and what a chat template adds."""
_QUESTION_SHARE_MAX = 1 / 4


@dataclass(frozen=True, slots=True)
class Gated:
    """The candidates that the gate kept, in their given order, best first, and its decision."""

    kept: list[Candidate]
    event: GateDecided


@dataclass(frozen=True, slots=True)
class Reranked:
    """The memories to replay and those to show as summaries, each best first, and the decision."""

    replay: list[Candidate]
    summarised: list[Candidate]
    event: RerankDecided


@dataclass(frozen=True, slots=True)
class _Reply:
    """What a decision call gave: an answer that could be read, or a note that says why there is none."""

    answer: Answer | None = None
    note: str | None = None
    raw: str | None = None
    usage: Usage | None = None
    scores: tuple[float, ...] = ()
    reason: str | None = None
    """Why there is no answer, in words that may be logged: the note may quote what the endpoint said."""
    asked: DecisionAsked | None = None
    call: ModelCall | None = None


class Decider:
    """Decides about candidates with the configured strategy and prompts."""

    def __init__(
        self,
        chat: ChatClient,
        prompts: Prompts,
        settings: ServiceSettings,
        reranker: Reranker | None = None,
        on_exceeded: Callable[[int | None], None] | None = None,
    ) -> None:
        """``reranker`` is needed where the settings say that an endpoint reranks.

        ``on_exceeded`` is told when the chat model takes less than a decision's prompt has, with the maximum it named.
        """
        self._on_exceeded = on_exceeded
        self._chat = chat
        self._reranker = reranker
        self._prompts = prompts
        self._settings = settings
        self._line_tokens = KeptEstimates()
        self._streaks = {
            "gate": DecisionStreak("gate", "every candidate is kept"),
            "rerank": DecisionStreak("rerank", "the order of the search is used"),
        }

    @property
    def troubles(self) -> dict[str, str]:
        """The stages that fail again and again, and why."""
        return {stage: streak.trouble for stage, streak in self._streaks.items() if streak.trouble is not None}

    async def gate(
        self,
        question: str,
        candidates: Sequence[Candidate],
        keep_max: int,
        *,
        asked_at: datetime,
        mode: RetrievalMode | None,
        use_gate: bool,
        context_tokens: int,
    ) -> Gated:
        """Keep or drop each candidate.

        ``mode`` is how they were found, and so what their scores mean; None where nothing was searched.
        ``context_tokens`` is what the chat model takes, question and answer together.
        """
        started = time.perf_counter()
        strategy = self._settings.gate if use_gate else "off"
        everything = range(1, len(candidates) + 1)
        reply = _Reply()
        outcome: Outcome = "ok"
        kept: Sequence[int] = everything
        reasons: dict[int, str] = {}
        rule: JsonObject | None = None
        if not candidates or mode is None:
            outcome, reply = "skipped", _Reply(note="no candidates")
        elif strategy == "off":
            outcome, reply = "skipped", _Reply(note="the gate is off")
        elif strategy == "score":
            standing_out = rule_for(question, candidates, mode, self._settings.gate_score_min)
            rule = standing_out.as_event()
            kept = [n for n in everything if standing_out.keeps(candidates[n - 1])]
            reasons = {n: f"{standing_out.scale} score {candidates[n - 1].score:.4f}" for n in everything}
        else:
            reply = await self._ask_gate(question, asked_at, candidates, context_tokens)
            if reply.answer is None:
                outcome = "fallback"
            else:
                kept = reply.answer.numbers
                shown = reply.asked.candidates if reply.asked is not None else 0
                reasons = dict.fromkeys(everything[shown:], NOT_ASKED) | reply.answer.reasons
        self._streaks["gate"].note(outcome, reply.reason)
        by_model = strategy == "llm" and outcome != "skipped"
        event = GateDecided(
            strategy=strategy,
            outcome=outcome,
            note=reply.note,
            model=self._chat.model if by_model else None,
            prompt_version=self._prompts.gate.version if by_model else None,
            keep_max=keep_max,
            score_rule=rule,
            verdicts=verdicts(candidates, kept, keep_max, reasons),
            raw_answer=reply.raw,
            usage=reply.usage,
            latency_ms=_ms_since(started),
            asked=reply.asked,
            call=reply.call,
        )
        return Gated([candidates[n - 1] for n in staying(kept, keep_max)], event)

    async def rerank(
        self,
        question: str,
        kept: Sequence[Candidate],
        retrieve_k: int,
        *,
        asked_at: datetime,
        use_rerank: bool,
        context_tokens: int,
    ) -> Reranked:
        """Put the kept candidates in order, and split them into those to replay and those to show as summaries."""
        started = time.perf_counter()
        strategy = self._settings.rerank_strategy if use_rerank else "none"
        reply = _Reply()
        outcome: Outcome = "skipped"
        model: str | None = None
        if strategy == "none":
            reply = _Reply(note="the rerank is off")
        elif len(kept) <= retrieve_k or retrieve_k == 0:
            reply = _Reply(note="there is nothing to choose: all or none are replayed")
        else:
            if strategy == "endpoint" and self._reranker is not None:
                model, reply = self._reranker.model, await self._ask_endpoint(self._reranker, question, asked_at, kept)
            else:
                model = self._chat.model
                reply = await self._ask_rerank(question, asked_at, kept, retrieve_k, context_tokens)
            outcome = "ok" if reply.answer is not None else "fallback"
        self._streaks["rerank"].note(outcome, reply.reason)
        named = reply.answer.numbers if reply.answer is not None else ()
        order = [kept[n - 1] for n in full_order(named, len(kept))]
        replay, summarised = split(order, retrieve_k)
        event = RerankDecided(
            strategy=strategy,
            outcome=outcome,
            note=reply.note,
            model=model,
            prompt_version=self._prompts.rerank.version if strategy == "llm" and outcome != "skipped" else None,
            retrieve_k=retrieve_k,
            order=tuple(candidate.memory.memory_id for candidate in order),
            named=len(named),
            scores=reply.scores,
            replayed=tuple(candidate.memory.memory_id for candidate in replay),
            raw_answer=reply.raw,
            usage=reply.usage,
            latency_ms=_ms_since(started),
            asked=reply.asked,
            call=reply.call,
        )
        return Reranked(replay, summarised, event)

    async def _ask_gate(
        self, question: str, asked_at: datetime, candidates: Sequence[Candidate], context_tokens: int
    ) -> _Reply:
        question_chars = _fitting_chars(question, context_tokens)
        question = excerpt(question, question_chars)
        reasons = self._settings.gate_reasons
        per_candidate = _TOKENS_PER_NUMBER + (_TOKENS_PER_REASON if reasons else 0)
        system = self._prompts.gate.text
        # What is said of a candidate takes room too, but only of one that is shown.
        memories, chars = self._shown(
            system, question, asked_at, candidates, context_tokens - _TOKENS_BASE, per_candidate
        )
        return await self._ask(
            gate_messages(system, question, asked_at, memories, chars),
            gate_format(len(memories), reasons=reasons),
            key="keep",
            asked=_asked(len(memories), chars, question_chars),
            timeout_s=self._settings.gate_timeout_s,
            timeout_setting="GATE_TIMEOUT_S",
            max_tokens=_TOKENS_BASE + per_candidate * len(memories),
        )

    async def _ask_rerank(
        self, question: str, asked_at: datetime, kept: Sequence[Candidate], retrieve_k: int, context_tokens: int
    ) -> _Reply:
        question_chars = _fitting_chars(question, context_tokens)
        question = excerpt(question, question_chars)
        answer_tokens = _TOKENS_BASE + _TOKENS_PER_NUMBER * retrieve_k
        system = self._prompts.rerank.text
        memories, chars = self._shown(system, question, asked_at, kept, context_tokens - answer_tokens)
        return await self._ask(
            rerank_messages(system, question, asked_at, memories, retrieve_k, chars),
            rerank_format(len(memories), retrieve_k),
            key="top",
            asked=_asked(len(memories), chars, question_chars),
            timeout_s=self._settings.rerank_timeout_s,
            timeout_setting="RERANK_TIMEOUT_S",
            max_tokens=answer_tokens,
        )

    async def _ask_endpoint(
        self, reranker: Reranker, question: str, asked_at: datetime, kept: Sequence[Candidate]
    ) -> _Reply:
        asked = DecisionAsked(
            candidates=len(kept), line_chars=LINE_CHARS_MAX, question_chars=min(len(question), QUESTION_CHARS_MAX)
        )
        try:
            raw = await reranker.scores(question, asked_at, [candidate.memory for candidate in kept])
        except UpstreamError as error:
            return _Reply(note=str(error), reason=_loggable(error), asked=asked, call=error.call)
        scored = read_scores(raw.text, len(kept))
        if scored is None:
            note = "the answer holds no scores of these memories"
            return _Reply(note=note, raw=raw.text, reason=note, asked=asked, call=raw.call)
        answer = Answer(tuple(number for number, _ in scored), {})
        scores = tuple(score for _, score in scored)
        return _Reply(answer, raw=raw.text, scores=scores, asked=asked, call=raw.call)

    async def _ask(
        self,
        messages: list[dict[str, str]],
        response_format: JsonObject,
        *,
        key: str,
        asked: DecisionAsked,
        timeout_s: float,
        timeout_setting: str,
        max_tokens: int,
    ) -> _Reply:
        try:
            completion = await self._chat.complete(
                messages,
                timeout_s=timeout_s,
                timeout_setting=timeout_setting,
                max_tokens=max_tokens,
                response_format=response_format,
            )
        except UpstreamError as error:
            if isinstance(error, ContextExceeded) and self._on_exceeded is not None:
                self._on_exceeded(error.limit_tokens)
            return _Reply(note=str(error), reason=_loggable(error), asked=asked, call=error.call)
        answer = read_answer(completion.text, key, asked.candidates, messages[-1]["content"])
        note = None if answer is not None else "the answer holds no decision on these candidates"
        return _Reply(answer, note, completion.text, completion.usage, reason=note, asked=asked, call=completion.call)

    def _shown(
        self,
        system: str,
        question: str,
        asked_at: datetime,
        candidates: Sequence[Candidate],
        budget_tokens: int,
        answer_tokens_each: int = 0,
    ) -> tuple[list[Memory], int]:
        """Return the memories that a decision call has room for, and how many characters of each."""
        memories = [candidate.memory for candidate in candidates]
        left = budget_tokens - _TEMPLATE_TOKENS - estimate_tokens(system) - estimate_tokens(question)
        fitting, chars = fitting_lines(memories, asked_at, left, self._line_tokens, answer_tokens_each)
        return memories[:fitting], chars


def _asked(candidates: int, line_chars: int, question_chars: int) -> DecisionAsked:
    return DecisionAsked(
        candidates=candidates, line_chars=line_chars, question_chars=question_chars, layout=QUOTED_LAYOUT
    )


def _fitting_chars(question: str, context_tokens: int) -> int:
    """Return how many characters of a question leave most of the room to the candidates."""
    chars = len(question)
    while chars and estimate_tokens(excerpt(question, chars)) > context_tokens * _QUESTION_SHARE_MAX:
        chars = chars * 3 // 4
    return chars


def _loggable(error: UpstreamError) -> str:
    """Return what happened without what the endpoint said of it, which comes after a colon."""
    return f"{str(error).partition(': ')[0]} [{error.code}]"


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)

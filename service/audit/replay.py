"""Replay one past question with other settings: search, gate and rerank as a turn does, and record nothing.

A model's decision is taken over from the ledger when its inputs did not change. Asking again would cost tokens and mix
the model's own variance into the comparison; ``ask_again`` asks nevertheless.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict

from domain.agreement import Choice
from domain.audit_reader import AuditReader
from domain.chain import canonical
from domain.decisions import full_order
from domain.errors import UpstreamError
from domain.events import GateDecided, JsonObject, RerankDecided, RetrievalMode, Usage
from domain.prompt_reconstruction import memory_from
from domain.prompts import Prompts
from domain.retrieval import Candidate, exclude_window, split
from domain.temporal.time_range import time_range
from projections.search.as_of import SearchAsOf
from service.audit.recorded_question import RecordedQuestion
from service.chat_client import ChatClient
from service.decider import Decider
from service.knobs import Knobs
from service.reranker import Reranker
from service.settings import ServiceSettings

Gate = Literal["llm", "score", "off"]


@dataclass(frozen=True, slots=True)
class Variant:
    """The settings to try; None keeps what each question had."""

    candidate_n: int | None = None
    retrieve_k: int | None = None
    gate: Gate | None = None
    gate_model: str | None = None
    embedding_model: str | None = None
    retrieval: RetrievalMode | None = None
    ask_again: bool = False

    def knobs(self, then: Knobs) -> Knobs:
        """Return a question's knobs with the changes of this variant."""
        changed = {"candidate_n": self.candidate_n, "retrieve_k": self.retrieve_k}
        return then.model_copy(update={name: value for name, value in changed.items() if value is not None})

    def mode(self, question: RecordedQuestion) -> RetrievalMode:
        """Return the retrieval mode for a question."""
        return self.retrieval or question.retrieval.mode or "dense"

    def as_json(self) -> JsonObject:
        """Return the settings that are changed, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None and value is not False}


class Cost(BaseModel):
    """What decisions cost: calls of the chat model, and tokens as far as its endpoint reported them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


class ReplayResult(BaseModel):
    """One question then and now. It holds ids only, so that texts stay in the ledger.

    ``taken_over`` names the decisions whose inputs did not change, ``fallback`` those whose answer was unreadable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question_id: str
    position: int
    then: Choice
    now: Choice
    taken_over: tuple[str, ...]
    fallback: tuple[str, ...]
    spent_then: Cost
    spent: Cost


@dataclass(frozen=True, slots=True)
class Replayer:
    """Replays past questions with ``variant``. The gate asks ``gate_chat``, the rerank ``chat`` or ``reranker``."""

    reader: AuditReader
    memory: SearchAsOf
    chat: ChatClient
    gate_chat: ChatClient
    reranker: Reranker | None
    prompts: Prompts
    settings: ServiceSettings
    variant: Variant
    context_tokens: int

    @property
    def key(self) -> str:
        """A hash of all that a result depends on except the question; results under another key do not count."""
        space = self.memory.space
        assert space is not None
        return hashlib.sha256(
            canonical(
                {
                    "variant": self.variant.as_json(),
                    "embedding": [space.model, space.dimensions, space.passage_prefix],
                    "chat": [self.chat.model, self.gate_chat.model],
                    "rerank": self.reranker.model if self.reranker is not None else None,
                    "prompts": [self.prompts.gate.version, self.prompts.rerank.version],
                    "reasons": self.settings.gate_reasons,
                    "score_min": self.settings.gate_score_min,
                }
            ).encode()
        ).hexdigest()

    def embeds(self, question: RecordedQuestion) -> bool:
        """Return whether searching for a question embeds it."""
        return self.variant.mode(question) != "lexical" and self.variant.knobs(question.knobs).candidate_n > 0

    async def candidates(self, question: RecordedQuestion) -> list[Candidate]:
        """Search memory as of a question; return the candidates for the gate. Questions must come in search order.

        Raises an :class:`EmbeddingError` when the question, or a memory without a vector, cannot be embedded.
        """
        knobs = self.variant.knobs(question.knobs)
        if knobs.candidate_n == 0:
            return []
        # All turns of the window may be among the results, so ask for that many more.
        found = await self.memory.search(
            question.retrieval.query,
            knobs.candidate_n + knobs.recent_turns,
            position=question.position,
            mode=self.variant.mode(question),
            timeout_s=self.settings.emb_timeout_s,
            wanted=time_range(question.retrieval.query, question.asked_at),
        )
        shown = await asyncio.to_thread(self._as_shown, question, found)
        candidates, _ = exclude_window(shown, question.window, knobs.candidate_n)
        return candidates

    async def decide(self, question: RecordedQuestion, candidates: list[Candidate]) -> ReplayResult:
        """Gate and rerank candidates. Raises :class:`UpstreamError` when the chat model gives no answer at all."""
        knobs = self.variant.knobs(question.knobs)
        kept, gate = await self._gate(question, candidates, knobs)
        replayed, summarised, rerank = await self._rerank(question, kept, knobs)
        asked = [decision for decision in (gate, rerank) if decision is not None and decision.model is not None]
        fallback = [name for name, made in (("gate", gate), ("rerank", rerank)) if made and made.outcome == "fallback"]
        return ReplayResult(
            question_id=question.question_id,
            position=question.event.position,
            then=question.choice,
            now=Choice(
                candidates=tuple(candidate.memory.memory_id for candidate in candidates),
                replayed=tuple(candidate.memory.memory_id for candidate in replayed),
                summaries=tuple(candidate.memory.memory_id for candidate in summarised),
            ),
            taken_over=tuple(name for name, made in (("gate", gate), ("rerank", rerank)) if made is None),
            fallback=tuple(fallback),
            spent_then=_cost(question.usages),
            spent=_cost([decision.usage for decision in asked]),
        )

    async def _gate(
        self, question: RecordedQuestion, candidates: list[Candidate], knobs: Knobs
    ) -> tuple[list[Candidate], GateDecided | None]:
        """Return the kept candidates and the decision; None where it was taken over."""
        then, variant = question.gate, self.variant
        strategy = variant.gate or then.strategy
        unchanged = (
            strategy == then.strategy == "llm"
            and variant.gate_model is None
            and not variant.ask_again
            and then.keep_max == knobs.gate_keep_max
            and [candidate.memory.memory_id for candidate in candidates]
            == [verdict.memory_id for verdict in then.verdicts]
        )
        if unchanged:
            keep = set(question.kept)
            return [candidate for candidate in candidates if candidate.memory.memory_id in keep], None
        floor = self.settings.gate_score_min
        if then.strategy == "score" and then.score_rule is not None:
            floor = then.score_rule.get("floor")
        settings = self.settings.model_copy(update={"gate": strategy, "gate_score_min": floor})
        gated = await Decider(self.gate_chat, self.prompts, settings).gate(
            question.retrieval.query,
            candidates,
            knobs.gate_keep_max,
            asked_at=question.asked_at,
            mode=self.variant.mode(question),
            use_gate=True,
            context_tokens=self.context_tokens,
        )
        _check_answered(gated.event)
        return gated.kept, gated.event

    async def _rerank(
        self, question: RecordedQuestion, kept: list[Candidate], knobs: Knobs
    ) -> tuple[list[Candidate], list[Candidate], RerankDecided | None]:
        then = question.rerank
        ids = [candidate.memory.memory_id for candidate in kept]
        unchanged = (
            then.outcome != "skipped"
            and not self.variant.ask_again
            and then.retrieve_k == knobs.retrieve_k
            and ids == question.kept
        )
        if unchanged:
            numbers = [ids.index(memory_id) + 1 for memory_id in then.order if memory_id in ids]
            replayed, summarised = split([kept[n - 1] for n in full_order(numbers, len(kept))], knobs.retrieve_k)
            return replayed, summarised, None
        settings = self.settings
        if then.strategy == "llm" or (then.strategy == "endpoint" and self.reranker is not None):
            settings = settings.model_copy(update={"reranker": then.strategy})
        reranked = await Decider(self.chat, self.prompts, settings, self.reranker).rerank(
            question.retrieval.query,
            kept,
            knobs.retrieve_k,
            asked_at=question.asked_at,
            use_rerank=then.strategy != "none",
            context_tokens=self.context_tokens,
        )
        _check_answered(reranked.event)
        return reranked.replay, reranked.summarised, reranked.event

    def _as_shown(self, question: RecordedQuestion, found: Sequence[Candidate]) -> list[Candidate]:
        """Return the found candidates with the summaries that the turn showed.

        A summary may have been recorded between the turn's search and its reading of the memories.
        """
        shown_with = {item.memory_id: item.summary_position for item in question.retrieval.candidates}
        late = {
            candidate.memory.position: at
            for candidate in found
            if (at := shown_with.get(candidate.memory.memory_id)) is not None
            and at != candidate.memory.summary_position
        }
        events = self.reader.events_at([*late, *late.values()]) if late else {}
        again = {
            position: memory_from(events[position], events[at])
            for position, at in late.items()
            if position in events and at in events
        }
        return [
            replace(candidate, memory=again.get(candidate.memory.position) or candidate.memory) for candidate in found
        ]


def _check_answered(made: GateDecided | RerankDecided) -> None:
    """Raise if a model was asked and did not answer: the fallback says nothing about the variant."""
    if made.outcome == "fallback" and made.raw_answer is None:
        raise UpstreamError(made.note or "the chat model gave no answer", status=502, code="no_decision")


def _cost(usages: Sequence[Usage | None]) -> Cost:
    counted = [usage for usage in usages if usage is not None]
    return Cost(
        calls=len(usages),
        prompt_tokens=sum(usage.prompt_tokens for usage in counted),
        completion_tokens=sum(usage.completion_tokens for usage in counted),
    )

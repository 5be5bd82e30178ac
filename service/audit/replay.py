"""One past question through other settings: searched, gated and reranked as a turn would, and nothing recorded.

A decision of a chat model that nothing in it has changed is taken over from the ledger: the same candidates and the
same model give the same verdicts, and to ask again would cost tokens and bring in the model's own wavering. With
``ask_again`` it is asked nevertheless.
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
    """What is set otherwise than it was; None leaves it as it was for each question."""

    candidate_n: int | None = None
    retrieve_k: int | None = None
    gate: Gate | None = None
    gate_model: str | None = None
    embedding_model: str | None = None
    retrieval: RetrievalMode | None = None
    ask_again: bool = False

    def knobs(self, then: Knobs) -> Knobs:
        """Return a question's knobs with what is set otherwise."""
        changed = {"candidate_n": self.candidate_n, "retrieve_k": self.retrieve_k}
        return then.model_copy(update={name: value for name, value in changed.items() if value is not None})

    def mode(self, question: RecordedQuestion) -> RetrievalMode:
        """Return how a question is searched."""
        return self.retrieval or question.retrieval.mode or "dense"

    def as_json(self) -> JsonObject:
        """Return what is set, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None and value is not False}


class Spent(BaseModel):
    """What decisions cost: calls of the chat model, and tokens as far as its endpoint counted them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


class Replayed(BaseModel):
    """What became of one question: ids only, so that the texts stay in the ledger alone.

    ``taken_over`` names the decisions that nothing had changed, ``fallback`` those whose answer could not be read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    question_id: str
    position: int
    then: Choice
    now: Choice
    taken_over: tuple[str, ...]
    fallback: tuple[str, ...]
    spent_then: Spent
    spent: Spent


class Replayer:
    """Puts past questions through ``variant``. The gate asks ``gate_chat``, the rerank ``chat`` or ``reranker``."""

    def __init__(
        self,
        reader: AuditReader,
        memory: SearchAsOf,
        chat: ChatClient,
        gate_chat: ChatClient,
        reranker: Reranker | None,
        prompts: Prompts,
        settings: ServiceSettings,
        variant: Variant,
        *,
        context_tokens: int,
    ) -> None:
        self._reader = reader
        self._memory = memory
        self._chat = chat
        self._gate_chat = gate_chat
        self._reranker = reranker
        self._prompts = prompts
        self._settings = settings
        self._variant = variant
        self._context_tokens = context_tokens

    @property
    def key(self) -> str:
        """A hash of everything that a result depends on beside the question: results of another key do not count."""
        space = self._memory.space
        assert space is not None
        return hashlib.sha256(
            canonical(
                {
                    "variant": self._variant.as_json(),
                    "embedding": [space.model, space.dimensions, space.passage_prefix],
                    "chat": [self._chat.model, self._gate_chat.model],
                    "rerank": self._reranker.model if self._reranker is not None else None,
                    "prompts": [self._prompts.gate.version, self._prompts.rerank.version],
                    "reasons": self._settings.gate_reasons,
                    "score_min": self._settings.gate_score_min,
                }
            ).encode()
        ).hexdigest()

    def embeds(self, question: RecordedQuestion) -> bool:
        """Tell whether a question is embedded to be searched."""
        return self._variant.mode(question) != "lexical" and self._variant.knobs(question.knobs).candidate_n > 0

    async def candidates(self, question: RecordedQuestion) -> list[Candidate]:
        """Search memory as of a question that is not before the last one; return what goes on to the gate.

        Raises an :class:`EmbeddingError` when the question, or memories without a vector, cannot be embedded.
        """
        knobs = self._variant.knobs(question.knobs)
        if knobs.candidate_n == 0:
            return []
        # Every turn of the window may be among the nearest, so that many more are asked for.
        found = await self._memory.search(
            question.retrieval.query,
            knobs.candidate_n + knobs.recent_turns,
            position=question.position,
            mode=self._variant.mode(question),
            timeout_s=self._settings.emb_timeout_s,
            wanted=time_range(question.retrieval.query, question.turn.ts),
        )
        shown = await asyncio.to_thread(self._as_shown, question, found)
        going_on, _ = exclude_window(shown, question.window, knobs.candidate_n)
        return going_on

    async def decide(self, question: RecordedQuestion, candidates: list[Candidate]) -> Replayed:
        """Gate and rerank candidates. Raises :class:`UpstreamError` when the chat model gives no answer at all."""
        knobs = self._variant.knobs(question.knobs)
        kept, gate = await self._gate(question, candidates, knobs)
        replay, notes, rerank = await self._rerank(question, kept, knobs)
        asked = [decision for decision in (gate, rerank) if decision is not None and decision.model is not None]
        fallback = [name for name, made in (("gate", gate), ("rerank", rerank)) if made and made.outcome == "fallback"]
        return Replayed(
            question_id=question.question_id,
            position=question.event.position,
            then=question.choice,
            now=Choice(
                candidates=tuple(candidate.memory.memory_id for candidate in candidates),
                replayed=tuple(candidate.memory.memory_id for candidate in replay),
                summaries=tuple(candidate.memory.memory_id for candidate in notes),
            ),
            taken_over=tuple(name for name, made in (("gate", gate), ("rerank", rerank)) if made is None),
            fallback=tuple(fallback),
            spent_then=_spent(question.usages),
            spent=_spent([decision.usage for decision in asked]),
        )

    async def _gate(
        self, question: RecordedQuestion, candidates: list[Candidate], knobs: Knobs
    ) -> tuple[list[Candidate], GateDecided | None]:
        """Return what is kept, and the decision, None where it was taken over."""
        then, variant = question.gate, self._variant
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
        floor = self._settings.gate_score_min
        if then.strategy == "score" and then.score_rule is not None:
            floor = then.score_rule.get("floor")
        settings = self._settings.model_copy(update={"gate": strategy, "gate_score_min": floor})
        gated = await Decider(self._gate_chat, self._prompts, settings).gate(
            question.retrieval.query,
            candidates,
            knobs.gate_keep_max,
            asked_at=question.turn.ts,
            mode=self._variant.mode(question),
            use_gate=True,
            context_tokens=self._context_tokens,
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
            and not self._variant.ask_again
            and then.retrieve_k == knobs.retrieve_k
            and ids == question.kept
        )
        if unchanged:
            numbers = [ids.index(memory_id) + 1 for memory_id in then.order if memory_id in ids]
            replay, notes = split([kept[n - 1] for n in full_order(numbers, len(kept))], knobs.retrieve_k)
            return replay, notes, None
        settings = self._settings
        if then.strategy == "llm" or (then.strategy == "endpoint" and self._reranker is not None):
            settings = settings.model_copy(update={"reranker": then.strategy})
        reranked = await Decider(self._chat, self._prompts, settings, self._reranker).rerank(
            question.retrieval.query,
            kept,
            knobs.retrieve_k,
            asked_at=question.turn.ts,
            use_rerank=then.strategy != "none",
            context_tokens=self._context_tokens,
        )
        _check_answered(reranked.event)
        return reranked.replay, reranked.summarised, reranked.event

    def _as_shown(self, question: RecordedQuestion, found: Sequence[Candidate]) -> list[Candidate]:
        """Return what was found with the very summaries that the question's own candidates were shown with.

        A summary may have come in between the search and the reading of what it had found.
        """
        shown_with = {item.memory_id: item.summary_position for item in question.retrieval.candidates}
        late = {
            candidate.memory.position: at
            for candidate in found
            if (at := shown_with.get(candidate.memory.memory_id)) is not None
            and at != candidate.memory.summary_position
        }
        events = self._reader.events_at([*late, *late.values()]) if late else {}
        again = {
            position: memory_from(events[position], events[at])
            for position, at in late.items()
            if position in events and at in events
        }
        return [
            replace(candidate, memory=again.get(candidate.memory.position) or candidate.memory) for candidate in found
        ]


def _check_answered(made: GateDecided | RerankDecided) -> None:
    """Raise where a model was asked and nothing came back: what stands in for its answer says nothing about it."""
    if made.outcome == "fallback" and made.raw_answer is None:
        raise UpstreamError(made.note or "the chat model gave no answer", status=502, code="no_decision")


def _spent(usages: Sequence[Usage | None]) -> Spent:
    counted = [usage for usage in usages if usage is not None]
    return Spent(
        calls=len(usages),
        prompt_tokens=sum(usage.prompt_tokens for usage in counted),
        completion_tokens=sum(usage.completion_tokens for usage in counted),
    )

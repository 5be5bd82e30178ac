"""What memory might have decided for an invented question: candidates, gate, rerank, and what is left for the prompt.

The events agree with each other like the service's own: the gate gives a verdict on every candidate that is not in the
window, the rerank orders the kept ones, and the first K of them are replayed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from domain.decisions import full_order
from domain.events import (
    CandidateFound,
    DecisionAsked,
    GateDecided,
    LeftOut,
    RerankDecided,
    RetrievalRecorded,
    Usage,
    Verdict,
)

RECENT_TURNS = 6
FALLBACK_SHARES = {"Qwen3-8B": 0.06, "Qwen3-14B": 0.02, "Mistral-Small": 0.03}
"""The chat models in the order of their use, and how often their decisions cannot be read."""
EMBEDDING_MODEL = "bge-m3"
_RETRIEVE_K = 5
_KEEP_MAX = 12
_KEEP_SHARE = 0.3
_ASKED_MAX = 45
"""How many candidates the gate's prompt has room for."""
_LINE_CHARS = 240
_DEGRADED_SHARE = 0.015
_NO_ROOM_SHARE = 0.04
_WINDOW_SHARE = 0.35
"""How often a turn of the window is also a candidate, and excluded."""
_PLACES_MOVED = 3.0
"""By how many places the rerank moves a memory, as a standard deviation."""


@dataclass(slots=True)
class PastTurn:
    """What the search needs of a memory."""

    memory_id: str
    position: int
    conversation_id: str
    turn_id: int
    summary_position: int | None = None
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class Decided:
    """The three events before a turn, and what they leave for its prompt."""

    retrieval: RetrievalRecorded
    gate: GateDecided
    rerank: RerankDecided
    replayed: tuple[str, ...]
    summarised: tuple[str, ...]
    left_out: tuple[LeftOut, ...]


class SyntheticDecisions:
    """Decides at random. ``candidates`` are the fewest and the most memories that a search proposes."""

    def __init__(self, chance: random.Random, candidates: tuple[int, int]) -> None:
        self._random = chance
        self._candidates = candidates

    def decide(
        self, query: str, memories: Sequence[PastTurn], window: Sequence[PastTurn], model: str, *, hybrid: bool
    ) -> Decided:
        """Return the decisions on a question of a person with these memories; ``hybrid`` also searches by words."""
        rng = self._random
        knobs = {"candidate_n": self._candidates[1], "recent_turns": RECENT_TURNS, "retrieve_k": _RETRIEVE_K}
        shown = tuple(turn.memory_id for turn in window)
        if rng.random() < _DEGRADED_SHARE:
            retrieval = RetrievalRecorded(
                query=query,
                knobs=knobs,
                window=shown,
                outcome="degraded",
                degraded_code=rng.choice(("embedding_timeout", "embedding_timeout", "model_mismatch")),
                degraded_reason="the embedding endpoint gave no vectors that memory could be searched with",
            )
            found: list[CandidateFound] = []
        else:
            found = self._found(memories, window, hybrid=hybrid)
            retrieval = RetrievalRecorded(
                query=query,
                knobs=knobs,
                window=shown,
                outcome="ok",
                mode="hybrid" if hybrid else "dense",
                fusion={"rule": "reciprocal_rank", "k": 60} if hybrid else None,
                embedding_model=EMBEDDING_MODEL,
                dimensions=1024,
                index_position=memories[-1].position if memories else 0,
                candidates=tuple(found),
                embed_ms=self.milliseconds(9),
                search_ms=self.milliseconds(1.5),
                lexical_ms=self.milliseconds(0.8) if hybrid else 0.0,
            )
        gate = self._gate([item for item in found if item.excluded is None], model, len(query))
        kept = [verdict.memory_id for verdict in gate.verdicts if verdict.keep]
        rerank = self._rerank(kept, model, len(query))
        summarised = list(rerank.order[len(rerank.replayed) :])
        left_out: tuple[LeftOut, ...] = ()
        if summarised and rng.random() < _NO_ROOM_SHARE:
            left_out = (LeftOut(part="summary", memory_id=summarised.pop(), tokens=rng.randint(300, 900)),)
        return Decided(retrieval, gate, rerank, rerank.replayed, tuple(summarised), left_out)

    def _found(self, memories: Sequence[PastTurn], window: Sequence[PastTurn], *, hybrid: bool) -> list[CandidateFound]:
        rng = self._random
        count = min(rng.randint(*self._candidates), len(memories))
        known = rng.sample(memories, count)
        known += [memory for memory in window if rng.random() < _WINDOW_SHARE]
        shown = {memory.memory_id for memory in window}
        found: list[CandidateFound] = []
        seen: set[str] = set()
        score = rng.uniform(0.7, 0.9)
        for memory in known:
            if memory.forgotten or memory.memory_id in seen:
                continue
            seen.add(memory.memory_id)
            rank = len(found) + 1
            score -= rng.uniform(0, 0.01)
            by_words = hybrid and rng.random() < 0.4
            only_words = by_words and rng.random() < 0.2
            found.append(
                CandidateFound(
                    memory_id=memory.memory_id,
                    turn_position=memory.position,
                    conversation_id=memory.conversation_id,
                    turn_id=memory.turn_id,
                    score=round(1 / (60 + rank) if hybrid else score, 6),
                    rank=rank,
                    dense_score=None if only_words else round(score, 6),
                    dense_rank=None if only_words else rank,
                    lexical_score=round(rng.uniform(1, 12), 6) if by_words else None,
                    lexical_rank=rank if by_words else None,
                    matched=None if only_words else rng.choice(("exchange", "summary")),
                    summary_position=memory.summary_position,
                    excluded="recent_window" if memory.memory_id in shown else None,
                )
            )
        return found

    def _gate(self, proposed: Sequence[CandidateFound], model: str, question_chars: int) -> GateDecided:
        rng = self._random
        skipped = not proposed
        fell_back = not skipped and rng.random() < FALLBACK_SHARES[model]
        wanted = [fell_back or (rng.random() < _KEEP_SHARE and n < _ASKED_MAX) for n in range(len(proposed))]
        asked = min(len(proposed), _ASKED_MAX)
        room = _KEEP_MAX
        verdicts = []
        for n, (candidate, keep) in enumerate(zip(proposed, wanted, strict=True), start=1):
            room -= keep
            verdicts.append(
                Verdict(n=n, memory_id=candidate.memory_id, keep=keep and room >= 0, over_limit=keep and room < 0)
            )
        kept = [verdict.n for verdict in verdicts if verdict.keep]
        return GateDecided(
            strategy="llm",
            outcome="skipped" if skipped else "fallback" if fell_back else "ok",
            note="no candidates"
            if skipped
            else "the answer holds no decision on these candidates"
            if fell_back
            else None,
            model=None if skipped else model,
            prompt_version=None if skipped else "1",
            keep_max=_KEEP_MAX,
            score_rule=None,
            verdicts=tuple(verdicts),
            raw_answer=None if skipped else "I would keep them." if fell_back else f'{{"keep":{kept}}}',
            usage=None if skipped else self.usage(40 + 60 * len(proposed), 40),
            latency_ms=0.01 if skipped else self.milliseconds(350),
            asked=None if skipped else _asked(asked, question_chars),
        )

    def _rerank(self, kept: Sequence[str], model: str, question_chars: int) -> RerankDecided:
        rng = self._random
        asked = len(kept) > _RETRIEVE_K
        fell_back = asked and rng.random() < FALLBACK_SHARES[model] / 2
        named: list[int] = []
        if asked and not fell_back:
            named = sorted(range(1, len(kept) + 1), key=lambda place: place + rng.gauss(0, _PLACES_MOVED))[:_RETRIEVE_K]
        order = tuple(kept[n - 1] for n in full_order(named, len(kept)))
        return RerankDecided(
            strategy="llm",
            outcome="fallback" if fell_back else "ok" if asked else "skipped",
            note=None if asked else "there is nothing to choose: all or none are replayed",
            model=model if asked else None,
            prompt_version="1" if asked else None,
            retrieve_k=_RETRIEVE_K,
            order=order,
            named=len(named),
            replayed=order[:_RETRIEVE_K],
            raw_answer=None if not asked else "first the first" if fell_back else f'{{"top":{named}}}',
            usage=self.usage(900, 25) if asked else None,
            latency_ms=self.milliseconds(260) if asked else 0.01,
            asked=_asked(len(kept), question_chars) if asked else None,
        )

    def milliseconds(self, usual: float) -> float:
        """Return a time around the usual one, with a long tail."""
        return round(usual * self._random.lognormvariate(0, 0.4), 3)

    def usage(self, prompt: int, completion: int) -> Usage:
        """Return usage around the given numbers of tokens."""
        prompt, completion = (int(self.milliseconds(tokens)) + 1 for tokens in (prompt, completion))
        return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def _asked(candidates: int, question_chars: int) -> DecisionAsked:
    return DecisionAsked(candidates=candidates, line_chars=_LINE_CHARS, question_chars=question_chars)

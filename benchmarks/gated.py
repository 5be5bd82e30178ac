"""What a gate costs: the evidence it keeps, the memories it keeps for that, how well it tells them apart, and its time.

The decision is the service's own (:mod:`service.decider`), with its prompts and settings.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from benchmarks.ranks import recall
from domain.events import GateDecided, RetrievalMode
from domain.prompts import load_prompts
from domain.retrieval import Candidate
from projections.settings import ProjectionSettings
from service.chat_client import ChatClient
from service.context_limit import ContextLimit
from service.decider import Decider
from service.knobs import Knobs
from service.settings import ServiceSettings

_NOBODY = {"LLM_BASE_URL": "http://127.0.0.1:1/v1", "LLM_MODEL": "none"}
"""Required settings that a score gate never uses."""


class Gate:
    """The gate of the service with a strategy. ``llm`` needs LLM_BASE_URL and LLM_MODEL in the environment."""

    def __init__(self, strategy: str, own: ProjectionSettings) -> None:
        self.strategy = strategy
        needs = {name.lower(): os.environ.get(name, nobody) for name, nobody in _NOBODY.items() if strategy != "llm"}
        settings = ServiceSettings(**{**own.model_dump(), **needs, "gate": strategy})
        self._chat = ChatClient(settings)
        self._decider = Decider(self._chat, load_prompts(None), settings)
        self._context_tokens = ContextLimit(settings).tokens

    async def decide(
        self, question: str, asked_at: datetime, candidates: Sequence[Candidate], mode: RetrievalMode
    ) -> tuple[list[Candidate], GateDecided]:
        """Return the kept candidates and the decision, as in a turn without knobs."""
        gated = await self._decider.gate(
            question,
            candidates,
            keep_max=Knobs().gate_keep_max,
            asked_at=asked_at,
            mode=mode,
            use_gate=True,
            context_tokens=self._context_tokens,
        )
        return gated.kept, gated.event

    async def close(self) -> None:
        await self._chat.close()


@dataclass
class Gated:
    """The candidates before and after the gate, for each question. Times in milliseconds."""

    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    evidence_kept: int = 0
    evidence_found: int = 0
    others_dropped: int = 0
    others_found: int = 0

    def take(
        self, evidence: Collection[int], ranked: Sequence[int], kept: Sequence[int], decision: GateDecided
    ) -> None:
        """Add a question: the places of its evidence, of the candidates, best first, and of those kept."""
        found = set(ranked) & set(evidence)
        self.before.append(recall(ranked, evidence, len(ranked)))
        self.after.append(recall(kept, evidence, len(kept)))
        self.first.append(recall(ranked, evidence, max(len(kept), 1)))
        self.kept.append(len(kept))
        self.times_ms.append(decision.latency_ms)
        self.outcomes[decision.outcome] += 1
        self.evidence_found += len(found)
        self.evidence_kept += len(found & set(kept))
        self.others_found += len(ranked) - len(found)
        self.others_dropped += len(ranked) - len(found) - len(set(kept) - found)

    @property
    def balanced_accuracy(self) -> float:
        """The mean of the share of evidence kept and the share of other candidates dropped, over all decisions."""
        shares = [
            right / all_of_them
            for right, all_of_them in (
                (self.evidence_kept, self.evidence_found),
                (self.others_dropped, self.others_found),
            )
            if all_of_them
        ]
        return statistics.fmean(shares)

    def tell(self, strategy: str) -> str:
        """Return the figures as text."""
        before, after, first = (statistics.fmean(values) for values in (self.before, self.after, self.first))
        share = f" ({after / before:.0%} of it)" if before else ""
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return (
            f"gate {strategy}, {len(self.before)} questions ({outcomes}): evidence {before:.3f} among the candidates, "
            f"{after:.3f} kept{share} in {statistics.fmean(self.kept):.1f} memories; as many from the top hold "
            f"{first:.3f}\nbalanced accuracy {self.balanced_accuracy:.3f}; "
            f"{statistics.median(self.times_ms) / 1000:.3f} s a call (median), "
            f"{statistics.fmean(self.times_ms) / 1000:.3f} s (mean)"
        )

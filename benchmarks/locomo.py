"""How much of the evidence memory finds for LoCoMo's questions, by category, ways of searching and gate.

    python -m benchmarks.locomo --data locomo10.json --unit line --gate score

Each conversation is recorded as one user's history through the ledger, each session as a conversation of its own date,
with a line of the dialogue per turn (``--unit line``) or two (``pair``), and searched through the service's own path.
No model is called but the embedding model. Adversarial questions (category 5) and those without evidence are left out.
The data is not part of this project: its authors publish it under CC BY-NC 4.0, and every measurement is given the path
of a copy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.ranks import recall, reciprocal_rank
from benchmarks.remembered import Remembered, Said, embedding_endpoint, remembered
from domain.events import RetrievalMode
from domain.fusion import Fusion
from domain.prompts import load_prompts
from domain.retrieval import Candidate
from domain.time_range import time_range
from service.decide import Decider
from service.settings import ServiceSettings
from service.upstream import ChatClient

ADVERSARIAL = 5
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}
_KS = (5, 10, 20)
_CANDIDATES = 60
"""``candidate_n`` of the service."""


@dataclass(frozen=True)
class Exchange:
    """One or two lines of a session; ``number`` counts within the session, from 1."""

    session: str
    number: int
    ts: datetime
    user: str
    assistant: str

    @property
    def text(self) -> str:
        return f"{self.user}\n{self.assistant}"


@dataclass(frozen=True)
class Question:
    """A question and the places, in its conversation's list of exchanges, of what answers it."""

    text: str
    category: int
    evidence: frozenset[int]


@dataclass(frozen=True)
class Talk:
    """One conversation of the data set; its questions are asked at ``now``, after its last session."""

    name: str
    exchanges: tuple[Exchange, ...]
    questions: tuple[Question, ...]
    now: datetime


def read_talks(path: Path, *, lines_per_turn: int = 2) -> list[Talk]:
    """Read a LoCoMo file, with so many lines of the dialogue as one exchange."""
    return [_talk(sample, lines_per_turn) for sample in json.loads(path.read_text(encoding="utf-8"))]


def _talk(sample: Mapping[str, Any], lines_per_turn: int) -> Talk:
    conversation = sample["conversation"]
    exchanges: list[Exchange] = []
    place: dict[str, int] = {}
    for session, lines in conversation.items():
        if not isinstance(lines, list):
            continue
        ts = datetime.strptime(conversation[f"{session}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for at in range(0, len(lines), lines_per_turn):
            pair = lines[at : at + lines_per_turn]
            place |= {line["dia_id"]: len(exchanges) for line in pair}
            said = [f"{line['speaker']}: {line['text']}" for line in pair]
            exchanges.append(Exchange(session, at // lines_per_turn + 1, ts, said[0], "\n".join(said[1:])))
    questions = []
    for item in sample["qa"]:
        # Some evidence fields hold several ids in one string.
        named = re.findall(r"D\d+:\d+", " ".join(item["evidence"]))
        evidence = frozenset(place[name] for name in named if name in place)
        if item["category"] != ADVERSARIAL and evidence:
            questions.append(Question(item["question"], item["category"], evidence))
    return Talk(sample["sample_id"], tuple(exchanges), tuple(questions), max(exchange.ts for exchange in exchanges))


@dataclass
class Row:
    """One way of searching: for each question its category and its figures, and the milliseconds it took."""

    name: str
    figures: list[tuple[int, list[float]]] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)

    def take(self, question: Question, ranked: Sequence[int]) -> None:
        found = [recall(ranked, question.evidence, k) for k in _KS]
        self.figures.append((question.category, [*found, reciprocal_rank(ranked, question.evidence)]))

    def mean(self, category: int | None = None) -> list[float]:
        """Return recall at each k and the mean reciprocal rank, over the questions of a category or all."""
        chosen = [figures for of, figures in self.figures if category in {None, of}]
        return [statistics.fmean(column) for column in zip(*chosen, strict=True)]


AS_SERVED = Fusion()


@dataclass(frozen=True)
class Way:
    """A way of searching: the mode, the fusion, and whether a time that the question names counts."""

    name: str
    mode: RetrievalMode
    fusion: Fusion = AS_SERVED
    by_time: bool = False
    reach: int = 0


_SERVED = "hybrid (as served)"
WAYS = (
    Way("lexical", "lexical"),
    Way("dense", "dense"),
    Way("hybrid, reciprocal ranks, nothing lent", "hybrid", Fusion(rule="reciprocal-rank", lent=())),
    Way("hybrid, min-max, nothing lent", "hybrid", Fusion(rule="min-max", lent=())),
    Way("hybrid, z-scores, nothing lent", "hybrid", Fusion(lent=())),
    Way("hybrid, min-max", "hybrid", Fusion(rule="min-max")),
    Way("hybrid, no time rule", "hybrid"),
    Way(_SERVED, "hybrid", by_time=True),
    Way("hybrid, each with its neighbours", "hybrid", by_time=True, reach=1),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locomo")
    parser.add_argument("--data", type=Path, required=True, help="a LoCoMo JSON file")
    parser.add_argument("--unit", choices=["line", "pair"], default="line", help="lines of the dialogue in a turn")
    parser.add_argument("--storage", type=Path, help="keep the ledger and its vectors here (default: thrown away)")
    parser.add_argument("--gate", choices=["score", "llm"], help="show the evidence before and after the gate too")
    parser.add_argument("--gate-questions", type=int, help="ask the gate about so many questions only")
    given = parser.parse_args(arguments)
    talks = read_talks(given.data, lines_per_turn=1 if given.unit == "line" else 2)
    with tempfile.TemporaryDirectory() as folder, embedding_endpoint() as environment:
        storage = given.storage or Path(folder)
        asyncio.run(_measure(talks, storage, environment, given.gate, given.gate_questions))


async def _measure(
    talks: Sequence[Talk], storage: Path, environment: Mapping[str, str], gate: str | None, gate_questions: int | None
) -> None:
    rows = [Row(way.name) for way in WAYS]
    by_talk: dict[str, Row] = {}
    asked_gate = _AskedGate()
    async with remembered(storage, environment) as memory:
        decide = _gate_of(gate, memory) if gate is not None else None
        for talk in talks:
            positions = await memory.record(talk.name, [_said(exchange) for exchange in talk.exchanges])
            place = {position: at for at, position in enumerate(positions)}
            served = by_talk[talk.name] = Row(talk.name)
            searches = [memory.search(way.fusion) for way in WAYS]
            for question in talk.questions:
                for way, search, row in zip(WAYS, searches, rows, strict=True):
                    started = time.perf_counter()
                    wanted = time_range(question.text, talk.now) if way.by_time else None
                    found = await search.search(talk.name, question.text, _CANDIDATES, way.mode, wanted)
                    row.times_ms.append((time.perf_counter() - started) * 1000)
                    ranked = [place[item.memory.position] for item in found.candidates]
                    if way.reach:
                        ranked = _with_neighbours(ranked, talk, way.reach)
                    row.take(question, ranked)
                    if way.name == _SERVED:
                        served.take(question, ranked)
                        if decide is not None and (gate_questions is None or len(asked_gate.before) < gate_questions):
                            kept = [place[item.memory.position] for item in await decide(question, found.candidates)]
                            asked_gate.take(question, ranked, kept)
    _print(rows, list(by_talk.values()))
    if gate is not None:
        asked_gate.print(gate)


def _said(exchange: Exchange) -> Said:
    return Said(exchange.session, exchange.ts, exchange.user, exchange.assistant)


def _with_neighbours(ranked: Sequence[int], talk: Talk, reach: int) -> list[int]:
    """Return the ranking in which each is followed by its neighbours: more is shown, so it is no fair row beside k."""
    shown: dict[int, None] = {}
    for at in ranked:
        for near in (at, *(at + step * way for step in range(1, reach + 1) for way in (-1, 1))):
            if 0 <= near < len(talk.exchanges) and talk.exchanges[near].session == talk.exchanges[at].session:
                shown[near] = None
    return list(shown)


DecideGate = Callable[[Question, Sequence[Candidate]], Any]


def _gate_of(strategy: str, memory: Remembered) -> DecideGate:
    """Return the service's own gate with a strategy. ``llm`` needs LLM_BASE_URL and LLM_MODEL in the environment."""
    own = memory.settings.model_dump()
    needs = {"llm_base_url": "http://127.0.0.1:1/v1", "llm_model": "none"} if strategy == "score" else {}
    settings = ServiceSettings(**{**own, **needs, "gate": strategy})
    decider = Decider(ChatClient(settings), load_prompts(None), settings)

    async def decide(question: Question, candidates: Sequence[Candidate]) -> list[Candidate]:
        kept, _ = await decider.gate(
            question.text,
            candidates,
            keep_max=30,
            mode="hybrid",
            use_gate=True,
            context_tokens=settings.prompt_budget_tokens or 4096,
        )
        return kept

    return decide


@dataclass
class _AskedGate:
    """What was there before the gate and after it, for each question: evidence, and how many memories."""

    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def take(self, question: Question, ranked: Sequence[int], kept: Sequence[int]) -> None:
        self.before.append(recall(ranked, question.evidence, len(ranked)))
        self.after.append(recall(kept, question.evidence, len(kept)))
        self.first.append(recall(ranked, question.evidence, max(len(kept), 1)))
        self.kept.append(len(kept))

    def print(self, strategy: str) -> None:
        before, after, first = (statistics.fmean(values) for values in (self.before, self.after, self.first))
        print(
            f"\ngate {strategy}, {len(self.before)} questions: evidence {before:.3f} among {_CANDIDATES} candidates, "
            f"{after:.3f} kept ({after / before:.0%} of it) in {statistics.fmean(self.kept):.1f} memories; "
            f"as many from the top hold {first:.3f}"
        )


def _print(rows: Sequence[Row], by_talk: Sequence[Row]) -> None:
    def line(name: str, row: Row) -> str:
        cells = [f"{value:6.3f}" for value in row.mean()]
        for category in CATEGORIES:
            asked = any(of == category for of, _ in row.figures)
            cells.append(f"{row.mean(category)[1]:11.3f}" if asked else " " * 11)
        return f"{name:40} {' '.join(cells)}"

    heading = [f"{f'@{k}':>6}" for k in _KS] + ["   MRR"] + [f"{name:>11}" for name in CATEGORIES.values()]
    print(f"{len(rows[0].figures)} questions; recall at k, mean reciprocal rank, and recall at 10 by category\n")
    print(f"{'':40} {' '.join(heading)}   ms p50")
    for row in rows:
        print(f"{line(row.name, row)} {statistics.median(row.times_ms):8.1f}")
    print("\nas served, by conversation")
    for row in by_talk:
        print(line(row.name, row))


if __name__ == "__main__":
    main()

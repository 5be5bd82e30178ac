"""How much of the evidence for LoCoMo's questions memory finds, by category, way of searching, and gate.

    python -m benchmarks.locomo --data locomo10.json --unit line --gate score
    python -m benchmarks.locomo --data locomo10.json --unit pair --keys
    python -m benchmarks.locomo --data locomo10.json --unit pair --answer --limit 40

Each conversation is recorded through the ledger as the history of one user, each session as a conversation with its own
date. A turn is one line of the dialogue (``--unit line``) or two (``pair``). Searches go through the service's own
path. Only the embedding model is called, unless ``--gate llm`` or ``--answer`` needs a chat model (LLM_BASE_URL,
LLM_MODEL). Adversarial questions (category 5) and those without evidence are left out. The data is not part of this
project: its authors publish it under CC BY-NC 4.0, and each measurement takes the path of a copy.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import answered
from benchmarks.fusion_rules import MinMax, ReciprocalRank
from benchmarks.gated import Gate, Gated
from benchmarks.key_sets import EXCHANGE, KEY_SETS
from benchmarks.locomo_data import CATEGORIES, Question, Talk, as_said, read_talks, sampled
from benchmarks.ranks import recall, reciprocal_rank
from benchmarks.remembered import embedding_endpoint, remembered
from domain.events import RetrievalMode
from domain.fusion import Fusion
from domain.temporal.time_range import time_range

_KS = (5, 10, 20)
_CANDIDATES = 60
"""``candidate_n`` of the service."""


@dataclass
class Row:
    """The results of one way of searching: category, figures and milliseconds of each question."""

    name: str
    figures: list[tuple[int, list[float]]] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)

    def take(self, question: Question, ranked: Sequence[int]) -> None:
        found = [recall(ranked, question.evidence, k) for k in _KS]
        self.figures.append((question.category, [*found, reciprocal_rank(ranked, question.evidence)]))

    def mean(self, category: int | None = None) -> list[float]:
        """Return recall at each k and the mean reciprocal rank, for the questions of a category or all."""
        chosen = [figures for of, figures in self.figures if category in {None, of}]
        return [statistics.fmean(column) for column in zip(*chosen, strict=True)]


AS_SERVED = Fusion()


@dataclass(frozen=True)
class Way:
    """A way of searching: the mode, the fusion, and whether a time named in the question counts."""

    name: str
    mode: RetrievalMode
    fusion: Fusion = AS_SERVED
    by_time: bool = False
    reach: int = 0


_SERVED = "hybrid (as served)"
WAYS = (
    Way("lexical", "lexical"),
    Way("dense", "dense"),
    Way("hybrid, reciprocal ranks, no boost", "hybrid", ReciprocalRank(neighbor_boost=())),
    Way("hybrid, min-max, no boost", "hybrid", MinMax(neighbor_boost=())),
    Way("hybrid, z-scores, no boost", "hybrid", Fusion(neighbor_boost=())),
    Way("hybrid, min-max", "hybrid", MinMax()),
    Way("hybrid, no time rule", "hybrid"),
    Way(_SERVED, "hybrid", by_time=True),
    Way("hybrid, each with its neighbors", "hybrid", by_time=True, reach=1),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.locomo")
    parser.add_argument("--data", type=Path, required=True, help="a LoCoMo JSON file")
    parser.add_argument("--unit", choices=["line", "pair"], default="line", help="lines of the dialogue in a turn")
    parser.add_argument("--storage", type=Path, help="keep the ledger and its vectors here (default: thrown away)")
    parser.add_argument("--gate", choices=["score", "llm"], help="show the evidence before and after the gate too")
    parser.add_argument("--keys", action="store_true", help="compare the texts by which a memory is found instead")
    parser.add_argument("--limit", type=int, help="a sample of so many questions, spread over the categories")
    answered.add_options(parser)
    given = parser.parse_args(arguments)
    talks = sampled(read_talks(given.data, lines_per_turn=1 if given.unit == "line" else 2), given.limit)
    with tempfile.TemporaryDirectory() as folder:
        storage = given.storage or Path(folder)
        if given.answer:
            histories = {talk.name: [as_said(exchange) for exchange in talk.exchanges] for talk in talks}
            answered.measure(given, storage, histories, [one for talk in talks for one in _asked(talk)])
            return
        with embedding_endpoint() as environment:
            if given.keys:
                asyncio.run(_measure_keys(talks, storage, environment))
            else:
                asyncio.run(_measure(talks, storage, environment, given.gate))


async def _measure(talks: Sequence[Talk], storage: Path, environment: Mapping[str, str], strategy: str | None) -> None:
    rows = [Row(way.name) for way in WAYS]
    by_talk: dict[str, Row] = {}
    gated = Gated()
    async with remembered(storage, environment) as memory:
        gate = Gate(strategy, memory.settings) if strategy is not None else None
        for talk in talks:
            positions = await memory.record(talk.name, [as_said(exchange) for exchange in talk.exchanges])
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
                        ranked = _with_neighbors(ranked, talk, way.reach)
                    row.take(question, ranked)
                    if way.name == _SERVED:
                        served.take(question, ranked)
                        if gate is not None:
                            kept, decision = await gate.decide(question.text, talk.now, found.candidates, found.mode)
                            gated.take(question.evidence, ranked, [place[it.memory.position] for it in kept], decision)
                            _note(gated.tell(gate.strategy).replace("\n", "; "))
        if gate is not None:
            await gate.close()
    _print(rows, list(by_talk.values()))
    if strategy is not None:
        print(f"\n{gated.tell(strategy)}")


async def _measure_keys(talks: Sequence[Talk], storage: Path, environment: Mapping[str, str]) -> None:
    """Search by each key set for which the data has texts, each in its own ledger with a shared vector cache."""
    replied = any(exchange.assistant for talk in talks for exchange in talk.exchanges)
    rows: list[Row] = []
    for key_set in KEY_SETS if replied else (EXCHANGE,):
        modes: tuple[RetrievalMode, ...] = ("dense", "hybrid")
        by_mode = [Row(f"{mode}, {key_set.name}") for mode in modes]
        folder = storage / f"keys {key_set.name}"
        async with remembered(folder, environment, key_set=key_set, vectors=storage / "vectors.sqlite3") as memory:
            search = memory.search(AS_SERVED)
            for talk in talks:
                positions = await memory.record(talk.name, [as_said(exchange) for exchange in talk.exchanges])
                place = {position: at for at, position in enumerate(positions)}
                for question in talk.questions:
                    for mode, row in zip(modes, by_mode, strict=True):
                        started = time.perf_counter()
                        wanted = time_range(question.text, talk.now)
                        found = await search.search(talk.name, question.text, _CANDIDATES, mode, wanted)
                        row.times_ms.append((time.perf_counter() - started) * 1000)
                        row.take(question, [place[item.memory.position] for item in found.candidates])
                _note(f"{key_set.name}: {talk.name}")
        rows += by_mode
    rows.sort(key=lambda row: row.name.partition(",")[0])
    _print_rows(rows)
    print("\nThe data has no summaries, and no chat model was asked for any: the product would index them too.")
    if not replied:
        print("With a line in a turn nobody replies, and the user's text is the whole exchange: see --unit pair.")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _asked(talk: Talk) -> list[answered.Asked]:
    day = talk.now.date()
    return [
        answered.Asked(talk.name, question.text, question.answer, CATEGORIES[question.category], day)
        for question in talk.questions
        if question.answer
    ]


def _with_neighbors(ranked: Sequence[int], talk: Talk, reach: int) -> list[int]:
    """Return the ranking with each memory followed by its neighbors: it shows more than k memories."""
    shown: dict[int, None] = {}
    for at in ranked:
        for near in (at, *(at + step * way for step in range(1, reach + 1) for way in (-1, 1))):
            if 0 <= near < len(talk.exchanges) and talk.exchanges[near].session == talk.exchanges[at].session:
                shown[near] = None
    return list(shown)


def _print(rows: Sequence[Row], by_talk: Sequence[Row]) -> None:
    _print_rows(rows)
    print("\nas served, by conversation")
    for row in by_talk:
        print(_line(row))


def _print_rows(rows: Sequence[Row]) -> None:
    heading = [f"{f'@{k}':>6}" for k in _KS] + ["   MRR"] + [f"{name:>11}" for name in CATEGORIES.values()]
    print(f"{len(rows[0].figures)} questions; recall at k, mean reciprocal rank, and recall at 10 by category\n")
    print(f"{'':40} {' '.join(heading)}   ms p50")
    for row in rows:
        print(f"{_line(row)} {statistics.median(row.times_ms):8.1f}")


def _line(row: Row) -> str:
    cells = [f"{value:6.3f}" for value in row.mean()]
    for category in CATEGORIES:
        asked = any(of == category for of, _ in row.figures)
        cells.append(f"{row.mean(category)[1]:11.3f}" if asked else " " * 11)
    return f"{row.name:40} {' '.join(cells)}"


if __name__ == "__main__":
    main()

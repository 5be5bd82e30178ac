"""What the score gate makes of the scores of the product, and which signs show that no memory answers a question.

    python -m benchmarks.score_gate --data locomo10.json

The hand-made English and Chinese set (`benchmarks.gate_set`) and LoCoMo's conversations, one line of the dialogue per
turn, are recorded and searched through the product's own path, and `domain.score_gate` decides. Unanswerable are the
set's own questions about what was never told, and LoCoMo's questions put to another conversation: as they are, and with
the names of that conversation's speakers, since an unknown name gives a question away.

A *sign* is a number computed from a question's candidates that might tell whether any of them answers it. Its AUC is
the chance that it is higher for an answerable question than for an unanswerable one. Its floor is chosen so that at
most 2 % of the kept evidence is lost; on LoCoMo it is chosen on the other conversations than the one it is tried on.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np

from benchmarks.gate_set import CHINESE, CHINESE_UNANSWERABLE, ENGLISH, ENGLISH_UNANSWERABLE, Fact
from benchmarks.gate_threshold import auc
from benchmarks.locomo_data import Talk, as_said, read_talks
from benchmarks.remembered import Remembered, Said, embedding_endpoint, remembered
from domain.events import RetrievalMode
from domain.fusion import Fusion
from domain.retrieval import Candidate
from domain.score_gate import rule_for
from domain.temporal.time_range import time_range

CANDIDATES = 60
EVIDENCE_LOST_MAX = 0.02
MODES: tuple[RetrievalMode, ...] = ("hybrid", "dense", "lexical")
_TOLD_AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Decided:
    """The candidates of a question, which are evidence, and which the gate keeps. Without evidence: unanswerable."""

    candidates: tuple[Candidate, ...]
    evidence: tuple[bool, ...]
    kept: tuple[bool, ...]
    answerable: bool

    @property
    def evidence_kept(self) -> int:
        return sum(one and other for one, other in zip(self.evidence, self.kept, strict=True))


Sign = Callable[[Decided], float]


def _cosines(one: Decided) -> list[float]:
    return [item.dense_score for item in one.candidates if item.dense_score is not None] or [0.0]


def _deviations(values: Sequence[float]) -> float:
    spread = pstdev(values)
    return (max(values) - fmean(values)) / spread if spread else 0.0


SIGNS: dict[str, Sign] = {
    "best cosine": lambda one: max(_cosines(one)),
    "cosine of the first": lambda one: one.candidates[0].dense_score or 0.0,
    "best cosine over the mean": lambda one: max(_cosines(one)) - fmean(_cosines(one)),
    "the same in deviations": lambda one: _deviations(_cosines(one)),
    "best score": lambda one: one.candidates[0].score,
    "best score over the mean, deviations": lambda one: _deviations([item.score for item in one.candidates]),
    "best BM25": lambda one: max((item.lexical_score or 0.0 for item in one.candidates), default=0.0),
}
_BY_MODE: dict[RetrievalMode, tuple[str, ...]] = {
    "hybrid": tuple(SIGNS),
    "dense": tuple(SIGNS)[:4],
    "lexical": ("best BM25", "best score over the mean, deviations"),
}


@dataclass
class Group:
    """The answerable and unanswerable questions for one list of memories."""

    name: str
    answered: list[Decided]
    unanswered: dict[str, list[Decided]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score_gate")
    parser.add_argument("--data", type=Path, required=True, help="a LoCoMo JSON file")
    parser.add_argument("--storage", type=Path, help="keep the ledger and its vectors here (default: thrown away)")
    given = parser.parse_args(arguments)
    talks = read_talks(given.data, lines_per_turn=1)
    with tempfile.TemporaryDirectory() as folder, embedding_endpoint() as environment:
        asyncio.run(_measure(talks, given.storage or Path(folder), environment))


async def _measure(talks: Sequence[Talk], storage: Path, environment: dict[str, str]) -> None:
    async with remembered(storage, environment) as memory:
        for mode in MODES:
            own = [
                await _own_group(memory, mode, "English", ENGLISH, ENGLISH_UNANSWERABLE),
                await _own_group(memory, mode, "Chinese", CHINESE, CHINESE_UNANSWERABLE),
                await _own_group(
                    memory, mode, "both", (*ENGLISH, *CHINESE), (*ENGLISH_UNANSWERABLE, *CHINESE_UNANSWERABLE)
                ),
            ]
            for talk in talks:
                await memory.record(talk.name, [as_said(exchange) for exchange in talk.exchanges])
            locomo = [await _talk_group(memory, mode, talks, at) for at in range(len(talks))]
            print(f"\n== {mode} ==")
            _print_decisions([*own, *locomo])
            _print_signs(mode, own, locomo)


async def _own_group(
    memory: Remembered, mode: RetrievalMode, name: str, facts: Sequence[Fact], unanswerable: Sequence[str]
) -> Group:
    # One conversation for each fact: none has to do with the next one.
    said = [Said(f"{n:03}", _TOLD_AT, fact.user, fact.assistant, fact.summary) for n, fact in enumerate(facts)]
    positions = await memory.record(name, said)
    place = dict(zip(facts, positions, strict=True))
    answered = [await _decided(memory, mode, name, fact.question, {place[fact]}) for fact in facts if fact.question]
    return Group(name, answered, {"never told": [await _decided(memory, mode, name, q, set()) for q in unanswerable]})


async def _talk_group(memory: Remembered, mode: RetrievalMode, talks: Sequence[Talk], at: int) -> Group:
    talk, other = talks[at], talks[(at + 1) % len(talks)]
    positions = await memory.record(talk.name, [as_said(exchange) for exchange in talk.exchanges])
    answered = [
        await _decided(memory, mode, talk.name, question.text, {positions[place] for place in question.evidence}, talk)
        for question in talk.questions
    ]
    foreign = [question.text for question in other.questions]
    renamed = [_renamed(text, other.speakers, talk.speakers) for text in foreign]
    return Group(
        talk.name,
        answered,
        {
            "of others": [await _decided(memory, mode, talk.name, text, set(), talk) for text in foreign],
            "of others, renamed": [await _decided(memory, mode, talk.name, text, set(), talk) for text in renamed],
        },
    )


async def _decided(
    memory: Remembered, mode: RetrievalMode, user_id: str, question: str, evidence: set[int], talk: Talk | None = None
) -> Decided:
    wanted = time_range(question, talk.now) if talk is not None else None
    found = await memory.search(Fusion()).search(user_id, question, CANDIDATES, mode, wanted)
    candidates = tuple(found.candidates)
    kept: tuple[bool, ...] = ()
    if candidates:
        rule = rule_for(question, candidates, found.mode, None)
        kept = tuple(rule.keeps(candidate) for candidate in candidates)
    right = tuple(candidate.memory.position in evidence for candidate in candidates)
    return Decided(candidates, right, kept, bool(evidence))


def _renamed(question: str, ours: Sequence[str], theirs: Sequence[str]) -> str:
    for one, other in zip(ours, theirs, strict=True):
        question = question.replace(one, other)
    return question


def _print_decisions(groups: Sequence[Group]) -> None:
    print(f"{'':44}{'questions':>10}{'accuracy':>10}{'recall':>8}{'kept':>7}")
    for group in groups:
        right, everything = _sums(group.answered)
        accuracy = (right[0] / max(everything[0], 1) + right[1] / max(everything[1], 1)) / 2
        kept = fmean(sum(one.kept) for one in group.answered)
        recall = right[0] / max(everything[0], 1)
        print(f"{group.name:44}{len(group.answered):>10}{accuracy:>10.3f}{recall:>8.3f}{kept:>7.1f}")
        for kind, unanswered in group.unanswered.items():
            kept = fmean(sum(one.kept) for one in unanswered)
            print(f"  {kind:42}{len(unanswered):>10}{'':>18}{kept:>7.1f}")


def _sums(group: Iterable[Decided]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return how many were decided rightly, of evidence and of others, and how many there were."""
    pairs = [pair for one in group for pair in zip(one.evidence, one.kept, strict=True)]
    right = sum(kept for evidence, kept in pairs if evidence), sum(not kept for evidence, kept in pairs if not evidence)
    return right, (sum(evidence for evidence, _ in pairs), sum(not evidence for evidence, _ in pairs))


def _print_signs(mode: RetrievalMode, own: Sequence[Group], locomo: Sequence[Group]) -> None:
    print(f"\n{'sign':40}{'unanswerable':22}{'AUC':>7}{'floor':>9}{'evidence lost':>15}{'falsely kept dropped':>22}")
    for name in _BY_MODE[mode]:
        sign = SIGNS[name]
        for groups in ([group] for group in own):
            for kind in groups[0].unanswered:
                told = groups[0].answered, groups[0].unanswered[kind]
                floor = floor_for(sign, told[0])
                print(f"{name:40}{f'{groups[0].name}, {kind}':22}{_line(sign, *told, [floor])}")
        for kind in locomo[0].unanswered:
            figures, floors = [], []
            for at, group in enumerate(locomo):
                others = [one for number, other in enumerate(locomo) if number != at for one in other.answered]
                floors.append(floor_for(sign, others))
                figures.append(_effect(sign, group.answered, group.unanswered[kind], floors[-1]))
            answered = [one for group in locomo for one in group.answered]
            unanswered = [one for group in locomo for one in group.unanswered[kind]]
            lost = sum(figure[0] for figure in figures) / sum(figure[1] for figure in figures)
            dropped = sum(figure[2] for figure in figures) / max(sum(figure[3] for figure in figures), 1)
            print(
                f"{name:40}{kind:22}{_auc(sign, answered, unanswered):>7.3f}{fmean(floors):>9.4f}{lost:>15.3f}"
                f"{dropped:>22.3f}"
            )


def floor_for(sign: Sign, answered: Sequence[Decided]) -> float:
    """Return the highest floor below which at most 2 % of the kept evidence lies."""
    order = sorted((sign(one), one.evidence_kept) for one in answered if one.candidates)
    room = EVIDENCE_LOST_MAX * sum(kept for _, kept in order)
    for value, kept in order:
        room -= kept
        if room < 0:
            return value
    raise ValueError("no question has evidence that is kept")


def _line(sign: Sign, answered: Sequence[Decided], unanswered: Sequence[Decided], floors: Sequence[float]) -> str:
    lost, kept, dropped, falsely = _effect(sign, answered, unanswered, floors[0])
    return (
        f"{_auc(sign, answered, unanswered):>7.3f}{floors[0]:>9.4f}{lost / max(kept, 1):>15.3f}"
        f"{dropped / max(falsely, 1):>22.3f}"
    )


def _effect(
    sign: Sign, answered: Sequence[Decided], unanswered: Sequence[Decided], floor: float
) -> tuple[int, int, int, int]:
    """Return the evidence lost and that kept without the floor, and the same for falsely kept memories."""

    def under(one: Decided) -> bool:
        return bool(one.candidates) and sign(one) < floor

    return (
        sum(one.evidence_kept for one in answered if under(one)),
        sum(one.evidence_kept for one in answered),
        sum(sum(one.kept) for one in unanswered if under(one)),
        sum(sum(one.kept) for one in unanswered),
    )


def _auc(sign: Sign, answered: Sequence[Decided], unanswered: Sequence[Decided]) -> float:
    both = [one for one in (*answered, *unanswered) if one.candidates]
    values = np.array([sign(one) for one in both], np.float32)
    return auc(values, np.array([one.answerable for one in both]))


if __name__ == "__main__":
    main()

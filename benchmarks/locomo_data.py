"""LoCoMo's conversations as histories of turns, and its questions with the turns that answer them.

Adversarial questions (category 5) and those without evidence are left out. The data (Maharana et al. 2024,
arXiv 2402.17753) is not part of this project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.remembered import Said
from benchmarks.sample import spread

ADVERSARIAL = 5
CATEGORIES = {1: "multi-hop", 2: "temporal", 3: "open-domain", 4: "single-hop"}


@dataclass(frozen=True)
class Exchange:
    """One or two lines of a session; ``number`` counts from 1 within the session."""

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
    """A question, and where its answers stand in the conversation's list of exchanges."""

    text: str
    category: int
    evidence: frozenset[int]
    answer: str = ""


@dataclass(frozen=True)
class Talk:
    """One conversation of the data set. Its questions are asked at ``now``, after the last session."""

    name: str
    exchanges: tuple[Exchange, ...]
    questions: tuple[Question, ...]
    now: datetime

    @property
    def speakers(self) -> list[str]:
        """The names of those who speak first in an exchange, in the order in which they first do."""
        return list(dict.fromkeys(exchange.user.partition(":")[0] for exchange in self.exchanges))


def read_talks(path: Path, *, lines_per_turn: int = 2) -> list[Talk]:
    """Read a LoCoMo file, taking so many lines of the dialogue as one exchange."""
    return [_talk(sample, lines_per_turn) for sample in json.loads(path.read_text(encoding="utf-8"))]


def sampled(talks: Sequence[Talk], limit: int | None) -> list[Talk]:
    """Return the talks with a sample of their questions, spread over the categories; talks without any are left out."""
    asked = [(talk, question) for talk in talks for question in talk.questions]
    chosen: dict[str, list[Question]] = {}
    for talk, question in spread(asked, limit, lambda pair: pair[1].category):
        chosen.setdefault(talk.name, []).append(question)
    return [replace(talk, questions=tuple(chosen[talk.name])) for talk in talks if talk.name in chosen]


def as_said(exchange: Exchange) -> Said:
    """Return an exchange as a turn to record; a session is a conversation."""
    return Said(exchange.session, exchange.ts, exchange.user, exchange.assistant)


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
            answer = str(item.get("answer", ""))
            questions.append(Question(item["question"], item["category"], evidence, answer))
    return Talk(sample["sample_id"], tuple(exchanges), tuple(questions), max(exchange.ts for exchange in exchanges))

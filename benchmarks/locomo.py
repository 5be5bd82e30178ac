"""LoCoMo as this product would hold it: each two lines of a dialogue are one exchange, each session a conversation.

Adversarial questions (category 5) and those without evidence are left out. The data is not part of this project:
its authors publish it under CC BY-NC 4.0, and every measurement is given the path of a copy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ADVERSARIAL = 5


@dataclass(frozen=True)
class Exchange:
    """Two lines of a session; ``number`` counts within the session, from 1."""

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


def read_talks(path: Path) -> list[Talk]:
    """Read a LoCoMo file."""
    return [_talk(sample) for sample in json.loads(path.read_text(encoding="utf-8"))]


def _talk(sample: Mapping[str, Any]) -> Talk:
    conversation = sample["conversation"]
    exchanges: list[Exchange] = []
    place: dict[str, int] = {}
    for session, lines in conversation.items():
        if not isinstance(lines, list):
            continue
        ts = datetime.strptime(conversation[f"{session}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
        for at in range(0, len(lines), 2):
            pair = lines[at : at + 2]
            place |= {line["dia_id"]: len(exchanges) for line in pair}
            said = [f"{line['speaker']}: {line['text']}" for line in pair]
            exchanges.append(Exchange(session, at // 2 + 1, ts, said[0], "\n".join(said[1:])))
    questions = []
    for item in sample["qa"]:
        # Some evidence fields hold several ids in one string.
        named = re.findall(r"D\d+:\d+", " ".join(item["evidence"]))
        evidence = frozenset(place[name] for name in named if name in place)
        if item["category"] != ADVERSARIAL and evidence:
            questions.append(Question(item["question"], item["category"], evidence))
    return Talk(sample["sample_id"], tuple(exchanges), tuple(questions), max(exchange.ts for exchange in exchanges))

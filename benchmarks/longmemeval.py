"""How much of the evidence for LongMemEval's questions memory finds, by session and by turn.

    python -m benchmarks.longmemeval --data longmemeval_s.json --limit 50
    python -m benchmarks.longmemeval --data longmemeval_s.json --answer --limit 50

Each question has its own history, recorded as that of one user: a session is a conversation with its own date, and a
message of the user with its answer is a turn. Searches go through the service's own path. Only the embedding model is
called, unless ``--answer`` needs a chat model. Evidence are the sessions that the data names and the turns that it
marks with ``has_answer``. Questions about what was never said (``_abs``) and those without evidence are left out. The
data (Wu et al. 2024, arXiv 2410.10813) is not part of this project.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import answered
from benchmarks.ranks import ndcg, recall_all, recall_any, without_repeats
from benchmarks.remembered import Said, embedding_endpoint, remembered
from benchmarks.sample import spread
from domain.events import RetrievalMode
from domain.fusion import Fusion

_ABSTAIN = "_abs"
_CANDIDATES = 60
_FIGURES: dict[str, Callable[[Sequence[int], Collection[int]], float]] = {
    "any@5": lambda ranked, evidence: recall_any(ranked, evidence, 5),
    "all@5": lambda ranked, evidence: recall_all(ranked, evidence, 5),
    "any@10": lambda ranked, evidence: recall_any(ranked, evidence, 10),
    "all@10": lambda ranked, evidence: recall_all(ranked, evidence, 10),
    "ndcg@10": lambda ranked, evidence: ndcg(ranked, evidence, 10),
}
_WAYS: tuple[tuple[str, RetrievalMode, Fusion], ...] = (
    ("lexical", "lexical", Fusion()),
    ("dense", "dense", Fusion()),
    ("hybrid, no boost", "hybrid", Fusion(neighbor_boost=())),
    ("hybrid (as served)", "hybrid", Fusion()),
)


@dataclass(frozen=True)
class Item:
    """A question with its history: the turns, the session of each (by place), and the evidence."""

    name: str
    question: str
    turns: tuple[Said, ...]
    session_of: tuple[int, ...]
    sessions: frozenset[int]
    evidence: frozenset[int]
    kind: str
    answer: str
    asked_at: datetime


def read_items(path: Path) -> list[Item]:
    """Read a LongMemEval file, leaving out questions without evidence."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    items = (_item(entry) for entry in entries if not entry["question_id"].endswith(_ABSTAIN))
    return [item for item in items if item.sessions]


def _item(entry: Mapping[str, Any]) -> Item:
    turns: list[Said] = []
    session_of: list[int] = []
    evidence: set[int] = set()
    names = entry["haystack_session_ids"]
    for number, (name, date, session) in enumerate(
        zip(names, entry["haystack_dates"], entry["haystack_sessions"], strict=True)
    ):
        ts = _moment(date)
        for user, assistant, marked in _exchanges(session):
            if marked:
                evidence.add(len(turns))
            turns.append(Said(f"{number} {name}", ts, user, assistant))
            session_of.append(number)
    named = {number for number, name in enumerate(names) if name in entry["answer_session_ids"]}
    return Item(
        entry["question_id"],
        entry["question"],
        tuple(turns),
        tuple(session_of),
        frozenset(named & set(session_of)),
        frozenset(evidence),
        entry["question_type"],
        str(entry["answer"]),
        _moment(entry["question_date"]),
    )


def _moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y/%m/%d (%a) %H:%M").replace(tzinfo=UTC)


def _exchanges(session: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, bool]]:
    """Return each message of the user with its answer, and whether either is marked as evidence."""
    made: list[tuple[str, str, bool]] = []
    for message in session:
        marked = bool(message.get("has_answer"))
        if message["role"] == "user" or not made or made[-1][1]:
            said = (message["content"], "") if message["role"] == "user" else ("", message["content"])
            made.append((*said, marked))
        else:
            user, _, already = made[-1]
            made[-1] = (user, message["content"], already or marked)
    return made


@dataclass
class Row:
    """The results of one way of searching: figures at both levels and milliseconds of each question."""

    name: str
    by_session: list[list[float]] = field(default_factory=list)
    by_turn: list[list[float]] = field(default_factory=list)
    times_ms: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.longmemeval")
    parser.add_argument("--data", type=Path, required=True, help="a LongMemEval JSON file")
    parser.add_argument("--limit", type=int, help="a sample of so many; each has a whole history to embed")
    parser.add_argument("--storage", type=Path, help="keep the ledger and its vectors here (default: thrown away)")
    answered.add_options(parser)
    given = parser.parse_args(arguments)
    items = spread(read_items(given.data), given.limit, lambda item: item.kind)
    if not items:
        parser.error(f"--data = {given.data.name}: no question in it has evidence")
    with tempfile.TemporaryDirectory() as folder:
        storage = given.storage or Path(folder)
        if given.answer:
            answered.measure(
                given, storage, {item.name: item.turns for item in items}, [_asked(item) for item in items]
            )
            return
        with embedding_endpoint() as environment:
            rows = asyncio.run(_measure(items, storage, environment))
    for level, chosen in (("session", "by_session"), ("turn", "by_turn")):
        asked = len(getattr(rows[0], chosen))
        print(f"\nby {level}, {asked} questions")
        print(" " * 24, *(f"{name:>8}" for name in _FIGURES), "  ms p50")
        for row in rows:
            means = [statistics.fmean(column) for column in zip(*getattr(row, chosen), strict=True)]
            print(f"{row.name:24}", *(f"{mean:8.3f}" for mean in means), f"{statistics.median(row.times_ms):8.1f}")


def _asked(item: Item) -> answered.Asked:
    return answered.Asked(item.name, item.question, item.answer, item.kind, item.asked_at.date())


async def _measure(items: Sequence[Item], storage: Path, environment: Mapping[str, str]) -> list[Row]:
    rows = [Row(name) for name, _, _ in _WAYS]
    async with remembered(storage, environment) as memory:
        for item in items:
            place = {position: at for at, position in enumerate(await memory.record(item.name, item.turns))}
            for (_, mode, fusion), row in zip(_WAYS, rows, strict=True):
                started = time.perf_counter()
                found = await memory.search(fusion).search(item.name, item.question, _CANDIDATES, mode)
                row.times_ms.append((time.perf_counter() - started) * 1000)
                turns = [place[candidate.memory.position] for candidate in found.candidates]
                sessions = without_repeats([item.session_of[turn] for turn in turns])
                row.by_session.append([figure(sessions, item.sessions) for figure in _FIGURES.values()])
                if item.evidence:
                    row.by_turn.append([figure(turns, item.evidence) for figure in _FIGURES.values()])
    return rows


if __name__ == "__main__":
    main()

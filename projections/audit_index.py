"""What the gate decided, as plain numbers: ``audit.sqlite3``, for the auditor's questions about all of a ledger.

Its tables are joined with the ledger's views by position, and hold no texts. ``opm audit-index`` brings it up to date
from its checkpoint; nothing else writes it, and no turn waits for it. It can be deleted at any time, and an erasure
does. Where its checkpoint is not in the ledger, as after a restore, it is made anew.

Decisions that were imported with a person's export were not made here and are left out.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from domain.chain import GENESIS
from domain.clock import iso
from domain.decisions import was_asked
from domain.errors import IndexUnavailable
from domain.events import (
    CandidateFound,
    Event,
    GateDecided,
    RetrievalRecorded,
    TurnFailed,
    TurnRecorded,
)
from domain.ledger_reader import LedgerReader
from domain.origin import is_imported
from domain.sqlite import DRIVER, transaction
from projections.erasing_lock import erasing_lock

AUDIT_NAME = "audit.sqlite3"
_SUFFIXES = ("", "-journal", "-wal", "-shm")
_VERSION = 1
"""Of the tables below: a file of another version is made anew."""
_TYPES = (RetrievalRecorded.type, GateDecided.type, TurnRecorded.type, TurnFailed.type)
_EVENTS_PER_READ = 2000
"""More than one answer has, or a page could end in the middle of its only one."""
_READS_PER_COMMIT = 20

_TABLES = """
CREATE TABLE audit_checkpoint (
    version INTEGER NOT NULL,
    position INTEGER NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE audit_decisions (
    position INTEGER PRIMARY KEY,
    recorded_at TEXT NOT NULL,
    user_id TEXT NOT NULL,
    strategy TEXT,
    outcome TEXT,
    model TEXT,
    prompt_version TEXT,
    embedding_model TEXT,
    proposed INTEGER NOT NULL,
    excluded INTEGER NOT NULL,
    not_asked INTEGER NOT NULL,
    decided INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    over_limit INTEGER NOT NULL,
    scored INTEGER NOT NULL,
    score_sum REAL NOT NULL,
    score_best REAL,
    replayed_scored INTEGER NOT NULL,
    replayed_score_sum REAL NOT NULL
);
CREATE TABLE audit_judges (
    judge INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    prompt_version TEXT,
    UNIQUE (model, prompt_version)
);
CREATE TABLE audit_questions (
    question INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    text_hash BLOB NOT NULL,
    UNIQUE (user_id, text_hash)
);
CREATE TABLE audit_judged (
    question INTEGER NOT NULL,
    memory INTEGER NOT NULL,
    judge INTEGER NOT NULL,
    judged INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (question, memory, judge)
) WITHOUT ROWID;
CREATE INDEX audit_judged_again ON audit_judged (judge, judged, kept) WHERE judged > 1;
CREATE INDEX audit_judged_differently ON audit_judged (last) WHERE kept > 0 AND kept < judged;
"""
_ADD_DECISION = "INSERT INTO audit_decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_ADD_JUDGE = """
INSERT INTO audit_judges (model, prompt_version) SELECT ?1, ?2
WHERE NOT EXISTS (SELECT 1 FROM audit_judges WHERE model = ?1 AND prompt_version IS ?2)
"""
_ADD_JUDGED = """
INSERT INTO audit_judged VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET judged = judged + excluded.judged, kept = kept + excluded.kept, last = excluded.last
"""

_Judge = tuple[str, str | None]
_Question = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class BroughtUp:
    """What was taken in: new decisions, up to which position; ``anew`` where the file was begun again."""

    decisions: int
    position: int
    anew: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    """The decisions of one answer."""

    retrieval: RetrievalRecorded
    gate: GateDecided | None
    turn: TurnRecorded | TurnFailed | None
    searched: Event


@dataclass(slots=True)
class _Pair:
    judged: int = 0
    kept: int = 0
    last: int = 0


@dataclass(slots=True)
class _Batch:
    """What is added in one transaction."""

    decisions: list[tuple[Any, ...]] = field(default_factory=list)
    questions: dict[_Question, int] = field(default_factory=dict)
    """The position of the first search with this question."""
    pairs: dict[tuple[_Question, int, _Judge], _Pair] = field(default_factory=dict)


def bring_up_to_date(
    reader: LedgerReader, storage_dir: Path, progress: Callable[[int], None] = lambda _position: None
) -> BroughtUp:
    """Take in the decisions that ``audit.sqlite3`` lacks, and make the file where there is none.

    An erasure that comes between two transactions removes the file, and this begins again. Raises
    :class:`IndexUnavailable` where the file cannot be read or written.
    """
    decisions, anew = 0, False
    while True:
        with erasing_lock(storage_dir):
            try:
                with closing(_opened(storage_dir / AUDIT_NAME)) as connection:
                    begun = _begin(connection, reader)
                    taken, position, complete = _take_in(connection, reader)
            except DRIVER.Error as error:
                raise IndexUnavailable(
                    f"{AUDIT_NAME} cannot be used ({error}): delete it, and run the same command again"
                ) from None
        decisions, anew = (taken if begun else decisions + taken), anew or begun
        progress(position)
        if complete:
            return BroughtUp(decisions, position, anew)


def remove(storage_dir: Path) -> None:
    """Delete the file, and what SQLite may have left beside it."""
    for suffix in _SUFFIXES:
        (storage_dir / f"{AUDIT_NAME}{suffix}").unlink(missing_ok=True)


def _opened(path: Path) -> Any:  # the DBAPI has no types of its own
    if not path.exists():
        remove(path.parent)  # a journal without its file would be played into the new one
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    connection = DRIVER.connect(path, isolation_level=None, timeout=60)
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA cache_size = -131072")
    return connection


def _begin(connection: Any, reader: LedgerReader) -> bool:
    """Make the tables where they are missing or of another ledger; tell whether that was so."""
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    if "audit_checkpoint" in tables:
        version, position, known = connection.execute("SELECT version, position, hash FROM audit_checkpoint").fetchone()
        if version == _VERSION and reader.hash_at(position) == known:
            return False
    with transaction(connection):
        for name in tables:
            connection.execute(f"DROP TABLE {name}")
        for statement in filter(str.strip, _TABLES.split(";")):
            connection.execute(statement)
        connection.execute("INSERT INTO audit_checkpoint VALUES (?, 0, ?)", (_VERSION, GENESIS))
    return True


def _take_in(connection: Any, reader: LedgerReader) -> tuple[int, int, bool]:
    """Take in a bounded number of events in one transaction, together with the checkpoint.

    Returns how many decisions, the new position, and whether the ledger has no more.
    """
    ((position,),) = connection.execute("SELECT position FROM audit_checkpoint")
    batch, complete = _Batch(), False
    for _ in range(_READS_PER_COMMIT):
        events: Sequence[Event] = reader.events_after(position, _EVENTS_PER_READ, _TYPES)
        complete = len(events) < _EVENTS_PER_READ
        if not complete:
            events = _whole_answers(events)
        if events:
            position = events[-1].position
        for answer in _answers(events):
            _add(batch, answer)
        if complete:
            break
    with transaction(connection):
        _write(connection, batch)
        connection.execute("UPDATE audit_checkpoint SET position = ?, hash = ?", (position, reader.hash_at(position)))
    return len(batch.decisions), position, complete


def _whole_answers(events: Sequence[Event]) -> Sequence[Event]:
    """Leave out the last answer, of which the next page may hold the rest."""
    last = _of_answer(events[-1])
    count = sum(1 for event in events if _of_answer(event) != last)
    return events[:count] if count and last[1] is not None else events


def _of_answer(event: Event) -> tuple[str, str | None]:
    return event.user_id, event.correlation_id


def _answers(events: Sequence[Event]) -> Iterator[_Answer]:
    """Yield the decisions of each answer; they were appended together, so they follow each other."""
    for _, group in groupby(events, key=_of_answer):
        payloads = list(group)
        searched = next((event for event in payloads if isinstance(event.payload, RetrievalRecorded)), None)
        if searched is None or is_imported(searched.origin):
            continue
        assert isinstance(searched.payload, RetrievalRecorded)
        gate = next((event.payload for event in payloads if isinstance(event.payload, GateDecided)), None)
        turn = next((event.payload for event in payloads if isinstance(event.payload, TurnRecorded | TurnFailed)), None)
        yield _Answer(searched.payload, gate, turn, searched)


def _add(batch: _Batch, answer: _Answer) -> None:
    retrieval, gate, searched = answer.retrieval, answer.gate, answer.searched
    counts: Counter[str] = Counter()
    for verdict in gate.verdicts if gate is not None else ():
        if gate is not None and was_asked(gate, verdict) is False:
            counts["not_asked"] += 1
        else:
            counts["decided"] += 1
            counts["kept"] += verdict.keep
            counts["over_limit"] += verdict.over_limit
    scores = _scores(retrieval.candidates)
    replayed = answer.turn.replayed if answer.turn is not None else ()
    replayed_scores = [scores[memory_id] for memory_id in replayed if memory_id in scores]
    batch.decisions.append(
        (
            searched.position,
            iso(searched.recorded_at),
            searched.user_id,
            *((gate.strategy, gate.outcome, gate.model, gate.prompt_version) if gate is not None else (None,) * 4),
            retrieval.embedding_model,
            len(retrieval.candidates),
            sum(candidate.excluded is not None for candidate in retrieval.candidates),
            *(counts[name] for name in ("not_asked", "decided", "kept", "over_limit")),
            len(scores),
            sum(scores.values()),
            max(scores.values(), default=None),
            len(replayed_scores),
            sum(replayed_scores),
        )
    )
    if gate is not None and gate.model is not None and gate.outcome == "ok":
        _add_judged(batch, answer, gate, (gate.model, gate.prompt_version))


def _add_judged(batch: _Batch, answer: _Answer, gate: GateDecided, judge: _Judge) -> None:
    question = (answer.searched.user_id, _hash(answer.retrieval.query))
    batch.questions.setdefault(question, answer.searched.position)
    positions = {candidate.memory_id: candidate.turn_position for candidate in answer.retrieval.candidates}
    for verdict in gate.verdicts:
        if verdict.memory_id in positions and was_asked(gate, verdict):
            pair = batch.pairs.setdefault((question, positions[verdict.memory_id], judge), _Pair())
            pair.judged += 1
            pair.kept += verdict.keep or verdict.over_limit  # what the limit cut off had been kept by the gate
            pair.last = answer.searched.position


def _scores(candidates: Sequence[CandidateFound]) -> dict[str, float]:
    """Return the similarities by memory: fused scores of two kinds of search cannot be compared."""
    return {each.memory_id: each.dense_score for each in candidates if each.dense_score is not None}


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _write(connection: Any, batch: _Batch) -> None:
    connection.executemany(_ADD_DECISION, batch.decisions)
    judges: dict[_Judge, int] = {}
    for judge in {judge for _, _, judge in batch.pairs}:
        connection.execute(_ADD_JUDGE, judge)
        found = "SELECT judge FROM audit_judges WHERE model = ? AND prompt_version IS ?"
        ((judges[judge],),) = connection.execute(found, judge)
    questions: dict[_Question, int] = {}
    for (user_id, text_hash), position in batch.questions.items():
        connection.execute("INSERT OR IGNORE INTO audit_questions VALUES (?, ?, ?)", (position, user_id, text_hash))
        found = "SELECT question FROM audit_questions WHERE user_id = ? AND text_hash = ?"
        ((questions[user_id, text_hash],),) = connection.execute(found, (user_id, text_hash))
    # In the order of the key, so that neighboring rows share their pages.
    connection.executemany(
        _ADD_JUDGED,
        sorted(
            (questions[question], memory, judges[judge], pair.judged, pair.kept, pair.last)
            for (question, memory, judge), pair in batch.pairs.items()
        ),
    )

"""The questions of ``docs/audit/*.sql`` as values: text, parameters, SQL, and the answer shown.

A file is one statement below a header of comments. The first line is the question. Each line ``.param set :name "'x'"``
gives a parameter and the value used for the shown answer. The lines after ``Answer`` are that answer, from the small
ledger that :func:`small_ledger` makes. SQLite's shell and Datasette read the file as it is; one that asks tables of
``audit.sqlite3`` needs that file attached.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from benchmarks.synthetic_history import START, make_ledger
from domain.clock import Clock, iso
from domain.events import TurnRecorded
from domain.ledger import Ledger
from domain.ledger_reader import LedgerReader
from domain.origin import Origin
from domain.part_erasure import begin, blank, complete, part_of_memories
from domain.sqlite import DRIVER, open_engine
from projections.audit_index import AUDIT_NAME, BroughtUp, bring_up_to_date

FOLDER = Path(__file__).parent.parent / "docs" / "audit"
_PARAMETER = re.compile(r"^--   \.param set :(\w+) \"'(.*)'\"", re.MULTILINE)
_ANSWER = "-- Answer, of the small synthetic ledger:\n--\n"
_ROWS_SHOWN = 10
_CELL_CHARS = 44


@dataclass(frozen=True, slots=True)
class Question:
    """One file: ``parameters`` by name, ``answer`` as in the comment lines, without the ``--``."""

    path: Path
    title: str
    parameters: Mapping[str, str]
    answer: str
    sql: str

    @property
    def needs_index(self) -> bool:
        """Tell whether it asks tables of ``audit.sqlite3``."""
        return "audit_" in self.sql

    def ask(
        self, ledger: Path, parameters: Mapping[str, str | None] | None = None
    ) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
        """Return the column names and the rows, from a ledger opened read-only with ``audit.sqlite3`` beside it."""
        with_driver = DRIVER.connect(f"file:{ledger}?mode=ro", uri=True)
        try:
            if self.needs_index:
                with_driver.execute("ATTACH ? AS audit", (f"file:{ledger.with_name(AUDIT_NAME)}?mode=ro",))
            cursor = with_driver.execute(self.sql, dict(parameters if parameters is not None else self.parameters))
            return [column[0] for column in cursor.description], cursor.fetchall()
        finally:
            with_driver.close()


def questions() -> list[Question]:
    """Return all questions in the order of their numbers."""
    return [_read(path) for path in sorted(FOLDER.glob("*.sql"))]


def small_ledger(folder: Path) -> Path:
    """Make the ledger behind the shown answers: three people, one month, the same every time."""
    ledger = make_ledger(folder, 600, users=3, seed=30, candidates=(6, 60), days=30, in_flight=0)
    _erase_a_memory(ledger)
    _log_access(ledger)
    _make_keys(ledger)
    index(ledger)
    return ledger


def index(ledger: Path) -> BroughtUp:
    """Bring ``audit.sqlite3`` beside a ledger up to date."""
    engine = open_engine(ledger, writer=False)
    try:
        return bring_up_to_date(LedgerReader(engine), ledger.parent)
    finally:
        engine.dispose()


def _erase_a_memory(path: Path) -> None:
    """Erase the first memory of somebody who is in no other answer."""
    ids = map(str, count(1))
    clock = Clock(now=lambda: START + timedelta(days=40), new_id=lambda: str(uuid5(NAMESPACE_OID, next(ids))))
    ledger = Ledger(path, clock)
    try:
        user_id = max(ledger.reader.all_users())
        turns = ledger.persons.events_of_user(user_id, (TurnRecorded.type,))
        part = part_of_memories(ledger.persons, user_id, [next(iter(turns)).event_id])
        origin = Origin(actor="account:opm", route="opm erase", client="opm 1")
        begin(ledger, user_id, part, "asked by letter", origin)
        [begun] = ledger.persons.parts_begun()
        blank(ledger, user_id, begun.event_id, part.positions)
        complete(ledger, user_id, begun.event_id)
    finally:
        ledger.close()


def _log_access(ledger: Path) -> None:
    """Log a read, and two calls that were refused."""
    memories, chat = "GET /v1/memories", "POST /v1/chat/completions"
    calls = (
        (1, "req-a1", "key:ann", "page/1", memories, 200, "ann"),
        (2, "req-b7", "key:bob", "curl/8", memories, 403, "ann"),
        (3, "req-c3", None, "curl/8", chat, 401, None),
    )
    connection = DRIVER.connect(ledger)
    connection.executemany(
        "INSERT INTO access_log (at, request_id, actor, client, route, status, user_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(iso(START + timedelta(days=day)), *call) for day, *call in calls],
    )
    connection.commit()
    connection.close()


def _make_keys(ledger: Path) -> None:
    """Make keys: one that is good, one that was revoked, one that has expired, and one from after the month."""
    keys = (
        ("0a1b2c3d", "laptop", "ann", 0, 0, 1, None, None),
        ("1b2c3d4e", "Open WebUI", None, 1, 0, 2, None, 20),
        ("2c3d4e5f", "a week's visit", "bob", 0, 1, 3, 10, None),
        ("3d4e5f6a", "Open WebUI again", None, 1, 0, 40, None, None),
    )

    def day(number: int | None) -> str | None:
        return iso(START + timedelta(days=number)) if number is not None else None

    connection = DRIVER.connect(ledger)
    connection.executemany(
        "INSERT INTO api_keys (key_id, key_hash, name, user_id, trust_headers, read_only, user_is, created_at, "
        "created_by, expires_at, revoked_at, revoked_by) "
        "VALUES (?, ?, ?, ?, ?, ?, 'person', ?, 'account:opm', ?, ?, ?)",
        [
            (key_id, f"sha256:{key_id}", name, user, trusts, reads, day(made), day(expires), day(revoked), by)
            for key_id, name, user, trusts, reads, made, expires, revoked in keys
            for by in ["account:opm" if revoked is not None else None]
        ],
    )
    connection.commit()
    connection.close()


def rendered(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return an answer as aligned text: the first rows, long texts cut."""
    shown = [list(columns), *([_cell(value) for value in row] for row in rows[:_ROWS_SHOWN])]
    widths = [max(_width(row[place]) for row in shown) for place in range(len(columns))]
    lines = [
        "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)) for row in shown
    ]
    if len(rows) > _ROWS_SHOWN:
        lines.append(f"... {len(rows)} rows in all")
    return "".join(f"{line.rstrip()}\n" for line in lines)


def with_answer(question: Question, answer: str) -> str:
    """Return the file of a question with another answer."""
    text = question.path.read_text(encoding="utf-8")
    header = text[: -len(question.sql)].partition(_ANSWER)[0].rstrip("-\n ")
    commented = "".join(f"--   {line}\n" for line in answer.splitlines())
    return f"{header}\n--\n{_ANSWER}{commented}{question.sql}"


def _read(path: Path) -> Question:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    comments = next(place for place, line in enumerate(lines) if not line.startswith("--"))
    header = "".join(lines[:comments])
    answer = header.partition(_ANSWER)[2]
    return Question(
        path=path,
        title=lines[0].removeprefix("--").strip(),
        parameters=dict(_PARAMETER.findall(header)),
        answer="".join(line.removeprefix("--   ") for line in answer.splitlines(keepends=True)),
        sql="".join(lines[comments:]),
    )


def _cell(value: Any) -> str:  # any value that SQLite returns
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= _CELL_CHARS else f"{text[: _CELL_CHARS - 1]}…"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)

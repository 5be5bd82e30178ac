"""``python -m benchmarks.audit``: how long the auditor's questions take on a large ledger.

:mod:`benchmarks.synthetic_history` makes the ledger through the product's own append. Every file of ``docs/audit`` is
then run on it with the driver of the service and with the ``sqlite3`` shell, for the busiest user and the newest days.
``audit.sqlite3`` is brought up to date first.
The baselines of the same run are a scan of the whole table and a count of its rows.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from tqdm import tqdm

from benchmarks import datasette_page
from benchmarks.audit_questions import Question, index, questions, rendered, small_ledger, with_answer
from benchmarks.synthetic_history import make_ledger
from domain.clock import iso
from domain.sqlite import DRIVER
from projections.audit_index import AUDIT_NAME

SECONDS_MAX = 2.0
_RUNS = 5
_BASELINES = {
    "count the rows": "SELECT count(*) FROM events",
    "scan the table": "SELECT sum(length(hash)) FROM events NOT INDEXED",
}
_DAYS_ASKED = {"03": 7, "06": 7, "07": 30, "17": 7}
"""How far back questions with a default look, by number; the synthetic ledger ends in the past."""


@dataclass(frozen=True, slots=True, order=True)
class Took:
    """Wall-clock and processor seconds, which differ much on a busy machine."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:8.3f} ({self.processor:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description="Time of the auditor's questions.")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=40)
    parser.add_argument("--folder", type=Path, help="where the ledger is made and stays, or already is")
    parser.add_argument("--write-answers", action="store_true", help="renew the answers shown in docs/audit instead")
    given = parser.parse_args()
    if given.write_answers:
        _write_answers()
        return
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="audit-")))
        ledger = folder / "ledger.sqlite3"
        if not ledger.exists():
            _make(folder, given.events, given.users)
        _measure(ledger)


def _write_answers() -> None:
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        ledger = small_ledger(Path(folder))
        for question in questions():
            question.path.write_text(with_answer(question, rendered(*question.ask(ledger))), encoding="utf-8")
    datasette_page.PATH.write_text(datasette_page.made(), encoding="utf-8")


def _make(folder: Path, events: int, users: int) -> None:
    # Appends without a pause keep the ledger from checkpointing its WAL, which it would log for every batch.
    logging.getLogger("domain.ledger").setLevel(logging.ERROR)
    began = time.perf_counter()
    with tqdm(total=events, unit=" events", file=sys.stderr) as bar:

        def show(written: int) -> None:
            bar.update(written - bar.n)

        ledger = make_ledger(folder, events, users=users, progress=show)
    took = time.perf_counter() - began
    print(f"made {events} events of {users} users in {took:.0f} s: {ledger.stat().st_size / 1e9:.2f} GB\n")


def _measure(ledger: Path) -> None:
    asked = [(question, _parameters(question, ledger)) for question in questions()]
    shell = shutil.which("sqlite3")
    version = ""
    if shell is not None:
        version = subprocess.run([shell, "--version"], capture_output=True, text=True, check=True).stdout.split()[0]
    began = time.perf_counter()
    done = index(ledger)
    print(f"audit.sqlite3: {done.decisions} decisions taken in, {time.perf_counter() - began:.0f} s")
    print(f"{ledger.with_name(AUDIT_NAME).stat().st_size / 1e6:.0f} MB\n")
    print(f"{'':40} {f'SQLite {DRIVER.sqlite_version}':>17} {f'shell {version}':>17}   rows")
    for name, sql in _BASELINES.items():
        print(f"{name:40} {_fastest(partial(_driver_rows, ledger, sql))}")
    slowest = Took(0.0, 0.0)
    for question, parameters in asked:
        _, rows = question.ask(ledger, parameters)
        took = [_fastest(partial(question.ask, ledger, parameters))]
        if shell is not None:
            took.append(_fastest(partial(_ask_shell, shell, ledger, question, parameters)))
        slowest = max(slowest, *took)
        print(f"{question.path.stem:40} {' '.join(map(str, took))}   {len(rows)}")
    verdict = "met" if slowest.wall < SECONDS_MAX else "MISSED"
    print(f"\nseconds (of processor time)\nslowest: {slowest} (goal: under {SECONDS_MAX:g} s each: {verdict})")


def _driver_rows(ledger: Path, sql: str) -> list[tuple[object, ...]]:
    connection = DRIVER.connect(f"file:{ledger}?mode=ro", uri=True)
    with contextlib.closing(connection):
        rows: list[tuple[object, ...]] = connection.execute(sql).fetchall()
        return rows


def _parameters(question: Question, ledger: Path) -> Mapping[str, str]:
    """Return parameters for the busiest user, their last answer with memories, and a memory that it replayed."""
    ((user, answer, memory, last),) = _driver_rows(
        ledger,
        """
        WITH busiest AS MATERIALIZED (
            SELECT user_id, count(*) AS turns FROM events WHERE type = 'TurnRecorded' GROUP BY user_id
            ORDER BY turns DESC LIMIT 1
        )
        SELECT user_id, correlation_id, payload ->> '$.replayed[0]', recorded_at FROM events
        WHERE user_id = (SELECT user_id FROM busiest) AND type = 'TurnRecorded'
          AND payload ->> '$.replayed[0]' IS NOT NULL
        ORDER BY position DESC LIMIT 1
        """,
    )
    days = _DAYS_ASKED.get(question.path.stem[:2])
    since = iso(datetime.fromisoformat(str(last)) - timedelta(days=days)) if days is not None else ""
    known = {"user": user, "answer": answer, "memory": memory, "word": "", "since": since, "until": "", "at": last}
    return {name: str(known[name]) for name in question.parameters}


def _ask_shell(shell: str, ledger: Path, question: Question, parameters: Mapping[str, str]) -> None:
    commands = [f""".param set :{name} "'{value}'\"""" for name, value in parameters.items()]
    if question.needs_index:
        commands.append(f"ATTACH '{ledger.with_name(AUDIT_NAME)}' AS audit;")
    subprocess.run(
        [shell, "-readonly", str(ledger)],
        input="\n".join([*commands, question.path.read_text(encoding="utf-8")]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )


def _fastest(run: Callable[[], object]) -> Took:
    """Return the fastest of several runs: other work on the machine can only add time."""
    times = []
    for _ in range(_RUNS):
        wall, processor = time.perf_counter(), _processor_s()
        run()
        times.append(Took(time.perf_counter() - wall, _processor_s() - processor))
    return Took(min(took.wall for took in times), min(took.processor for took in times))


def _processor_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()

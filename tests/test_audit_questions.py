"""The questions of ``docs/audit`` run in every client they are meant for, and the answers they show are true."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import datasette_page
from benchmarks.audit_questions import Question, questions, rendered, small_ledger, with_answer
from benchmarks.synthetic_history import make_ledger
from domain.chain import GENESIS
from projections.audit_index import AUDIT_NAME
from tests.ledgers import ROOT, all_stored, check_chain, check_chain_with_erasures, opened

SHELL = shutil.which("sqlite3")
QUESTIONS = questions()


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_ledger(tmp_path_factory.mktemp("small"))


def test_they_are_numbered_and_the_document_lists_them() -> None:
    assert [question.path.name[:3] for question in QUESTIONS] == [f"{number:02}-" for number in range(1, 23)]
    assert all(question.title.endswith("?") for question in QUESTIONS)
    listed = re.findall(
        r"^\d+\. \[(.*?)\]\(audit/(.*?)\)$", (ROOT / "docs" / "audit.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert listed == [(question.title, question.path.name) for question in QUESTIONS]


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.path.stem)
def test_each_says_where_it_cuts(question: Question) -> None:
    """Its LIMIT, and the time it is about where none is given."""
    header = question.path.read_text(encoding="utf-8").partition("-- Answer")[0].replace("\n-- ", " ")
    limit = re.search(r"LIMIT (\d+)", question.sql)
    if limit is None:
        assert "Uncut" in header
    else:
        assert re.search(rf"Cut: the (first|newest) {limit[1]}\b", header)
    days = re.search(r"'now', '-(\d+) days'", question.sql)
    if days is not None:
        assert (
            f"last {days[1].replace('30', 'thirty').replace('7', 'seven')} days unless another time is given" in header
        )


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.path.stem)
def test_the_answer_shown_is_the_answer(ledger: Path, question: Question) -> None:
    columns, rows = question.ask(ledger)
    assert rows, "an example that shows nothing explains nothing"
    assert rendered(columns, rows) == question.answer, "renew it with `python -m benchmarks.audit --write-answers`"
    assert with_answer(question, question.answer) == question.path.read_text(encoding="utf-8")


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.path.stem)
def test_empty_parameters_mean_their_defaults(ledger: Path, question: Question) -> None:
    """Datasette sends an empty text for what was not filled in, and the shell NULL for what was not set."""
    _, with_empty = question.ask(ledger, dict.fromkeys(question.parameters, ""))
    _, with_null = question.ask(ledger, dict.fromkeys(question.parameters, None))
    assert with_empty == with_null
    assert len(with_empty) <= len(question.ask(ledger)[1])


@pytest.mark.skipif(SHELL is None, reason="there is no sqlite3 shell")
@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.path.stem)
def test_the_shell_takes_a_file_as_it_is(ledger: Path, question: Question) -> None:
    assert SHELL is not None
    commands = [f""".param set :{name} "'{value}'\"""" for name, value in question.parameters.items()]
    run = subprocess.run(
        [SHELL, "-readonly", "-json", str(ledger)],
        input="\n".join([*commands, f"ATTACH '{ledger.with_name(AUDIT_NAME)}' AS audit;", f".read {question.path}"]),
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    assert run.stdout.count("\n") == len(question.ask(ledger)[1])


def test_datasette_shows_what_the_document_and_the_questions_say() -> None:
    assert datasette_page.PATH.read_text(encoding="utf-8") == datasette_page.made(), (
        "renew it with `python -m benchmarks.audit --write-answers`"
    )


def test_a_synthetic_ledger_is_a_ledger(ledger: Path) -> None:
    with opened(ledger) as reading:
        rows = all_stored(reading)
    assert rows[0].prev_hash == GENESIS
    check_chain_with_erasures(rows)
    kinds = {row.type for row in rows}
    assert {"TurnRecorded", "TurnFailed", "SummaryRecorded", "MemoryEdited", "MemoryForgotten"} <= kinds
    assert len(rows) >= 600


def test_a_history_in_flight_is_as_complete(tmp_path: Path) -> None:
    with opened(make_ledger(tmp_path, 400, users=2, in_flight=20)) as ledger:
        rows = all_stored(ledger)
        assert len(rows) >= 400
        check_chain(rows)
        assert len(ledger.reader.events_after(0, 10_000)) == len(rows)


@pytest.mark.skipif(SHELL is None or shutil.which("sha256sum") is None, reason="there is no sqlite3 shell or sha256sum")
@pytest.mark.parametrize("position", [7, 150])
def test_a_row_is_checked_by_hand_as_the_document_says(ledger: Path, position: int) -> None:
    text = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    (commands,) = (block for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "hashed" in block)
    example = "ledger=storage/ledger.sqlite3 position=7"
    assert example in commands
    commands = commands.replace(example, f"ledger={ledger} position={position}")
    run = subprocess.run(["sh", "-c", commands], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 8
    assert lines[0::2] == lines[1::2]
    assert len(set(lines)) == 4

"""A ledger of an older version: commands that read leave it as it is and say what to do, `opm migrate` does it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.ledgers import ROOT
from tests.service.cli.conftest import Opm

READING = (
    ("status",),
    ("users",),
    ("conversations", "-u", "ann"),
    ("memories", "-u", "ann"),
    ("recall", "cat", "-u", "ann", "--no-embed"),
    ("explain", "--last", "-u", "ann"),
    ("report", "-u", "ann"),
    ("audit-index",),
    ("export", "-u", "ann"),
)


@pytest.fixture(params=["0001", "0003"])
def ledger(request: pytest.FixtureRequest, storage: Path) -> Path:
    path = storage / "ledger.sqlite3"
    path.unlink()
    shutil.copy(ROOT / "tests" / "golden" / f"ledger-{request.param}.sqlite3", path)
    return path


def test_what_reads_leaves_it_and_says_what_to_do(opm: Opm, ledger: Path) -> None:
    before = ledger.read_bytes()
    for arguments in READING:
        ran = opm(*arguments)
        assert ran.status == 1, arguments
        [line] = ran.err.strip().splitlines()
        assert "is of an older version (schema 000" in line, arguments
        assert "opm migrate" in line
        assert ran.out == ""
    assert ledger.read_bytes() == before


def test_migrate_changes_no_event_and_makes_it_readable(opm: Opm, ledger: Path) -> None:
    head = opm("verify", "--head").out
    done = json.loads(opm("migrate", "--json").out)
    assert done["before"] != done["schema"]
    assert opm("verify", "--head").out == head
    assert "is up to date" in opm("migrate").out
    for arguments in (("status",), ("users",), ("keys", "list")):
        assert opm(*arguments).status == 0, arguments
    [user, *_] = json.loads(opm("users", "--json").out)["users"]
    assert opm("report", "-u", user["user_id"]).status == 0
    assert opm("memories", "-u", user["user_id"]).status == 0


def test_what_writes_migrates_and_says_so(opm: Opm, ledger: Path) -> None:
    ran = opm("keys", "create", "--any")
    assert ran.status == 0, ran.err
    assert "ledger.sqlite3: migrated from schema 000" in ran.err

"""``opm audit-index`` brings ``audit.sqlite3`` up to date, and a report of it can be read by a program."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.audit_history import append_steps
from tests.ledgers import opened
from tests.service.cli.conftest import Opm


def test_it_takes_in_what_is_new(opm: Opm, storage: Path) -> None:
    with opened(storage / "ledger.sqlite3") as ledger:
        append_steps(ledger, [("answer", "ann", "trip", seed) for seed in range(3)])
        head = ledger.reader.head_position()
        first = json.loads(opm("audit-index", "--json").out)
        append_steps(ledger, [("answer", "ann", "trip", 4)])
    assert (first["decisions"], first["position"], first["anew"]) == (3, head, True)
    assert Path(first["path"]) == storage / "audit.sqlite3"
    again = opm("audit-index")
    assert again.status == 0
    assert f"1 decisions taken in, up to event {head + 4}" in again.out


def test_without_a_ledger_there_is_nothing_to_take_in(
    opm: Opm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_DIR", str(tmp_path / "nowhere"))
    ran = opm("audit-index")
    assert ran.status == 1
    assert "Traceback" not in ran.err

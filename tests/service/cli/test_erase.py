"""An operator erases a person from the command line."""

from __future__ import annotations

import asyncio
import io
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from domain.identity import StreamId
from projections.backup.known_backups import Backup, partial_of, remember_backup
from projections.mirror.mirror import Mirror
from tests.ledgers import all_stored, check_chain, opened, record_turn
from tests.service.cli.conftest import Opm


@pytest.fixture(autouse=True)
def _two_people(storage: Path) -> None:
    with opened(storage / "ledger.sqlite3") as ledger:
        record_turn(ledger, StreamId("ann", "c"))
        record_turn(ledger, StreamId("bob", "c"))


def count(storage: Path, user: str) -> int:
    with opened(storage / "ledger.sqlite3") as ledger:
        return ledger.persons.extent_of(user)[0]


async def mirrored(mirror: Mirror) -> None:
    while await mirror.advance():
        pass


def test_a_dry_run_counts_and_changes_nothing(opm: Opm, storage: Path) -> None:
    ran = opm("erase", "--user", "ann", "--dry-run", "--json")
    assert json.loads(ran.out) == {"events": 1, "conversations": 1, "files": 0, "backups": [], "backups_missing": []}
    assert "1 events in 1 conversations" in opm("erase", "--user", "ann", "--dry-run").out
    with opened(storage / "ledger.sqlite3") as ledger:
        check_chain(all_stored(ledger))


@pytest.mark.parametrize("typed", ["", "bob", "ANN"])
def test_it_asks_first(opm: Opm, storage: Path, typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{typed}\n"))
    assert opm("erase", "--user", "ann").status != 0
    assert count(storage, "ann") == 1


def test_it_goes_on_when_the_id_is_typed(opm: Opm, storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("ann\n"))
    assert opm("erase", "--user", "ann").status == 0
    assert (count(storage, "ann"), count(storage, "bob")) == (0, 1)


def test_earlier_backups_are_named_and_partial_ones_removed(opm: Opm, storage: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite3"
    partial = partial_of(tmp_path / "other.sqlite3")
    for path in (Path("/mnt/usb/ledger.sqlite3"), copy, partial):
        made = Backup(path=str(path), made_at=datetime(2026, 1, 1, tzinfo=UTC), position=1, hash="sha256:1")
        remember_backup(storage, made)
    copy.touch()
    partial.write_text("what a killed backup left")
    with opened(storage / "ledger.sqlite3") as ledger:
        asyncio.run(mirrored(Mirror(ledger.reader, storage)))
    ran = opm("erase", "--user", "ann", "--yes")
    assert "a backup was at /mnt/usb/ledger.sqlite3: if it lies elsewhere now" in ran.out
    assert f"still holds the user: {copy} (" in ran.out
    assert "other.sqlite3" not in ran.out
    assert not partial.exists()
    assert opm("verify").status == 0


def test_somebody_unknown_is_a_bad_argument(opm: Opm) -> None:
    ran = opm("erase", "--user", "nobody", "--yes")
    assert ran.status == 2
    assert "--user = 'nobody'" in ran.err

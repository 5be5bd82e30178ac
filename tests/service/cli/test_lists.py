"""``opm status``, ``users``, ``conversations`` and ``memories`` say what is kept, and whose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domain.events import MemoryForgotten
from domain.identity import StreamId
from tests.ledgers import opened, record, record_turn, summary_of
from tests.service.cli.conftest import Opm


@pytest.fixture(autouse=True)
def _three_people(storage: Path) -> None:
    with opened(storage / "ledger.sqlite3") as ledger:
        first = record_turn(ledger, StreamId("ann", "kitchen"), "My cat Miso eats [red]tuna[/red].", "Noted.")
        record(ledger, StreamId("ann", "kitchen"), summary_of(first.event_id), causation_id=first.event_id)
        record_turn(ledger, StreamId("ann", "garden"), "The quince is cut in March.", "Good.")
        gone = record_turn(ledger, StreamId("ann", "garden"), "Forget me.", "Yes.")
        forgotten = MemoryForgotten(memory_id=gone.event_id, turn_id=2)
        record(ledger, StreamId("ann", "garden"), forgotten, causation_id=gone.event_id)
        record_turn(ledger, StreamId("用户", "一"), "我的狗叫布鲁诺。", "好的。")


def test_users(opm: Opm) -> None:
    found = json.loads(opm("users", "--json").out)["users"]
    assert [(user["user_id"], user["memories"]) for user in found] == [("用户", 1), ("ann", 2)]
    assert "ann" in opm("users").out
    assert "the first 1: --limit shows more" in opm("users", "-n", "1").out


def test_conversations(opm: Opm) -> None:
    found = json.loads(opm("conversations", "-u", "ann", "--json").out)["conversations"]
    assert [(each["conversation_id"], each["turns"]) for each in found] == [("garden", 1), ("kitchen", 1)]
    assert "[red]tuna[/red]" in opm("conversations", "-u", "ann").out
    assert opm("conversations", "-u", "nobody").out.strip() == "this user has no conversation"


def test_memories(opm: Opm) -> None:
    found = json.loads(opm("memories", "-u", "ann", "--json").out)["memories"]
    assert [memory["user"] for memory in found] == ["The quince is cut in March.", "My cat Miso eats [red]tuna[/red]."]
    [only] = json.loads(opm("memories", "-u", "ann", "-q", " MISO ", "--json").out)["memories"]
    assert only["memory_id"] in opm("memories", "-u", "ann", "-q", "miso").out
    assert opm("memories", "-u", "ann", "-q", "Bruno").out.strip() == "no memory of this user contains that"
    assert json.loads(opm("memories", "-u", "用户", "-q", "布鲁诺", "--json").out)["memories"]
    assert opm("memories", "-u", "ann", "-q", " ").status == 2


def test_status(opm: Opm, storage: Path, tmp_path: Path) -> None:
    said = json.loads(opm("status", "--json").out)
    assert (said["users"], said["memories"], said["events"]) == (2, 3, 6)
    assert (said["in_use"], said["backups"], said["last_backup_at"]) == (False, 0, None)
    assert opm("backup", str(tmp_path / "copy.sqlite3")).status == 0
    with opened(storage / "ledger.sqlite3") as ledger:
        record_turn(ledger, StreamId("ann", "kitchen"))
        said = json.loads(opm("status", "--json").out)
    assert (said["in_use"], said["backups"], said["events_since_backup"]) == (True, 1, 1)
    (tmp_path / "copy.sqlite3").unlink()
    assert "1 known ones are not where they were" in opm("status").out


@pytest.mark.parametrize("command", [["status"], ["users"], ["conversations", "-u", "a"], ["memories", "-u", "a"]])
def test_without_a_ledger_none_is_made(opm: Opm, storage: Path, command: list[str]) -> None:
    (storage / "ledger.sqlite3").unlink()
    ran = opm(*command)
    assert (ran.status, "there is no ledger" in ran.err) == (1, True)
    assert not (storage / "ledger.sqlite3").exists()

"""The readers of the ledger in SQLite: the contract of every ledger's readers, and what only this one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy

from domain.errors import LedgerReadFailed
from domain.events import MemoryEdited
from domain.ledger import Ledger
from domain.reader import json_list
from domain.statements import LATEST
from tests.domain.reader_contract import ReaderContract
from tests.domain.sqlite_store import SqliteStore
from tests.ledgers import STREAM, opened, record, record_turn


class TestSqliteReaders(SqliteStore, ReaderContract):
    pass


def test_an_unmigrated_ledger_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    path.touch()
    with opened(path) as ledger, pytest.raises(LedgerReadFailed, match="cannot be read"):
        ledger.reader.head_position()


def test_only_one_text_is_read_of_a_memory_edited_often(ledger: Ledger) -> None:
    turn = record_turn(ledger, STREAM)
    for number in range(3):
        edited = MemoryEdited(memory_id=turn.event_id, turn_id=1, summary=f"edit {number}")
        record(ledger, STREAM, edited, causation_id=turn.event_id)
    asked = {"user_id": STREAM.user_id, "positions": json_list([turn.position]), "as_of": LATEST}
    [row] = ledger.reader._gathered("memories", **asked)
    edits = [json.loads(text)["summary"] for text in row if isinstance(text, str) and "edit" in text]
    assert edits == ["edit 2"]


def test_a_reader_that_gets_no_connection_says_so(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy() -> None:
        raise sqlalchemy.exc.TimeoutError("QueuePool limit of size 16 overflow 0 reached")

    monkeypatch.setattr(ledger.reader._engine, "connect", busy)
    with pytest.raises(LedgerReadFailed, match="busy: try again later"):
        ledger.reader.head()

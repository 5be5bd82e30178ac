"""A lexical index is compared with the ledger as of its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from domain.events import MemoryForgotten
from domain.ledger import Ledger
from domain.settings import StorageSettings
from domain.sqlite import DRIVER
from projections.lexical.index_files import LexicalFiles
from projections.verification.storage import verify_storage
from tests.ledgers import STREAM, opened, record, record_turn, summary_of


@pytest.fixture
def settings(storage_dir: Path) -> StorageSettings:
    return StorageSettings(storage_dir=storage_dir)


@pytest.fixture
def path(settings: StorageSettings) -> Path:
    """The index of a user with three memories, one with a summary and one withdrawn."""
    with opened(settings.ledger_path) as ledger:
        turns = [record_turn(ledger, STREAM, f"Question {number}?") for number in (1, 2, 3)]
        first, second = turns[0].event_id, turns[1].event_id
        record(ledger, STREAM, summary_of(first), causation_id=first)
        record(ledger, STREAM, MemoryForgotten(memory_id=second, turn_id=2), causation_id=second)
        return caught_up(ledger, settings)


def caught_up(ledger: Ledger, settings: StorageSettings) -> Path:
    files = LexicalFiles(ledger.reader, settings.users_dir)
    with closing(files):
        files.catch_up(STREAM.user_id)
    return files.path(STREAM.user_id)


def said(settings: StorageSettings) -> Sequence[str]:
    return [finding.what for finding in verify_storage(settings).findings if finding.part == "index"]


def test_a_whole_one_is_well_and_so_is_one_that_is_behind(path: Path, settings: StorageSettings) -> None:
    assert said(settings) == []
    with opened(settings.ledger_path) as ledger:
        later = record_turn(ledger, STREAM).event_id
        record(ledger, STREAM, MemoryForgotten(memory_id=later, turn_id=4), causation_id=later)
    assert said(settings) == []
    path.unlink()
    assert said(settings) == []


@pytest.mark.parametrize(
    ("done", "what"),
    [
        ("DELETE FROM entries WHERE rowid = (SELECT min(rowid) FROM entries)", "1 texts are missing (the first is of"),
        ("INSERT INTO entries (rowid, text) VALUES (9000, 'x')", "1 texts are surplus"),
        ("UPDATE entries SET text = 'other words' WHERE rowid = (SELECT max(rowid) FROM entries)", "not the ledger's"),
        ("UPDATE checkpoint SET anchor = 'sha256:0'", "of another ledger or user"),
        ("UPDATE checkpoint SET format = 'format 0'", "made by another version"),
        ("DROP TABLE entries", "the lexical index is broken"),
    ],
)
def test_what_is_done_to_it_is_named(path: Path, settings: StorageSettings, done: str, what: str) -> None:
    with closing(DRIVER.connect(path, isolation_level=None)) as connection:
        connection.execute(done)
    (found,) = said(settings)
    assert what in found


def test_one_of_nobody_is_named(path: Path, settings: StorageSettings) -> None:
    other = settings.users_dir / "nobody" / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    assert said(settings) == ["no user of the ledger has this index: delete it"]

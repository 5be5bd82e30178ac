"""The readers of the ledger in SQLite: the contract of every ledger's readers, and what only this one does."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import LedgerReadFailed
from domain.events import MemoryEdited
from domain.excerpt import excerpt
from domain.identity import StreamId
from domain.ledger import Ledger
from domain.ledger_reader import turn_chars_max
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
    asked = {"user_id": STREAM.user_id, "positions": json_list([turn.position]), "as_of": LATEST, "chars_max": LATEST}
    [row] = ledger.reader._gathered("memories", **asked)
    edits = [json.loads(text)["summary"] for text in row if isinstance(text, str) and "edit" in text]
    assert edits == ["edit 2"]


def test_a_reader_that_gets_no_connection_says_so(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy() -> None:
        raise sqlalchemy.exc.TimeoutError("QueuePool limit of size 16 overflow 0 reached")

    monkeypatch.setattr(ledger.reader._engine, "connect", busy)
    with pytest.raises(LedgerReadFailed, match="busy: try again later"):
        ledger.reader.head()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(["x" * 40, "我的猫🐈" * 9])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), chars_max=st.integers(3, 50))
def test_long_texts_are_read_as_their_excerpts(ledger: Ledger, said: list[tuple[str, str]], chars_max: int) -> None:
    said = [(user.replace("\x00", ""), assistant.replace("\x00", "")) for user, assistant in said]
    stream = StreamId(str(uuid4()), "c")
    events = [record_turn(ledger, stream, *texts) for texts in said]
    positions, reader = [event.position for event in events], ledger.reader
    for read in (
        reader.recent_turns(stream, 10, chars_max=chars_max),
        sorted(reader.memories(stream.user_id, positions, chars_max=chars_max).values(), key=lambda m: m.position),
        reader.neighbors(stream.user_id, positions, 4, chars_max=chars_max) if len(said) > 1 else None,
    ):
        if read is not None:
            assert [(memory.user, memory.assistant, memory.cut_chars) for memory in read] == [
                (
                    excerpt(user, chars_max),
                    excerpt(assistant, chars_max),
                    chars_max if max(len(user), len(assistant)) > chars_max else None,
                )
                for user, assistant in said
            ]
    assert [(memory.user, memory.assistant) for memory in reader.recent_turns(stream, 10)] == said


def test_a_long_text_with_nul_characters_is_read(ledger: Ledger) -> None:
    """SQLite's functions end a text at a NUL: what is shown of it may end there, and nothing fails."""
    turn = record_turn(ledger, STREAM, "a\x00" * 100, "b" * 300)
    [memory] = ledger.reader.recent_turns(STREAM, 1, chars_max=50)
    assert memory.user.startswith("a")
    assert memory.assistant == excerpt("b" * 300, 50)
    assert ledger.reader.memories(STREAM.user_id, [turn.position])[turn.position].user == "a\x00" * 100


def test_however_many_turns_are_read_they_are_bounded_together() -> None:
    for count in range(1, 401):
        assert turn_chars_max(count) * count <= 8_000_000
    assert turn_chars_max(66) > 100_000, "an ordinary turn reads long pastes whole"

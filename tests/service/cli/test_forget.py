"""An operator forgets or corrects one memory from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domain.events import MemoryEdited, MemoryForgotten, MemoryRestored, TurnRestored, TurnSuperseded
from domain.identity import StreamId
from tests.ledgers import STREAM, opened, record, record_turn
from tests.service.cli.conftest import Opm


@pytest.fixture
def memory_id(storage: Path) -> str:
    with opened(storage / "ledger.sqlite3") as ledger:
        record_turn(ledger, StreamId("bob", "c"))
        return record_turn(ledger, STREAM).event_id


def test_a_memory_is_forgotten_once(opm: Opm, storage: Path, memory_id: str) -> None:
    assert opm("forget", memory_id, "--reason", "asked to").out == f"{memory_id} is forgotten\n"
    again = opm("forget", memory_id, "--user", "ann", "--json")
    assert json.loads(again.out) == {"memory_id": memory_id, "forgotten": True, "changed": False}
    with opened(storage / "ledger.sqlite3") as ledger:
        [event] = ledger.reader.events_after(2, 10)
        assert event.payload == MemoryForgotten(memory_id=memory_id, turn_id=1, reason="asked to")
        assert (event.stream, event.causation_id) == (STREAM, memory_id)
        assert ledger.persons.memory("ann", memory_id) is None


def test_a_forgotten_memory_is_taken_back_once(opm: Opm, storage: Path, memory_id: str) -> None:
    assert opm("unforget", memory_id).out == f"{memory_id} was not forgotten: nothing was recorded\n"
    opm("forget", memory_id)
    assert opm("unforget", memory_id, "--reason", "by mistake").out == f"{memory_id} is remembered again\n"
    again = json.loads(opm("unforget", memory_id, "--user", "ann", "--json").out)
    assert again == {"memory_id": memory_id, "restored": True, "changed": False, "superseded": False}
    with opened(storage / "ledger.sqlite3") as ledger:
        _, event = ledger.reader.events_after(2, 10)
        assert event.payload == MemoryRestored(memory_id=memory_id, turn_id=1, reason="by mistake")
        assert (event.stream, event.causation_id) == (STREAM, memory_id)
        assert event.origin is not None
        assert event.origin.route == "opm unforget"
        assert ledger.persons.memory("ann", memory_id) is not None


def test_what_a_conversation_has_left_behind_stays_hidden(opm: Opm, storage: Path, memory_id: str) -> None:
    with opened(storage / "ledger.sqlite3") as ledger:
        left = TurnSuperseded(memory_id=memory_id, turn_id=1, reason="regenerated")
        record(ledger, STREAM, left, causation_id=memory_id)
    assert opm("forget", memory_id).out == f"{memory_id} is forgotten\n"
    said = opm("unforget", memory_id).out
    assert said == f"{memory_id} is remembered again; it stays hidden, since its conversation went on without it\n"
    with opened(storage / "ledger.sqlite3") as ledger:
        assert ledger.persons.memory("ann", memory_id) is None
        record(ledger, STREAM, TurnRestored(memory_id=memory_id, turn_id=1), causation_id=memory_id)
        assert ledger.persons.memory("ann", memory_id) is not None


def test_a_summary_is_corrected(opm: Opm, storage: Path, memory_id: str) -> None:
    assert opm("edit", memory_id, "--summary", " To Porto. ").status == 0
    assert "already" in opm("edit", memory_id, "--summary", "To Porto.").out
    with opened(storage / "ledger.sqlite3") as ledger:
        [event] = ledger.reader.events_after(2, 10)
        assert event.payload == MemoryEdited(memory_id=memory_id, turn_id=1, summary="To Porto.")


@pytest.mark.parametrize("user", [[], ["--user", "ann"]])
def test_an_id_that_nobody_has_is_an_error(opm: Opm, user: list[str]) -> None:
    for command in ("forget", "unforget"):
        ran = opm(command, "no-such", *user)
        assert (ran.status, ran.out) == (1, "")
        assert "memory_id = 'no-such'" in ran.err


def test_somebody_elses_memory_is_unknown(opm: Opm, storage: Path, memory_id: str) -> None:
    ran = opm("forget", memory_id, "--user", "bob")
    assert (ran.status, ran.err) == (1, opm("forget", memory_id, "--user", "nobody").err)
    with opened(storage / "ledger.sqlite3") as ledger:
        assert ledger.reader.head_position() == 2


@pytest.mark.parametrize("summary", ["", " \n", "x" * 8001])
def test_a_summary_must_say_something(opm: Opm, memory_id: str, summary: str) -> None:
    ran = opm("edit", memory_id, "--summary", summary)
    assert ran.status == 2
    assert "summary = " in ran.err

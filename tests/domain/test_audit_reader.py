"""Questions about the past are answered from events alone, each user's apart from the others'."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from domain.audit_reader import AuditReader, turn_of
from domain.clock import Clock
from domain.events import (
    Erased,
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    NewEvent,
    PromptsActivated,
    RetrievalRecorded,
    TurnRestored,
    TurnSuperseded,
)
from domain.identity import SYSTEM_STREAM, StreamId
from domain.ledger import Ledger
from domain.sqlite import open_engine
from tests.ledgers import START, activated, one_of_each, record, record_turn

ANN, BOB = StreamId("ann", "c"), StreamId("bob", "c")


@pytest.fixture
def audit(ledger_path: Path) -> Iterator[AuditReader]:
    engine = open_engine(ledger_path, writer=False)
    yield AuditReader(engine)
    engine.dispose()


def retrieval() -> RetrievalRecorded:
    return next(payload for payload in one_of_each() if isinstance(payload, RetrievalRecorded))


def test_events_by_name_and_by_position(ledger: Ledger, audit: AuditReader) -> None:
    events = [record_turn(ledger, ANN) for _ in range(3)]
    assert audit.events_named([events[2].event_id, events[0].event_id, "nobody"]) == {
        event.event_id: event for event in (events[0], events[2])
    }
    assert audit.events_at([2, 99]) == {2: events[1]}
    assert audit.events_named([]) == {}
    assert audit.events_at([]) == {}


def test_more_names_than_one_statement_takes(ledger: Ledger, audit: AuditReader) -> None:
    first = record_turn(ledger, ANN)
    names = [str(uuid4()) for _ in range(1200)]
    assert audit.events_named([*names, first.event_id]) == {first.event_id: first}


def test_the_last_question_of_a_user_answered_or_not(ledger: Ledger, audit: AuditReader) -> None:
    assert audit.last_question("ann") is None
    failed = next(payload for payload in one_of_each() if payload.type == "TurnFailed")
    record_turn(ledger, ANN)
    [last] = record(ledger, StreamId("ann", "other"), failed)
    record_turn(ledger, BOB)
    assert audit.last_question("ann") == last


def test_what_people_did_to_memories_since(ledger: Ledger, audit: AuditReader) -> None:
    mine, other = record_turn(ledger, ANN), record_turn(ledger, ANN)
    edit = MemoryEdited(memory_id=mine.event_id, turn_id=1, summary="To Porto.")
    [edited] = record(ledger, ANN, edit, causation_id=mine.event_id)
    ids = [mine.event_id, other.event_id]
    change = audit.changes_since("ann", ids, 0)[mine.event_id]
    assert (change.what, change.position, change.summary) == ("edited", edited.position, "To Porto.")
    [gone] = record(ledger, ANN, MemoryForgotten(memory_id=mine.event_id, turn_id=1), causation_id=mine.event_id)
    assert audit.changes_since("ann", ids, 0)[mine.event_id].what == "forgotten"
    assert audit.changes_since("ann", ids, edited.position).keys() == {mine.event_id}
    assert audit.changes_since("ann", ids, gone.position) == {}
    assert audit.changes_since("bob", ids, 0) == {}
    named: dict[str, Any] = {"memory_id": mine.event_id, "turn_id": 1}
    for said, what in (
        (MemoryRestored(**named), "restored"),
        (TurnSuperseded(**named, reason="left"), "superseded"),
        (TurnRestored(**named), "returned to"),
    ):
        record(ledger, ANN, said, causation_id=mine.event_id)
        assert audit.changes_since("ann", ids, gone.position)[mine.event_id].what == what


def test_the_text_of_a_version_of_a_prompt(ledger: Ledger, audit: AuditReader) -> None:
    for version, text in (("1", "Be kind."), ("2", "Be brief.")):
        activated_prompts = PromptsActivated(versions={"CHAT_SYSTEM": version}, texts={"CHAT_SYSTEM": text})
        record(ledger, SYSTEM_STREAM, activated_prompts)
    assert audit.prompt_text("CHAT_SYSTEM", "1") == "Be kind."
    assert audit.prompt_text("CHAT_SYSTEM", "2") == "Be brief."
    assert audit.prompt_text("CHAT_SYSTEM", "3") is None
    assert audit.prompt_text("GATE_SYSTEM", "1") is None


def test_the_text_of_a_version_of_a_prompt_in_another_language(ledger: Ledger, audit: AuditReader) -> None:
    names = ("CHAT_SYSTEM", "CHAT_SYSTEM.zh", "GATE_SYSTEM")
    both = PromptsActivated(
        versions=dict(zip(names, "123", strict=True)),
        texts=dict(zip(names, ("Be kind.", "和气。", "Choose."), strict=True)),
    )
    record(ledger, SYSTEM_STREAM, both)
    assert audit.prompt_text("CHAT_SYSTEM", "1") == "Be kind."
    assert audit.prompt_text("CHAT_SYSTEM", "2") == "和气。"
    assert audit.prompt_text("CHAT_SYSTEM", "3") is None


def test_the_last_position_before_a_time(ledger_path: Path, audit: AuditReader) -> None:
    moments = [START + timedelta(days=day) for day in range(3)]
    ledger = Ledger(ledger_path, Clock(now=iter(moments).__next__))
    try:
        for _ in moments:
            record_turn(ledger, ANN)
    finally:
        ledger.close()
    assert [audit.position_before(moment) for moment in moments] == [0, 1, 2]
    assert audit.position_before(START + timedelta(days=9)) == 3
    assert audit.recorded_at(2) == moments[1]
    assert audit.recorded_at(4) is None


def test_the_model_that_was_active(ledger: Ledger, audit: AuditReader) -> None:
    assert audit.model_active_at("ann", 9) is None
    [first] = record(ledger, SYSTEM_STREAM, activated("old"))
    [second] = record(ledger, StreamId("ann", ""), activated("anns"))
    found = [audit.model_active_at(user, second.position) for user in ("ann", "bob")]
    assert [model.model for model in found if model is not None] == ["anns", "old"]
    then = audit.model_active_at("ann", first.position)
    assert then is not None
    assert then.model == "old"


def test_the_retrievals_of_a_user_in_a_period(ledger: Ledger, audit: AuditReader) -> None:
    asked = [record(ledger, stream, retrieval())[0] for stream in (ANN, BOB, ANN, StreamId("ann", "d"))]
    mine = [asked[0], asked[2], asked[3]]
    assert list(audit.retrievals("ann", 0)) == mine
    assert list(audit.retrievals("ann", mine[0].position)) == mine[1:]
    assert list(audit.retrievals("ann", 0, mine[1].position)) == mine[:2]
    assert list(audit.retrievals("ann", 0, limit=2)) == mine[:2]
    assert audit.count_retrievals("ann", 0) == 3
    assert audit.count_retrievals("ann", mine[0].position, mine[1].position) == 1
    assert audit.has_events("ann")
    assert not audit.has_events("carl")


def test_what_ended_an_answer(ledger: Ledger, audit: AuditReader) -> None:
    events = record(ledger, ANN, retrieval(), one_of_each()[0])
    assert turn_of(events) == events[1]
    assert turn_of(events[:1]) is None


def test_blanked_events_are_left_out_or_marked_as_blanked(
    ledger_path: Path, ledger: Ledger, audit: AuditReader
) -> None:
    [asked] = record(ledger, ANN, retrieval())
    turn = record_turn(ledger, ANN)
    [_] = ledger.append(
        ANN, lambda _head: [NewEvent(str(uuid4()), next(p for p in one_of_each() if p.type == "UserErased"))]
    ).result()
    blank(ledger_path, "ann")
    assert list(audit.retrievals("ann", 0)) == list(audit.retrievals("erased:1", 0)) == []
    assert audit.last_question("ann") is None
    assert isinstance(audit.events_named([turn.event_id])[turn.event_id].payload, Erased)
    assert isinstance(audit.events_at([asked.position])[asked.position].payload, Erased)


def blank(ledger_path: Path, user_id: str) -> None:
    """Blank what an erasure blanks, as the triggers let it through."""
    engine = open_engine(ledger_path, writer=True)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE events SET payload = '{}', salt = '', conversation_id = 'erased:c', user_id = 'erased:' || "
                "(SELECT event_id FROM events WHERE type = 'UserErased' AND user_id = ?) WHERE user_id = ?",
                (user_id, user_id),
            )
    finally:
        engine.dispose()

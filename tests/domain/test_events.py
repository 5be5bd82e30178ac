"""Every event type survives storage; what this code cannot know is said; old shapes are lifted to the newest."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
from pydantic import ValidationError

from domain import chain, events
from domain.errors import UnknownEvent, Unrecordable
from domain.events import CATALOGUE, JsonObject, NewEvent, Payload, TurnRecorded, decode_payload
from domain.ledger import Ledger
from tests.ledgers import STREAM, one_of_each, record, turn


@pytest.mark.parametrize("payload", one_of_each(), ids=lambda payload: payload.type)
def test_each_type_comes_back_from_its_stored_text(payload: Payload) -> None:
    text = chain.canonical(payload.model_dump(mode="json"))
    again = decode_payload(payload.type, payload.schema_version, json.loads(text))
    assert again == payload
    assert chain.canonical(again.model_dump(mode="json")) == text


def test_the_examples_are_the_whole_catalogue() -> None:
    assert sorted(payload.type for payload in one_of_each()) == sorted(CATALOGUE)
    assert all(kind == model.type == model.__name__ for kind, model in CATALOGUE.items())


def test_each_type_comes_back_from_the_ledger(ledger: Ledger) -> None:
    written = record(ledger, STREAM, *one_of_each())
    assert tuple(ledger.reader.events_after(0, 100)) == written
    assert [event.payload for event in written] == list(one_of_each())


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(turn(1), "user", "something else")  # noqa: B010 - the type checker would refuse the plain form


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused_and_not_recorded_as_nothing(odd: float) -> None:
    for payload in (
        turn(1).model_copy(update={"timings_ms": {"embed": odd}}),
        turn(1).model_copy(update={"parameters": {"seed": odd}}),
    ):
        with pytest.raises(Unrecordable, match="not JSON compliant"):
            NewEvent("e", payload)


def test_an_unknown_type_asks_for_an_upgrade() -> None:
    with pytest.raises(UnknownEvent, match=r"'TurnImagined' is not in the catalogue.*upgrade"):
        decode_payload("TurnImagined", 1, {})


def test_a_newer_schema_version_asks_for_an_upgrade() -> None:
    with pytest.raises(UnknownEvent, match="TurnRecorded has schema version 99, this code knows up to 2"):
        decode_payload("TurnRecorded", 99, turn(1).model_dump(mode="json"))


def test_another_shape_is_reported_without_its_texts() -> None:
    stored = turn(1, user="my secret").model_dump(mode="json")
    del stored["assistant"]
    stored["mood"] = "my other secret"
    with pytest.raises(UnknownEvent, match=r"TurnRecorded .* \(2 fields differ\)") as raised:
        decode_payload("TurnRecorded", 1, stored)
    assert "secret" not in str(raised.value)


class MoodNoted(Payload):
    type: ClassVar[str] = "MoodNoted"
    schema_version: ClassVar[int] = 3

    mood: str
    strength: int


class TestUpcasters:
    @pytest.fixture(autouse=True)
    def known(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def from_1(payload: JsonObject) -> JsonObject:
            return {"mood": payload["feeling"]}

        def from_2(payload: JsonObject) -> JsonObject:
            return {**payload, "strength": 5}

        monkeypatch.setattr(events, "CATALOGUE", {**CATALOGUE, "MoodNoted": MoodNoted})
        monkeypatch.setitem(events.UPCASTERS, ("MoodNoted", 1), from_1)
        monkeypatch.setitem(events.UPCASTERS, ("MoodNoted", 2), from_2)

    @pytest.mark.parametrize(
        ("version", "stored"),
        [(1, {"feeling": "glad"}), (2, {"mood": "glad"}), (3, {"mood": "glad", "strength": 5})],
    )
    def test_each_older_version_is_lifted_step_by_step(self, version: int, stored: JsonObject) -> None:
        assert decode_payload("MoodNoted", version, stored) == MoodNoted(mood="glad", strength=5)

    def test_a_missing_step_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delitem(events.UPCASTERS, ("MoodNoted", 2))
        with pytest.raises(UnknownEvent, match="schema version 2 has no upcaster"):
            decode_payload("MoodNoted", 1, {"feeling": "glad"})

    def test_what_is_stored_stays_as_it_was_written(self) -> None:
        stored: JsonObject = {"feeling": "glad"}
        decode_payload("MoodNoted", 1, stored)
        assert stored == {"feeling": "glad"}


def test_every_version_below_the_newest_has_its_upcaster() -> None:
    wanted = {(kind, version) for kind, model in CATALOGUE.items() for version in range(1, model.schema_version)}
    assert set(events.UPCASTERS) == wanted
    assert TurnRecorded.schema_version >= 1

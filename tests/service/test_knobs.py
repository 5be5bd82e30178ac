"""Every knob is taken as a JSON value or as a string, within its bounds, and a slip is named."""

from __future__ import annotations

from typing import Any

import pytest

from domain.events import RetrievalRecorded, TurnRecorded
from tests.service.running import Client, Running, chat_body

BOUNDS = {
    "recent_turns": (0, 50),
    "candidate_n": (0, 500),
    "retrieve_k": (0, 50),
    "neighbor_turns": (0, 5),
    "gate_keep_max": (1, 500),
}
DEFAULTS = {
    "recent_turns": 6,
    "candidate_n": 60,
    "retrieval": "hybrid",
    "retrieve_k": 5,
    "neighbor_turns": 0,
    "gate_keep_max": 30,
    "timezone": "UTC",
    "use_gate": True,
    "memory_import": False,
    "use_rerank": True,
}


def body_field(name: str, value: object) -> dict[str, Any]:
    return {name: value}


def refused(client: Client, body: dict[str, Any], param: str) -> str:
    answer = client.post(body)
    assert answer.status == 400, answer.body
    assert (answer.error["type"], answer.error["param"]) == ("invalid_request_error", param)
    return str(answer.error["message"])


def test_defaults_are_recorded(service: Running, user: str) -> None:
    answer = service.client.tell("Hi.", user)
    assert service.ledger.one(RetrievalRecorded, answer).knobs == DEFAULTS


@pytest.mark.parametrize("as_given", [lambda value: value, str, lambda value: str(value).lower()])
def test_values_and_strings_mean_the_same(service: Running, user: str, as_given: Any) -> None:
    knobs = {
        "recent_turns": 0,
        "candidate_n": 7,
        "retrieval": "dense",
        "retrieve_k": 3,
        "neighbor_turns": 2,
        "gate_keep_max": 1,
        "timezone": "Europe/Vienna",
        "use_gate": False,
        "memory_import": False,
        "use_rerank": True,
    }
    answer = service.client.tell("Hi.", user, **{name: as_given(value) for name, value in knobs.items()})
    assert service.ledger.one(RetrievalRecorded, answer).knobs == knobs


@pytest.mark.parametrize("knob", BOUNDS)
def test_bounds_are_enforced_and_named(client: Client, user: str, knob: str) -> None:
    low, high = BOUNDS[knob]
    for good in (low, str(high)):
        client.tell("Hi.", user, **body_field(knob, good))
    for bad in (low - 1, str(high + 1)):
        message = refused(client, chat_body("Hi.", user, **body_field(knob, bad)), f"metadata.{knob}")
        assert str(bad) in message
        assert str(high if int(bad) > high else low) in message


@pytest.mark.parametrize("bad", [True, 1.5, "1.5", "many", "", None, [3], {"n": 3}, "0x10"])
def test_anything_but_a_whole_number_is_refused(client: Client, user: str, bad: object) -> None:
    refused(client, chat_body("Hi.", user, retrieve_k=bad), "metadata.retrieve_k")


@pytest.mark.parametrize("bad", ["maybe", "", 2, [True], None])
def test_anything_but_true_or_false_is_refused(client: Client, user: str, bad: object) -> None:
    refused(client, chat_body("Hi.", user, use_gate=bad), "metadata.use_gate")


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("recent_turn", "recent_turns"),
        ("use_reranks", "use_rerank"),
        ("retrievek", "retrieve_k"),
        ("neighbour_turns", "neighbor_turns"),
    ],
)
def test_a_misspelt_knob_is_named_with_the_likely_one(client: Client, user: str, slip: str, meant: str) -> None:
    message = refused(client, chat_body("Hi.", user, **body_field(slip, 3)), "metadata")
    assert slip in message
    assert meant in message


def test_a_clients_own_metadata_is_accepted(client: Client, user: str) -> None:
    client.tell("Hi.", user, session="a1", app_version="7", topic={"deep": [1]})


def test_metadata_has_at_most_sixteen_entries_with_keys_of_sixty_four_characters(client: Client, user: str) -> None:
    def body(entries: dict[str, object]) -> dict[str, object]:
        return {**chat_body("Hi.", user), "metadata": entries}

    client.tell("Hi.", user, **body_field("k" * 64, "v"))
    assert client.post(body({f"key {n}": "v" for n in range(16)})).status == 200
    assert "17" in refused(client, body({f"key {n}": "v" for n in range(17)}), "metadata")
    assert "64 characters" in refused(client, body({"k" * 65: "v"}), "metadata")


@pytest.mark.parametrize("bad", ["text", 3, [1]])
def test_metadata_must_be_an_object(client: Client, user: str, bad: object) -> None:
    refused(client, {**chat_body("Hi.", user), "metadata": bad}, "metadata")


@pytest.mark.parametrize("given", [0, 0.0, 1.5, 2])
def test_temperature_is_sent_as_it_was_given(service: Running, user: str, given: float) -> None:
    answer = service.client.tell("Hi.", user, temperature=given)
    sent = service.upstream.calls_of("answer")[-1].body
    assert sent["temperature"] == given
    assert service.ledger.one(TurnRecorded, answer).parameters == {"temperature": given}


def test_what_is_not_given_is_not_sent(service: Running, user: str) -> None:
    service.client.tell("Hi.", user)
    sent = service.upstream.calls_of("answer")[-1].body
    assert set(sent) == {"model", "messages", "stream", "stream_options"}
    assert sent["model"] == "scripted-chat"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_max_tokens_is_passed_on(service: Running, user: str, name: str) -> None:
    service.client.tell("Hi.", user, **body_field(name, 11))
    assert service.upstream.calls_of("answer")[-1].body[name] == 11


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", "hot"),
        ("temperature", True),
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("max_tokens", 1.5),
        ("max_tokens", True),
        ("max_tokens", "lots"),
    ],
)
def test_sampling_parameters_are_checked(client: Client, user: str, name: str, bad: object) -> None:
    refused(client, chat_body("Hi.", user, **body_field(name, bad)), name)


@pytest.mark.parametrize(("name", "value"), [("stop", ["END"]), ("seed", 7)])
def test_other_parameters_reach_the_model(service: Running, user: str, name: str, value: object) -> None:
    service.client.tell("Hi.", user, **body_field(name, value))
    assert service.upstream.calls_of("answer")[-1].body[name] == value

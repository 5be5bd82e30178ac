"""Each event says who asked for it: the key's label or the account, the route, the client, and the request's id."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domain.events import TurnRecorded
from domain.origin import Origin, command_origin
from service.keys import label_of
from tests.service.opm import environment, opm
from tests.service.running import Running, chat_body, running
from tests.upstream import ScriptedUpstream

IMPORT = command_origin("opm import")
KEY = "a-key-of-ann"


def origins(service: Running, user: str, conversation: str = "c") -> dict[str, Origin]:
    """Return the origin of the newest event of each type in a conversation, where it has one."""
    events = service.ledger.stream(user, conversation)
    return {event.payload.type: event.origin for event in events if event.origin is not None}


@pytest.mark.parametrize("stream", [False, True])
def test_a_turn_names_its_request_and_its_client(service: Running, user: str, stream: bool) -> None:
    answer = service.client.post(chat_body("Hello.", user, stream=stream), **{"user-agent": "openai-python/3.1"})
    found = origins(service, user)
    assert set(found) == {"RetrievalRecorded", "GateDecided", "RerankDecided", "TurnRecorded"}
    for origin in found.values():
        assert origin == Origin(
            route="POST /v1/chat/completions",
            client="openai-python/3.1",
            request_id=answer.headers["x-request-id"],
        )


def test_a_key_is_named_by_its_label_and_never_by_itself(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream, running(upstream, tmp_path, api_keys={KEY: "ann"}) as service:
        service.client.post(chat_body("Hello.", "ann"), authorization=f"Bearer {KEY}")
        origin = origins(service, "ann")["TurnRecorded"]
        assert origin.actor == label_of(KEY)
        assert KEY not in service.ledger.path.read_text("latin-1")
    assert label_of(KEY) != label_of(f"{KEY}2")


def test_a_person_who_corrects_and_withdraws(service: Running, user: str) -> None:
    memory_id = service.client.tell("My dog is called Bruno.", user).memory("turn")["memory_id"]
    service.client.http.patch(f"/v1/memories/{memory_id}", json={"user": user, "summary": "The dog is Bello."})
    service.client.http.delete(f"/v1/memories/{memory_id}", params={"user": user})
    found = origins(service, user)
    assert found["MemoryEdited"].route == "PATCH /v1/memories/{memory_id}"
    assert found["MemoryForgotten"].route == "DELETE /v1/memories/{memory_id}"


def test_commands_name_the_account(service: Running, user: str, tmp_path: Path) -> None:
    memory_id = service.client.tell("My dog is called Bruno.", user).memory("turn")["memory_id"]
    given = environment(service.ledger.path.parent)
    assert opm(given, "edit", memory_id, "--summary", "The dog is Bello.").status == 0
    file = tmp_path / "messages.json"
    file.write_text(json.dumps([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]))
    assert opm(given, "import", str(file), "--user", user).status == 0
    assert origins(service, user)["MemoryEdited"].route == "opm edit"
    [imported] = [event for event in service.ledger.reader.events_after(0, 10_000) if event.origin == IMPORT]
    assert isinstance(imported.payload, TurnRecorded)


def test_it_is_covered_by_the_hash_and_leaves_the_payload_as_it_was(service: Running, user: str) -> None:
    answer = service.client.tell("Hello.", user)
    [event] = [event for event in service.ledger.of_answer(answer) if event.payload.type == "TurnRecorded"]
    assert event.origin is not None
    assert "origin" not in event.payload.model_dump()
    assert opm(environment(service.ledger.path.parent), "verify").status == 0

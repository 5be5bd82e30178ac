"""What the service answers is what ``/docs`` says: real answers are validated against the documented models."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import TypeAdapter

from service.api import responses
from service.api.responses import ChatCompletion, ChatCompletionChunk, ErrorAnswer
from service.app import create_app
from tests.service.running import Answer, Running, settings_for, someone
from tests.upstream import Fault, ScriptedUpstream

TALK = ["Filler amber.", "We drive to the cabin at Loch Ness.", "Yes, on Tuesday.", "My cat is called Miso."]
QUESTION = "Where was the cabin last week?"
KNOBS = {"use_gate": False, "retrieve_k": 1, "neighbor_turns": 1}


def check(model: Any, answer: object) -> None:
    """Validate an answer strictly: no field too many, none too few, no value of another type."""
    TypeAdapter(model).validate_json(json.dumps(answer), strict=True, extra="forbid")


@pytest.fixture
def asked(service: Running, user: str) -> str:
    """The user of a conversation whose answers used all that memory has."""
    service.tell_all(TALK, user)
    service.settle()
    return user


def ask(service: Running, user: str, **more: Any) -> Answer:
    answer = service.client.tell(QUESTION, user, "later", **KNOBS, **more)
    retrieved = answer.memory("retrieved")
    assert {item["neighbor_of"] is None for item in retrieved["replay"]} == {True, False}
    assert retrieved["summary_only"]
    assert answer.memory("memory_status")["time_range"] is not None
    return answer


@pytest.mark.parametrize("fault", [Fault(reasoning="Hm."), Fault(finish_reason="length")], ids=["reasoning", "length"])
def test_a_whole_answer(service: Running, asked: str, fault: Fault) -> None:
    service.upstream.fail("answer", fault)
    check(ChatCompletion, ask(service, asked).body)


@pytest.mark.parametrize("include_usage", [False, True])
def test_every_chunk_of_a_stream(service: Running, asked: str, include_usage: bool) -> None:
    service.upstream.fail("answer", Fault(reasoning="Hm."))
    answer = ask(service, asked, stream=True, stream_options={"include_usage": include_usage})
    assert "Hm." in json.dumps(answer.events)
    assert answer.text
    for event in answer.events:
        check(ChatCompletionChunk, event)


def test_an_answer_without_memory(service: Running, user: str) -> None:
    service.upstream.fail_always("embed", Fault(status=500))
    answer = service.client.tell("Hello.", user)
    assert answer.memory("memory_status")["retrieval"] == "degraded"
    check(ChatCompletion, answer.body)


def test_an_error_before_and_within_a_stream(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(status=500))
    check(ErrorAnswer, service.client.ask("Hello.", user).body)
    service.upstream.fail("answer", Fault(close=True, after_chunks=1))
    answer = service.client.ask("Hello.", user, stream=True)
    check(ErrorAnswer, answer.events[-1])
    check(ErrorAnswer, service.client.get("/no-such-path").json())


def test_lists_and_memories(service: Running, asked: str) -> None:
    ask(service, asked)

    def get(path: str, **params: Any) -> Any:
        return service.client.get(path, user=asked, **params).json()

    turns = get("/v1/turns", conversation_id="later")
    assert turns["data"][0]["retrieved"]["replay"]
    check(responses.TurnList, turns)
    check(responses.ConversationList, get("/v1/conversations"))
    check(responses.MemoryList, get("/v1/memories"))
    check(responses.ModelList, get("/v1/models"))
    path = f"/v1/memories/{turns['data'][0]['memory_id']}"
    check(responses.Memory, get(path))
    http = service.client.http
    check(responses.EditedMemory, http.patch(path, json={"user": asked, "summary": "The cabin is sold."}).json())
    check(responses.ForgottenMemory, http.delete(path, params={"user": asked}).json())
    check(responses.RestoredMemory, http.post(f"{path}/restore", params={"user": asked}).json())


@pytest.mark.parametrize("status", [200, 503])
def test_health(service: Running, status: int) -> None:
    if status != 200:
        service.upstream.fail_always("embed", Fault(status=500))
        service.upstream.fail_always("answer", Fault(status=500))
        service.client.ask("Hello.", someone())
    models = {"embed": responses.EmbedHealth, "llm": responses.ChatHealth}
    for name, model in models.items():
        answer = service.client.get(f"/health/{name}")
        assert answer.status_code == status
        check(model, answer.json())
    check(responses.RerankHealth, service.client.get("/health/rerank").json())
    check(responses.Readiness, service.client.get("/health/ready").json())
    check(responses.Alive, service.client.get("/health").json())


class TestDocs:
    @pytest.fixture
    def document(self, upstream: ScriptedUpstream, tmp_path: Any) -> dict[str, Any]:
        return create_app(settings_for(upstream, tmp_path)).openapi()

    def test_every_route_describes_its_answers_and_its_errors(self, document: dict[str, Any]) -> None:
        operations = [operation for path in document["paths"].values() for operation in path.values()]
        assert len(operations) == 21
        for operation in operations:
            described = operation["responses"]
            assert {"200", "4XX", "5XX"} <= set(described)
            for status, response in described.items():
                ref = response["content"]["application/json"]["schema"]["$ref"]
                assert (ref == "#/components/schemas/ErrorAnswer") == status.endswith("XX")

    def test_a_stream_is_described_by_its_chunk(self, document: dict[str, Any]) -> None:
        answer = document["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
        assert set(answer) == {"application/json", "text/event-stream"}
        assert answer["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/ChatCompletionChunk"}
        assert "delta" in document["components"]["schemas"]["ChunkChoice"]["properties"]

    def test_every_reference_leads_somewhere(self, document: dict[str, Any]) -> None:
        referred = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
        assert referred <= set(document["components"]["schemas"])

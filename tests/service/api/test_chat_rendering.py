"""What an endpoint answers reaches the client complete and in OpenAI's shape, streamed and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from domain.events import TurnRecorded
from tests.service.running import Answer, Running, chat_body, events_of, running, someone
from tests.upstream import Fault, Reply, ScriptedUpstream

QUESTION = "What is the weather in Bern?"
WEATHER = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
PIECES = (
    {
        "tool_calls": [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
        ]
    },
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Bern"}'}}]},
)
FOREIGN = {
    "service_tier": "flex",
    "citations": ["https://weather.example"],
    "turn": "not ours",
    "id": "x",
    "model": "y",
}


def strictly(answer: Answer) -> Answer:
    """Return an answer that openai-python's own types take without conversion."""
    if answer.events:
        for event in answer.events:
            TypeAdapter(ChatCompletionChunk).validate_json(json.dumps(event), strict=True)
    else:
        TypeAdapter(ChatCompletion).validate_json(json.dumps(answer.body), strict=True)
    return answer


def put_together(answer: Answer) -> list[dict[str, Any]]:
    """Return the choices of an answer as openai-python's stream helper makes them of chunks."""
    if not answer.events:
        choices: list[dict[str, Any]] = answer.body["choices"]
        return choices
    state = ChatCompletionStreamState()
    for event in answer.events:
        state.handle_chunk(ChatCompletionChunk.model_validate(event))
    return [choice.model_dump(exclude_unset=True) for choice in state.current_completion_snapshot.choices]


@pytest.fixture(scope="module")
def several(module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service whose every question asks for two choices with log probabilities."""
    extra = {"n": 2, "logprobs": True}
    with running(module_upstream, tmp_path_factory.mktemp("several"), llm_extra_body=extra) as service:
        yield service


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("whole", [False, True], ids=["in pieces", "in one JSON"])
def test_tool_calls(service: Running, user: str, stream: bool, whole: bool) -> None:
    if whole:
        message = {"role": "assistant", "content": None, "tool_calls": [WEATHER]}
        raw = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
        service.upstream.fail("answer", Fault(raw=raw.encode()))
    else:
        service.upstream.responders["answer"] = lambda _: Reply("", "tool_calls", deltas=PIECES)
    answer = strictly(service.client.tell(QUESTION, user, stream=stream))
    [choice] = put_together(answer)
    assert choice["finish_reason"] == "tool_calls"
    called = [{name: call[name] for name in ("id", "type", "function")} for call in choice["message"]["tool_calls"]]
    assert [called[0]["function"][name] for name in ("name", "arguments")] == ["weather", '{"city": "Bern"}']
    assert (called[0]["id"], called[0]["type"]) == ("call_1", "function")
    if not stream:
        assert choice["message"] == {"role": "assistant", "content": None, "tool_calls": [WEATHER]}


@pytest.mark.parametrize("stream", [False, True])
def test_text_and_calls_and_what_openai_does_not_know(service: Running, user: str, stream: bool) -> None:
    service.upstream.responders["answer"] = lambda _: Reply(
        "I will look.",
        "tool_calls",
        deltas=(*PIECES, {"reasoning_details": [{"index": 0, "text": "Hm."}]}),
        choice={"stop_reason": 7},
        answer=FOREIGN,
        usage={"prompt_tokens_details": {"cached_tokens": 8}, "cost": 0.5},
    )
    options = {"include_usage": True} if stream else None
    answer = strictly(service.client.tell(QUESTION, user, stream=stream, stream_options=options))
    [choice] = put_together(answer)
    assert choice["message"]["content"] == "I will look."
    assert choice["message"]["tool_calls"][0]["id"] == "call_1"
    parts = answer.events or [answer.body]
    ends = [part for part in parts if part["choices"] and part["choices"][0]["finish_reason"]]
    assert ends[0]["choices"][0]["stop_reason"] == 7
    assert "reasoning_details" in json.dumps(parts)
    assert all(part["id"] == answer.id != "x" and part["model"] == service.upstream.chat_model for part in parts)
    told = [part for part in parts if "citations" in part]
    assert told
    assert all(part["citations"] == FOREIGN["citations"] for part in told)
    # The first chunk leaves when the model begins, before it has said anything.
    for part in parts[1:] if stream else parts:
        assert (part["service_tier"], part["system_fingerprint"]) == ("flex", service.upstream.fingerprint)
    assert not [part for part in parts if part.get("turn") == "not ours"]
    usage = parts[-1]["usage"]
    assert (usage["prompt_tokens_details"], usage["cost"]) == ({"cached_tokens": 8}, 0.5)


@pytest.mark.parametrize("stream", [False, True])
def test_all_choices_come_back_with_their_log_probabilities(several: Running, stream: bool) -> None:
    user = someone()
    several.upstream.responders["answer"] = lambda _: Reply("It rains.")
    answer = strictly(several.client.tell(QUESTION, user, stream=stream))
    choices = put_together(answer)
    assert [choice["index"] for choice in choices] == [0, 1]
    for choice in choices:
        assert choice["message"]["content"] == "It rains."
        assert choice["message"]["role"] == "assistant"
        assert choice["finish_reason"] == "stop"
        assert [token["token"] for token in choice["logprobs"]["content"]] == ["It", " rains."]
    [turn] = several.ledger.all(TurnRecorded, user)
    assert turn.assistant == "It rains."
    assert answer.memory("turn")["memory_id"]


def test_no_choice_ends_before_the_turn_is_on_the_disk(several: Running) -> None:
    user = someone()
    several.upstream.responders["answer"] = lambda _: Reply("It rains.")
    body = chat_body(QUESTION, user, stream=True)
    ended = 0
    with several.client.http.stream("POST", "/v1/chat/completions", json=body) as response:
        for event in events_of(response):
            if event and [choice for choice in event["choices"] if choice["finish_reason"]]:
                ended += 1
                assert several.ledger.all(TurnRecorded, user)
    assert ended == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_refusal_is_told_as_one_and_recorded(service: Running, user: str, stream: bool) -> None:
    service.upstream.responders["answer"] = lambda _: Reply("", deltas=({"refusal": "I can"}, {"refusal": "not."}))
    [choice] = put_together(strictly(service.client.tell(QUESTION, user, stream=stream)))
    assert choice["message"]["refusal"] == "I cannot."
    assert stream or choice["message"]["content"] is None
    [turn] = service.ledger.all(TurnRecorded, user)
    assert turn.assistant == "I cannot."


def test_openai_python_reads_a_stream_of_calls(service: Running, user: str) -> None:
    service.upstream.responders["answer"] = lambda _: Reply("", "tool_calls", deltas=PIECES)
    with (
        openai.OpenAI(base_url=f"{service.client.base_url}/v1", api_key="none", max_retries=0) as client,
        client.chat.completions.stream(
            model=service.upstream.chat_model, messages=[{"role": "user", "content": QUESTION}], user=user
        ) as stream,
    ):
        final = stream.get_final_completion()
    [call] = final.choices[0].message.tool_calls or []
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city": "Bern"}')

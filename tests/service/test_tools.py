"""An exchange in which the client's tools are called: one turn, with the memory that it began with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from domain.events import MessagesSent, RetrievalRecorded, ToolsCalled, ToolsOffered, TurnRecorded
from tests.service.running import Running, running, someone
from tests.service.test_client_messages import assert_proved_exchange
from tests.upstream import ScriptedUpstream
from tests.upstream.responders import ChatRequest, Reply

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"Tell the {name} of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    for name in ("weather", "time")
]
FACT = "I live in Bern."
QUESTION = "What is the weather where I live?"


def with_tools(request: ChatRequest) -> Reply:
    """Call the weather, then the time, then answer with what both said."""
    messages = request.body["messages"]
    results = [message["content"] for message in messages if message["role"] == "tool"]
    names = ["weather", "time"]
    if not request.body.get("tools") or len(results) == len(names):
        return Reply(f"It is {' and '.join(results)}." if results else "Noted.")
    call = {
        "id": f"call_{len(results)}",
        "type": "function",
        "function": {"name": names[len(results)], "arguments": '{"city": "Bern"}'},
    }
    return Reply(
        "", finish_reason="tool_calls", deltas=({"tool_calls": [{"index": 0, **call}]},), message={"tool_calls": [call]}
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with ScriptedUpstream() as upstream, running(upstream, tmp_path_factory.mktemp("storage")) as service:
        upstream.responders["answer"] = with_tools
        yield service


@pytest.fixture
def user(service: Running) -> str:
    user = someone()
    service.tell_all([FACT], user)
    return user


@pytest.fixture
def client(service: Running) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{service.client.base_url}/v1", api_key="none", max_retries=0)


def ask(client: openai.OpenAI, user: str, messages: list[Any], *, stream: bool, **more: Any) -> Any:
    """Return the message of an answer; of a stream, put together as clients do it."""
    given = {"model": "any", "messages": messages, "user": user, "tools": TOOLS, **more}
    if not stream:
        return client.chat.completions.create(**given).choices[0].message
    with client.chat.completions.stream(**given) as events:
        for _ in events:
            pass
        return events.get_final_completion().choices[0].message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("conversation", [None, "c"])
def test_one_turn_is_recorded_when_the_last_text_comes(
    service: Running, client: openai.OpenAI, user: str, stream: bool, conversation: str | None
) -> None:
    named = {"extra_body": {"metadata": {"conversation_id": conversation}}} if conversation is not None else {}
    messages: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
    prompts = []
    for result in ("sunny", "noon"):
        message = ask(client, user, messages, stream=stream, **named)
        prompts.append(service.upstream.calls_of("answer")[-1].body["messages"])
        assert not message.content
        called = message.tool_calls[0]
        assert json.loads(called.function.arguments) == {"city": "Bern"}
        messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
        messages.append({"role": "tool", "tool_call_id": called.id, "content": result})
    answer = ask(client, user, messages, stream=stream, **named)
    assert answer.content == "It is sunny and noon."

    sent = service.upstream.calls_of("answer")[-1].body
    assert sent["tools"] == TOOLS
    assert [message["role"] for message in sent["messages"][-5:]] == ["user", "assistant", "tool", "assistant", "tool"]
    # What was recalled at first stands there to the end.
    shown = len(prompts[0])
    assert sent["messages"][:shown] == prompts[1][:shown] == prompts[0]
    assert any(FACT in str(message["content"]) for message in prompts[0][:-1])

    events = [event for event in service.ledger.reader.events_after(0, 1_000_000) if event.user_id == user]
    turns = [event for event in events if isinstance(event.payload, TurnRecorded)]
    assert [event.payload.user for event in turns if isinstance(event.payload, TurnRecorded)] == [FACT, QUESTION]
    turn = turns[-1].payload
    assert isinstance(turn, TurnRecorded)
    assert (turn.assistant, turn.tools_used) == ("It is sunny and noon.", ("weather", "time"))
    exchange = [event for event in events if event.correlation_id == turns[-1].correlation_id]
    kinds = [type(event.payload) for event in exchange]
    assert (kinds.count(ToolsCalled), kinds.count(RetrievalRecorded), kinds.count(ToolsOffered)) == (2, 1, 1)
    assert {event.conversation_id for event in exchange} == {conversation or "default"}
    assert_proved_exchange(service, turns[-1].correlation_id or "")
    # The id that the client has of the last answer.
    assert_proved_exchange(service, f"{turns[-1].correlation_id}-2")


def test_the_next_question_follows_a_turn_with_tools(service: Running, client: openai.OpenAI, user: str) -> None:
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    for result in ("sunny", "noon"):
        message = ask(client, user, messages, stream=False)
        messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
        messages.append({"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": result})
    answer = ask(client, user, messages, stream=False)
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "Thank you."}]
    given = {"model": "any", "messages": messages, "user": user}
    client.chat.completions.create(**given)  # type: ignore[call-overload]  # plain dicts
    assert [message["role"] for message in service.upstream.calls_of("answer")[-1].body["messages"][-7:]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    events = [event for event in service.ledger.reader.events_after(0, 1_000_000) if event.user_id == user]
    turns = [event for event in events if isinstance(event.payload, TurnRecorded)]
    last = turns[-1].payload
    assert isinstance(last, TurnRecorded)
    assert last.follows == turns[-2].event_id
    assert_proved_exchange(service, turns[-1].correlation_id or "")
    # The result of a tool is in what the client sent, and no memory.
    assert not any("sunny" in event.payload.user for event in turns if isinstance(event.payload, TurnRecorded))


def test_results_of_an_unknown_call_are_answered(service: Running, client: openai.OpenAI, user: str) -> None:
    """The calls were made elsewhere: memory is searched for the question all the same."""
    call = {"id": "call_x", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    other = {"id": "call_y", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [call, other]},
        {"role": "tool", "tool_call_id": "call_x", "content": "rainy"},
        {"role": "tool", "tool_call_id": "call_y", "content": "night"},
    ]
    answer = ask(client, user, messages, stream=False)
    assert answer.content == "It is rainy and night."
    assert any(FACT in str(each["content"]) for each in service.upstream.calls_of("answer")[-1].body["messages"][:-4])


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_not_lost_where_a_tool_is_none(
    service: Running, client: openai.OpenAI, user: str, stream: bool
) -> None:
    """An endpoint may overlook it, and what it answers is recorded."""
    answer = service.client.tell("What do you know?", user, stream=stream, tools=[None])
    assert_proved_exchange(service, answer.id)


def test_an_exchange_that_is_never_finished_is_no_memory(service: Running, client: openai.OpenAI, user: str) -> None:
    ask(client, user, [{"role": "user", "content": QUESTION}], stream=False)
    events = [event for event in service.ledger.reader.events_after(0, 1_000_000) if event.user_id == user]
    assert sum(isinstance(event.payload, TurnRecorded) for event in events) == 1
    assert sum(isinstance(event.payload, ToolsCalled) for event in events) == 1
    assert not any(isinstance(event.payload, MessagesSent) for event in events)


def test_a_beginning_of_the_answer_is_passed_on_and_recorded(
    service: Running, client: openai.OpenAI, user: str
) -> None:
    service.upstream.say("answer", " and it is calm.")
    service.upstream.strict_template = False
    messages = [{"role": "user", "content": "Go on: "}, {"role": "assistant", "content": "The sea is wide"}]
    answer = ask(client, user, messages, stream=False, tools=openai.omit)
    service.upstream.responders["answer"] = with_tools
    service.upstream.strict_template = True
    assert answer.content == " and it is calm."
    assert service.upstream.calls_of("answer")[-1].body["messages"][-1] == messages[-1]
    events = [event for event in service.ledger.reader.events_after(0, 1_000_000) if event.user_id == user]
    turn = next(event.payload for event in reversed(events) if isinstance(event.payload, TurnRecorded))
    assert turn.assistant == "The sea is wide and it is calm."

"""What is kept of requests can be sent to another service, and a request that does not reach the model is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from tests.clients.client import Recall
from tests.clients.live import misremembered, unlike
from tests.clients.recording import Answer, Exchange, answer_of, recorded
from tests.upstream import Call

TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
ASKED: dict[str, Any] = {
    "model": "m",
    "seed": 7,
    "tools": [TOOL],
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "My bicycle is red."},
        {"role": "assistant", "content": "Noted."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And here?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
    ],
}


def _exchange(body: Any, path: str = "/v1/chat/completions", answer: Answer | None = None) -> Exchange:
    return Exchange("step", "POST", path, {}, body, 1.0, 3.0, 200, answer or Answer())


def _call(body: Mapping[str, Any]) -> Call:
    return Call("answer", body, {}, started=2.0)


def test_a_repeated_answer_becomes_a_mark_and_is_filled_with_another_one() -> None:
    first = Answer("chatcmpl-1", 'He said "no".', ["call_12345"], ["msg_12345"])
    repeats = {"said": ['He said "no".', "He said “no”."], "call": "call_12345", "before": "chatcmpl-1"}
    kept = recorded("c", "1", "2026-11-27", [_exchange({"a": 1}, answer=first), _exchange(repeats)], {})
    assert kept.requests[1].body == {
        "said": ["{{text:0}}", "He said “no”."],
        "call": "{{call.0:0}}",
        "before": "{{id:0}}",
    }
    other = Answer("chatcmpl-2", "Two\nlines", ["call_other"])
    filled = kept.requests[1].filled([other])
    assert filled == {"said": ["Two\nlines", "He said “no”."], "call": "call_other", "before": "chatcmpl-2"}


def test_ids_and_paths_of_the_machine_are_not_kept() -> None:
    chat, person = "0d9cbd8e-3f0c-4f0e-9b0e-6d2f5d4f6a11", "1d9cbd8e-3f0c-4f0e-9b0e-6d2f5d4f6a12"
    exchange = _exchange({"at": "/home/ann/envs/x", "chats": [chat, person, chat], "url": "http://127.0.0.1:45123/v1"})
    [request] = recorded("c", "1", "2026-11-27", [exchange], {"/home/ann/envs": "ENVIRONMENTS"}).requests
    one, other = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"
    url = "http://127.0.0.1:8000/v1"
    assert request.body == {"at": "ENVIRONMENTS/x", "chats": [one, other, one], "url": url}


def test_an_answer_is_read_streamed_and_whole() -> None:
    call = {"index": 0, "id": "call_1", "function": {"name": "f", "arguments": ""}}
    deltas: list[dict[str, Any]] = [{"content": "Yes"}, {"content": "."}, {"tool_calls": [call]}]
    chunks = [{"id": "chatcmpl-1", "choices": [{"delta": delta}]} for delta in deltas]
    streamed = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    whole = {"id": "chatcmpl-1", "choices": [{"message": {"content": "Yes.", "tool_calls": [call]}}]}
    expected = Answer("chatcmpl-1", "Yes.", ["call_1"])
    assert answer_of(streamed.encode()) == answer_of(json.dumps(whole).encode()) == expected


def test_a_request_that_reached_the_model_with_memory_before_it_is_like_it() -> None:
    sent = deepcopy(ASKED)
    sent["messages"][0]["content"] = "You remember.\n\nBe brief."
    sent["messages"][1:1] = [{"role": "user", "content": "Memory"}, {"role": "assistant", "content": "Yes"}]
    assert list(unlike([_exchange(ASKED)], [_call(sent)])) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda sent: sent.pop("tools"), "tools is None"),
        (lambda sent: sent.update(seed=8), "seed is 8"),
        (lambda sent: sent["messages"].pop(2), "the roles are"),
        (lambda sent: sent["messages"][1].update(content="My bicycle"), "'My bicycle is red.' is 'My bicycle'"),
        (lambda sent: sent["messages"][3]["content"].pop(), "a part of a message is missing"),
        (lambda sent: sent["messages"][0].update(content="You remember."), "a system text is missing"),
    ],
)
def test_what_did_not_reach_the_model_is_named(change: Any, said: str) -> None:
    sent = deepcopy(ASKED)
    change(sent)
    [found] = unlike([_exchange(ASKED)], [_call(sent)])
    assert found.startswith(f"step: {said}")


def test_a_response_goes_on_with_the_one_before() -> None:
    asked = [
        _exchange({"input": "My boat is blue."}, "/v1/responses", Answer("resp_1", "Noted.")),
        _exchange({"input": "And now?", "previous_response_id": "resp_1"}, "/v1/responses", Answer("resp_2", "Well.")),
    ]
    sent = [_call({"messages": [{"role": "user", "content": text}]}) for text in ("My boat is blue.", "And now?")]
    assert list(unlike(asked, sent)) == ["step: 'My boat is blue.' is missing", "step: 'Noted.' is missing"]


def test_what_memory_tells_wrongly_is_named() -> None:
    recall = Recall("step", ("is green",), ("is red",))
    told = {"messages": [{"role": "user", "content": "It is red."}]}
    [missing, wrong] = misremembered([recall], [_exchange(ASKED)], [_call(told)])
    assert missing == "step: ('is green',) is not told"
    assert wrong == "step: 'is red' is told"

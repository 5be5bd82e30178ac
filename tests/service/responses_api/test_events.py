"""The events of a response come in OpenAI's order, say the whole of it, and have the shape that its client reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from domain.events import JsonObject, Usage
from service.responses_api.events import ResponseEvents
from service.responses_api.frame import frame

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
RESPONSE: TypeAdapter[Any] = TypeAdapter(Response)
USAGE = Usage(prompt_tokens=7, completion_tokens=5, total_tokens=12)
FRAME = frame("chatcmpl-0123456789abcdef0123456789abcdef", 1_700_000_000, "m", {}, instructions=None, tools=())

Piece = dict[str, Any]


def call(index: int, name: str = "", arguments: str = "") -> JsonObject:
    """Return a piece of a call; the one with a name is the first."""
    begins = {"id": f"call_{index}", "type": "function"} if name else {}
    return {"index": index, **begins, "function": {**({"name": name} if name else {}), "arguments": arguments}}


def told(*pieces: Piece, reason: str = "stop", custom: tuple[str, ...] = ()) -> tuple[list[JsonObject], JsonObject]:
    """Return the events of an answer that comes in pieces, and its whole response."""
    telling = ResponseEvents(custom)
    events = telling.begun(FRAME)
    for piece in pieces:
        events += telling.said(**piece)
    events += telling.finished(reason, USAGE, 1_700_000_009)
    return events, telling.response


def kinds(events: list[JsonObject]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text_is_told_in_openais_order() -> None:
    events, response = told({"text": "Hi "}, {"text": "there."})
    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[-1]["response"] == response
    assert response["output"][0]["content"][0]["text"] == "Hi there."
    assert response["status"] == "completed"
    assert response["usage"]["input_tokens"] == 7
    assert RESPONSE.validate_python(response).output_text == "Hi there."


def test_reasoning_is_done_when_the_text_begins() -> None:
    events, response = told({"reasoning": "Hm."}, {"text": "Yes."})
    assert kinds(events)[2:10] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
    ]
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
    assert response["output"][0]["summary"] == [{"type": "summary_text", "text": "Hm."}]


def test_calls_of_tools_stay_open_while_others_begin() -> None:
    events, response = told(
        {"text": "Let me see."},
        {"calls": [call(0, "weather", '{"in":')]},
        {"calls": [call(1, "clock"), call(0, arguments='"Bern"}')]},
        {"calls": [call(1, arguments="{}")]},
        reason="tool_calls",
    )
    done = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert [(event["output_index"], event["arguments"]) for event in done] == [(1, '{"in":"Bern"}'), (2, "{}")]
    assert [item["type"] for item in response["output"]] == ["message", "function_call", "function_call"]
    assert response["output"][1] == {
        "id": "fc_0123456789abcdef0123456789abcdef_0",
        "call_id": "call_0",
        "name": "weather",
        "type": "function_call",
        "status": "completed",
        "arguments": '{"in":"Bern"}',
    }
    assert response["status"] == "completed"


@pytest.mark.parametrize(
    ("arguments", "given"),
    [('{"input": "*** Begin"}', "*** Begin"), ("*** Begin", "*** Begin"), ('{"a": 1}', '{"a": 1}')],
)
def test_a_custom_tool_gets_free_text(arguments: str, given: str) -> None:
    events, response = told({"calls": [call(0, "patch", arguments)]}, custom=("patch",))
    assert response["output"][0]["type"] == "custom_tool_call"
    assert response["output"][0]["input"] == given
    assert kinds(events)[2:-1] == [
        "output_item.added",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
        "output_item.done",
    ]


@pytest.mark.parametrize(("reason", "said"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(reason: str, said: str) -> None:
    events, response = told({"text": "Once upon"}, reason=reason)
    assert events[-1]["type"] == "response.incomplete"
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": said}
    assert response["output"][0]["status"] == "incomplete"


def test_a_refusal_is_a_part_of_its_own() -> None:
    events, response = told({"text": "Well, "}, {"refusal": "no."})
    assert [part["type"] for part in response["output"][0]["content"]] == ["output_text", "refusal"]
    assert kinds(events)[5:10] == [
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.done",
    ]


def test_citations_and_probabilities_come_along() -> None:
    citation = {"start_index": 0, "end_index": 2, "title": "T", "url": "https://e.org"}
    probable = {"token": "Hi", "logprob": -0.1, "bytes": None, "top_logprobs": [{"token": "Hi", "logprob": -0.1}]}
    events, response = told(
        {"text": "Hi", "logprobs": [probable]}, {"annotations": [{"type": "url_citation", "url_citation": citation}]}
    )
    part = response["output"][0]["content"][0]
    assert part["annotations"] == [{"type": "url_citation", **citation}]
    assert part["logprobs"] == [
        {**probable, "bytes": [], "top_logprobs": [{"token": "Hi", "logprob": -0.1, "bytes": []}]}
    ]
    for event in events:
        EVENT.validate_python(event)


def test_an_error_before_the_response_is_an_event_and_one_in_it_a_failed_response() -> None:
    error = {"message": "too slow", "code": "timeout", "param": None}
    assert ResponseEvents().failed(504, error) == [{"type": "error", "sequence_number": 0, **error}]
    telling = ResponseEvents()
    telling.begun(FRAME)
    telling.said(text="Once")
    [failed] = telling.failed(429, error)
    EVENT.validate_python(failed)
    assert failed["type"] == "response.failed"
    assert failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "rate_limit_exceeded", "message": "too slow"}
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert telling.failed(503, error) == []


def any_piece() -> st.SearchStrategy[Piece]:
    text = st.text("ab \n\u2028é🙂", max_size=5)
    return st.fixed_dictionaries(
        {},
        optional={
            "reasoning": text,
            "text": text,
            "refusal": text,
            "calls": st.lists(
                st.tuples(st.integers(0, 3), text).map(lambda said: call(said[0], "t", said[1])), max_size=3
            ),
        },
    )


def named_once(pieces: list[Piece]) -> Iterator[Piece]:
    """Yield pieces in which a call has its name where it begins, as endpoints give it; one in two is a custom tool."""
    seen: set[int] = set()
    for piece in pieces:
        calls = []
        for said in piece.get("calls", ()):
            index = said["index"]
            name = "" if index in seen else ("custom" if index % 2 else "plain")
            seen.add(index)
            calls.append(call(index, name, said["function"]["arguments"]))
        yield {**piece, "calls": calls}


@given(
    st.lists(any_piece(), max_size=8), st.sampled_from(["stop", "tool_calls", "length", "content_filter", "eos", ""])
)
def test_whatever_a_model_says_is_told_in_legal_order_and_whole(pieces: list[Piece], reason: str) -> None:
    said = list(named_once(pieces))
    events, response = told(*said, reason=reason, custom=("custom",))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENT.validate_python(event)
    RESPONSE.validate_python(response)
    assert rebuilt(events) == response["output"]
    texts = "".join(piece.get("text", "") for piece in said)
    assert "".join(part["text"] for part in parts(response, "output_text")) == texts
    refused = "".join(piece.get("refusal", "") for piece in said)
    assert "".join(part["refusal"] for part in parts(response, "refusal")) == refused
    thought = "".join(piece.get("reasoning", "") for piece in said)
    summaries = [each for item in response["output"] if item["type"] == "reasoning" for each in item["summary"]]
    assert "".join(each["text"] for each in summaries) == thought
    ids = [item["id"] for item in response["output"]]
    assert len(set(ids)) == len(ids)


def parts(response: JsonObject, kind: str) -> list[JsonObject]:
    messages = [item for item in response["output"] if item["type"] == "message"]
    return [part for message in messages for part in message["content"] if part["type"] == kind]


class Reading:
    """A strict client: it puts the items together from the deltas, and refuses an event that is out of order."""

    def __init__(self) -> None:
        self.items: list[JsonObject] = []
        self.texts: dict[tuple[int, int], str] = {}
        self.open_parts: set[tuple[int, int]] = set()
        self.open_items: set[int] = set()

    def add_item(self, event: JsonObject) -> None:
        assert event["output_index"] == len(self.items)
        assert not event["item"].get("content")
        self.items.append(event["item"])
        self.open_items.add(event["output_index"])

    def end_item(self, event: JsonObject) -> None:
        at = event["output_index"]
        self.open_items.remove(at)
        assert not {part for part in self.open_parts if part[0] == at}
        self.items[at] = event["item"]

    def begin(self, event: JsonObject, number: int) -> None:
        at = (event["output_index"], number)
        assert event["item_id"] == self.items[at[0]]["id"]
        assert at not in self.texts
        assert at[0] in self.open_items
        self.open_parts.add(at)
        self.texts[at] = ""

    def grow(self, event: JsonObject, number: int = 0, *, is_part: bool = True) -> None:
        at = (event["output_index"], number)
        assert at[0] in self.open_items
        assert event["item_id"] == self.items[at[0]]["id"]
        assert at in self.open_parts or not is_part
        self.texts[at] = self.texts.get(at, "") + event["delta"]

    def end(self, event: JsonObject, text: str, number: int = 0) -> None:
        at = (event["output_index"], number)
        assert at[0] in self.open_items
        assert self.texts.get(at, "") == text

    def end_part(self, event: JsonObject, number: int) -> None:
        at = (event["output_index"], number)
        self.open_parts.remove(at)
        part = event["part"]
        assert self.texts[at] == (part["refusal"] if part["type"] == "refusal" else part["text"])


def rebuilt(events: list[JsonObject]) -> list[JsonObject]:
    """Return the output that events make; fail where one is out of order."""
    assert kinds(events)[:2] == ["created", "in_progress"]
    assert kinds(events)[-1] in {"completed", "incomplete"}
    reading = Reading()
    for event in events[2:-1]:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                reading.add_item(event)
            case "output_item.done":
                reading.end_item(event)
            case "content_part.added":
                reading.begin(event, event["content_index"])
            case "content_part.done":
                reading.end_part(event, event["content_index"])
            case "reasoning_summary_part.added":
                reading.begin(event, event["summary_index"])
            case "reasoning_summary_part.done":
                reading.end_part(event, event["summary_index"])
            case "output_text.delta" | "refusal.delta":
                reading.grow(event, event["content_index"])
            case "reasoning_summary_text.delta":
                reading.grow(event, event["summary_index"])
            case "function_call_arguments.delta" | "custom_tool_call_input.delta":
                reading.grow(event, is_part=False)
            case "output_text.done":
                reading.end(event, event["text"], event["content_index"])
            case "refusal.done":
                reading.end(event, event["refusal"], event["content_index"])
            case "reasoning_summary_text.done":
                reading.end(event, event["text"], event["summary_index"])
            case "function_call_arguments.done":
                reading.end(event, event["arguments"])
            case "custom_tool_call_input.done":
                reading.end(event, event["input"])
            case other:
                pytest.fail(f"{other} has no place here")
    assert not reading.open_items
    return reading.items

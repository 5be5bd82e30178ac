"""A request to the Responses API becomes the body of a chat completion, or is refused by the name of its field."""

from __future__ import annotations

from typing import Any

import pytest

from domain.errors import InvalidInput
from domain.events import JsonObject
from service.responses_api.messages import items_of
from service.responses_api.request import Earlier, ResponsesRequest, Translated, named_as_sent, translated

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
AS_FUNCTION = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True},
}
CALLED = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def read(
    earlier: Earlier | None = None, referred: dict[str, list[JsonObject]] | None = None, **body: Any
) -> Translated:
    return translated(ResponsesRequest.model_validate({"input": "Hi.", **body}), earlier, (referred or {}).get)


def sent(**body: Any) -> JsonObject:
    return read(**body).body.model_dump(exclude_unset=True)


def messages(*items: JsonObject, **more: Any) -> list[JsonObject]:
    return [message.as_sent() for message in read(input=list(items), **more).body.messages]


def refused(**body: Any) -> InvalidInput:
    with pytest.raises(InvalidInput) as error:
        read(**body)
    return error.value


def test_a_text_is_the_persons_message() -> None:
    assert sent(input="Hi.", model="m") == {"model": "m", "messages": [{"role": "user", "content": "Hi."}]}


def test_instructions_come_first() -> None:
    body = sent(
        instructions="Be brief.",
        input=[{"role": "developer", "content": "In French."}, {"role": "user", "content": "Hi."}],
    )
    assert [message["role"] for message in body["messages"]] == ["system", "developer", "user"]


@pytest.mark.parametrize(
    ("part", "made"),
    [
        ({"type": "input_text", "text": "a"}, {"type": "text", "text": "a"}),
        (
            {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "high"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "high"}},
        ),
        (
            {"type": "input_file", "file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,QUJD", "filename": "a.pdf"}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "QUJD", "format": "wav"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
            {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
        ),
    ],
)
def test_a_part_is_sent_on(part: JsonObject, made: JsonObject) -> None:
    other = {"type": "input_image", "image_url": "https://e.org/b.png"}
    [message] = messages({"role": "user", "content": [part, other]})
    assert message["content"][0] == made


def test_plain_parts_are_one_text() -> None:
    parts = [{"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}]
    said = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": parts}
    assert messages(said, {"role": "user", "content": "Hi."})[0] == {"role": "assistant", "content": "Hello."}


def test_calls_and_the_text_beside_them_are_one_message() -> None:
    made = messages(
        {"role": "user", "content": "Weather?"},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"},
        {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": "{}"},
        {"role": "assistant", "content": "One moment."},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "rain"}]},
    )
    assert made == [
        {"role": "user", "content": "Weather?"},
        {
            "role": "assistant",
            "content": "Let me see.\nOne moment.",
            "tool_calls": [CALLED, {**CALLED, "id": "call_2"}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "call_2", "content": "rain"},
    ]


def test_items_that_are_one_answer_are_one_message() -> None:
    made = messages(
        {"role": "user", "content": "Tea?"},
        {"role": "assistant", "content": "I think so."},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]},
        {"role": "user", "content": "Sure?"},
    )
    assert [message["role"] for message in made] == ["user", "assistant", "user"]
    assert made[1]["content"] == "I think so.\nYes."


def test_an_empty_id_names_nothing() -> None:
    meant = read(previous_response_id="", conversation="", user="")
    assert {"conversation", "user"}.isdisjoint(meant.body.model_dump(exclude_unset=True))
    assert meant.repeated == {}


def test_a_call_alone_has_no_text() -> None:
    called = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
    made = messages({"role": "user", "content": "Weather?"}, called)
    assert made[1] == {"role": "assistant", "content": None, "tool_calls": [CALLED]}


def test_a_custom_tool_becomes_a_function_and_its_calls_too() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "a"'}
    patch = {"type": "custom", "name": "apply_patch", "description": "Edit files.", "format": grammar}
    meant = read(
        input=[
            {"role": "user", "content": "Edit."},
            {"type": "custom_tool_call", "call_id": "call_1", "name": "apply_patch", "input": "*** Begin"},
            {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"},
        ],
        tools=[patch],
    )
    body = meant.body.model_dump(exclude_unset=True)
    function = body["tools"][0]["function"]
    assert (function["name"], function["parameters"]["required"]) == ("apply_patch", ["input"])
    assert 'start: "a"' in function["description"]
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"input": "*** Begin"}'
    assert meant.tools.custom == ("apply_patch",)
    assert meant.repeated["custom_tools"] == ["apply_patch"]


def test_a_reference_stands_for_the_item_of_an_earlier_response() -> None:
    kept = {"fc_1": [{"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}], "rs_1": []}
    made = messages(
        {"role": "user", "content": "Weather?"},
        {"type": "item_reference", "id": "rs_1"},
        {"type": "item_reference", "id": "fc_1"},
        {"type": "function_call_output", "call_id": "call_1", "output": "sunny"},
        referred=kept,
    )
    assert [message["role"] for message in made] == ["user", "assistant", "tool"]
    assert refused(input=[{"type": "item_reference", "id": "msg_9"}], referred=kept).field == "input.0.id"


def test_what_came_before_stands_before_the_input() -> None:
    earlier = Earlier(
        ({"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "tool_calls": [CALLED]}),
        "c7",
    )
    meant = read(
        earlier,
        previous_response_id="resp_1",
        instructions="Be brief.",
        input=[{"type": "function_call_output", "call_id": "call_1", "output": {"sun": True}}],
    )
    body = meant.body.model_dump(exclude_unset=True)
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool"]
    assert body["messages"][-1]["content"] == '{"sun": true}'
    assert body["conversation"] == "c7"


def test_the_fields_are_those_of_a_chat_completion() -> None:
    body = sent(
        model="m",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False,
        max_output_tokens=50,
        reasoning={"effort": "low", "summary": "auto"},
        text={
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
        },
        temperature=0.5,
        top_p=0.9,
        metadata={"a": "b"},
        user="u",
        store=False,
        stream=True,
        truncation="auto",
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_logprobs=3,
        max_tool_calls=4,
        service_tier="flex",
        top_k=5,
        client_metadata={"x": "y"},
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi."}],
        "tools": [AS_FUNCTION],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "max_tokens": 50,
        "reasoning_effort": "low",
        "verbosity": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        },
        "temperature": 0.5,
        "top_p": 0.9,
        "metadata": {"a": "b"},
        "user": "u",
        "store": False,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 3,
        "service_tier": "flex",
        "top_k": 5,
    }


def test_what_codex_sends_is_taken() -> None:
    meant = read(
        instructions="You are Codex.",
        input=[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi."}]}],
        tools=[WEATHER, {"type": "web_search", "external_web_access": False}],
        tool_choice="auto",
        parallel_tool_calls=False,
        reasoning=None,
        store=False,
        stream=True,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="0199-aa",
    )
    body = meant.body.model_dump(exclude_unset=True)
    assert body["tools"] == [AS_FUNCTION]
    assert meant.tools.left_out == ("web_search",)
    assert body["prompt_cache_key"] == "0199-aa"


def test_without_tools_nothing_is_said_of_them() -> None:
    assert {"tools", "tool_choice", "parallel_tool_calls"}.isdisjoint(
        sent(tools=[], tool_choice="auto", parallel_tool_calls=True)
    )


def test_only_allowed_tools_are_offered() -> None:
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "weather"}]}
    body = sent(tools=[WEATHER, {**WEATHER, "name": "clock"}], tool_choice=choice)
    assert body["tools"] == [AS_FUNCTION]
    assert body["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"type": "web_search_preview_2025_03_11"}]}, "tools.0.type"),
        ({"tools": [WEATHER, {"type": "code_interpreter", "container": {"type": "auto"}}]}, "tools.1.type"),
        ({"tools": [{"type": ["function"]}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "file_search"}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": {"type": ["function"]}}, "tool_choice.type"),
        ({"tools": [WEATHER], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"input": []}, "input"),
        ({"input": None}, "input"),
        ({"input": [{"role": "robot", "content": "Hi."}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": 7}]}, "input.0.content"),
        ({"input": [{"type": "computer_call"}]}, "input.0.type"),
        ({"input": [{}]}, "input.0.type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "input.0.content.0.file_id",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]},
            "input.0.content.0.file_url",
        ),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input.0.content.0.type"),
        ({"input": [{"role": "user", "content": [{"type": ["input_text"]}]}]}, "input.0.content.0.type"),
        ({"input": [{"type": "function_call", "name": "a", "arguments": "{}"}]}, "input.0.call_id"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "b"}]}, "input.0.arguments"),
        ({"input": [{"type": "function_call_output", "call_id": "a", "output": "b"}]}, "input.0.call_id"),
        ({"input": [{"type": "function_call_output", "call_id": ["a"], "output": "b"}]}, "input.0.call_id"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"conversation": "c", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"reasoning": {"summary": "\ud800"}}, "reasoning"),
    ],
)
def test_what_cannot_be_had_is_refused_by_its_name(body: JsonObject, field: str) -> None:
    assert refused(**body).field == field


def test_an_error_of_a_message_names_the_item() -> None:
    meant = read(instructions="Brief.", input=[{"role": "user", "content": "Hi."}, {"role": "user", "content": " "}])
    error = named_as_sent(InvalidInput("messages.2.content", " ", "say something"), meant.fields)
    assert error.field == "input.1.content"


def test_messages_are_listed_as_items() -> None:
    shown = items_of(
        [
            {"role": "developer", "content": "Brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Who?"},
                    {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
                ],
            },
            {"role": "assistant", "content": "Let me see.", "tool_calls": [CALLED]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ],
        "k",
        ["weather"],
    )
    assert [(item["id"], item["type"]) for item in shown] == [
        ("msg_k_in0", "message"),
        ("msg_k_in1", "message"),
        ("msg_k_in2", "message"),
        ("ctc_k_in3", "custom_tool_call"),
        ("fco_k_in4", "custom_tool_call_output"),
    ]
    assert shown[1]["content"] == [
        {"type": "input_text", "text": "Who?"},
        {"type": "input_image", "image_url": "https://e.org/a.png", "detail": "auto"},
    ]

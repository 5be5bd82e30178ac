"""What an endpoint answers is read complete: tool calls, several choices, log probabilities, unknown fields."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from pydantic import TypeAdapter

from domain.errors import UpstreamError
from domain.events import Usage
from service.answer_fields import extended, merged
from service.chat_answers import ChunkReader, Delta, joined, read_completion
from service.chat_client import ChatClient
from service.tool_calls import CallReader, whole_calls
from service.turn_recorder import AnswerSoFar
from tests.service.running import settings_for
from tests.upstream import Fault, Reply, ScriptedUpstream

QUESTION = [{"role": "user", "content": "What is the weather in Bern?"}]
ARGUMENTS = '{"city": "Bern"}'
WEATHER = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
TIME = {"id": "call_2", "type": "function", "function": {"name": "time", "arguments": "{}"}}


@pytest.fixture(scope="module")
def module_upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture
async def chat(upstream: ScriptedUpstream, tmp_path: Path) -> AsyncIterator[ChatClient]:
    client = ChatClient(settings_for(upstream, tmp_path))
    yield client
    await client.close()


async def said(chat: ChatClient, **parameters: Any) -> list[Delta]:
    async with chat.stream(QUESTION, parameters) as answering:
        return [delta async for delta in answering.deltas]


async def answer(chat: ChatClient, **parameters: Any) -> tuple[AnswerSoFar, list[Delta]]:
    """Return an answer as a turn gathers it, and all its choices."""
    so_far, deltas = AnswerSoFar(), await said(chat, **parameters)
    for delta in deltas:
        so_far.add(delta)
    return so_far, joined(deltas)


def piece(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tool_calls": list(calls), **more}


def function(name: str | None = None, arguments: Any = None, **more: Any) -> dict[str, Any]:
    given = {"name": name, "arguments": arguments}
    return {"function": {key: value for key, value in given.items() if value is not None}, **more}


STREAMED = {
    "OpenAI": [
        piece(function("weather", "", index=0, id="call_1", type="function")),
        piece(function(None, '{"city": ', index=0)),
        piece(function(None, '"Bern"}', index=0)),
        piece(function("time", "", index=1, id="call_2", type="function")),
        piece(function(None, "{}", index=1)),
    ],
    "whole, together": [piece({"index": 0, **WEATHER}, {"index": 1, **TIME})],
    "whole, without index": [piece(WEATHER), piece(TIME)],
    "whole, all of index 0": [piece({"index": 0, **WEATHER}), piece({"index": 0, **TIME})],
    "indices from 1": [piece({"index": 1, **WEATHER}), piece({"index": 2, **TIME})],
    "arguments as objects": [
        piece(
            function("weather", {"city": "Bern"}, id="call_1", type="function"),
            function("time", {}, id="call_2", type="function"),
        )
    ],
    "id and name with each piece": [
        piece(function("weather", '{"city": ', index=0, id="call_1", type="function")),
        piece(function("weather", '"Bern"}', index=0, id="call_1", type="function")),
        piece(function("time", "{}", index=1, id="call_2", type="function")),
    ],
    "pieces without index": [
        piece(function("weather", '{"city": ', id="call_1", type="function")),
        piece(function(None, '"Bern"}')),
        piece(function("time", "{}", id="call_2", type="function")),
    ],
    "another id with each piece": [
        piece(function("weather", '{"city": ', index=0, id="call_1")),
        piece(function(None, '"Bern"}', index=0, id="call_9")),
        piece(function("time", "{}", index=1, id="call_2")),
    ],
    "empty id and null name in later pieces": [
        piece(function("weather", '{"city": ', index=0, id="call_1")),
        piece({"index": 0, "id": "", "type": "", "function": {"name": None, "arguments": '"Bern"}'}}),
        piece(function("time", "{}", index=1, id="call_2")),
    ],
    "the fields of a function beside the id": [
        piece({"name": "weather", "arguments": {"city": "Bern"}, "id": "call_1"}, {"id": "call_2", "name": "time"}),
        piece({"arguments": "{}"}),
    ],
}


@pytest.mark.parametrize("name", STREAMED)
async def test_tool_calls_in_pieces_of_any_kind(chat: ChatClient, upstream: ScriptedUpstream, name: str) -> None:
    upstream.responders["answer"] = lambda _: Reply("", "tool_calls", deltas=tuple(STREAMED[name]))
    so_far, [choice] = await answer(chat)
    assert so_far.tool_calls == [WEATHER, TIME]
    assert (so_far.finish_reason, so_far.text, choice.text) == ("tool_calls", "", "")
    assert [call["index"] for call in choice.tool_calls] == [0, 1]


@pytest.mark.parametrize("name", STREAMED)
def test_the_pieces_are_what_a_client_puts_together_by_their_index(name: str) -> None:
    """As openai-python's stream helper does, which knows no other rule than the index."""
    reader, calls = CallReader(), dict[int, dict[str, str]]()
    for delta in STREAMED[name]:
        for call in reader.read(delta["tool_calls"]):
            known = calls.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
            known["id"] += call.get("id", "")
            known["name"] += call["function"].get("name", "")
            known["arguments"] += call["function"]["arguments"]
    expected = [{"id": call["id"], **call["function"]} for call in (WEATHER, TIME)]  # type: ignore[dict-item]
    assert [calls[0], calls[1]] == expected


CALLS_WITHOUT_ID = {
    "two of one function, all of index 0": [
        piece(function("f", "{}", index=0)),
        piece(function("f", '{"a": 1}', index=0)),
    ],
    "two of one function, without index": [piece(function("f", {}), function("f", {"a": 1}))],
    "the name with each piece": [
        piece(function("f", "{}", index=0)),
        piece(function("f", '{"a"', index=1)),
        piece(function("f", ": 1}", index=1)),
    ],
}


@pytest.mark.parametrize("name", CALLS_WITHOUT_ID)
def test_calls_without_id_get_one_each(name: str) -> None:
    reader = CallReader()
    first, second = whole_calls(call for delta in CALLS_WITHOUT_ID[name] for call in reader.read(delta["tool_calls"]))
    assert first["id"] != second["id"]
    assert all(call["id"].startswith("call_") and call["type"] == "function" for call in (first, second))
    assert [call["function"] for call in (first, second)] == [
        {"name": "f", "arguments": "{}"},
        {"name": "f", "arguments": '{"a": 1}'},
    ]


NAMES = st.text("abc_", min_size=1, max_size=6)
CALLS = st.lists(st.tuples(NAMES, st.dictionaries(NAMES, st.integers() | st.text(max_size=9))), min_size=1, max_size=4)


@given(
    calls=CALLS,
    cuts=st.lists(st.integers(1, 5), min_size=1),
    indices=st.sampled_from(["own", "from 3", "none"]),
    again=st.sets(st.sampled_from(["id", "name", "type"])),
    together=st.booleans(),
)
def test_however_calls_are_cut_they_are_read_as_they_were(
    calls: list[tuple[str, dict[str, Any]]], cuts: list[int], indices: str, again: set[str], together: bool
) -> None:
    expected: list[dict[str, Any]] = [
        {"id": f"call_{at}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for at, (name, arguments) in enumerate(calls)
    ]
    pieces: list[dict[str, Any]] = []
    if indices == "none" and "id" not in again:
        again = again - {"name"}  # nothing would tell such a piece from a call of its own
    for at, call in enumerate(expected):
        index = {} if indices == "none" else {"index": at + 3 * (indices == "from 3")}
        function, begun = call["function"], False
        for text in cut(function["arguments"], cuts):
            fields = {name: call[name] for name in ("id", "type") if not begun or name in again}
            named = {"name": function["name"]} if not begun or "name" in again else {}
            pieces.append({**index, **fields, "function": {**named, "arguments": text}})
            begun = True
    reader = CallReader()
    chunks = [pieces] if together else [[each] for each in pieces]
    assert whole_calls(call for chunk in chunks for call in reader.read(chunk)) == expected


def cut(text: str, sizes: list[int]) -> Iterator[str]:
    at = 0
    for size in cycle(sizes):
        if at >= len(text):
            return
        yield text[at : at + size]
        at += size


def test_what_else_a_call_says_is_kept() -> None:
    """Gemini wants its signature back with the call; others have calls that are no functions."""
    signed = {**WEATHER, "index": 0, "extra_content": {"google": {"thought_signature": "abc"}}}
    own = {"index": 1, "id": "call_3", "type": "custom", "custom": {"name": "shell", "input": "l"}}
    more = {"index": 1, "custom": {"input": "s"}}
    reader = CallReader()
    calls = whole_calls([*reader.read([signed, own]), *reader.read([more])])
    assert calls == [
        {**WEATHER, "extra_content": {"google": {"thought_signature": "abc"}}},
        {"id": "call_3", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
    ]


async def test_a_message_in_one_json_to_a_request_for_a_stream(chat: ChatClient, upstream: ScriptedUpstream) -> None:
    calls = [function("weather", {"city": "Bern"}), function("time", id=7), function("time", None, id="call_2")]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    whole = {"choices": [{"message": message, "finish_reason": None}], "service_tier": "default", "citations": ["a"]}
    upstream.fail("answer", Fault(raw=json.dumps(whole).encode()))
    so_far, [choice] = await answer(chat)
    weather, numbered, last = so_far.tool_calls
    assert weather["id"].startswith("call_")
    assert weather["function"] == {"name": "weather", "arguments": ARGUMENTS}
    assert numbered == {"id": "7", "type": "function", "function": {"name": "time", "arguments": "{}"}}
    assert last == {**numbered, "id": "call_2"}
    assert so_far.finish_reason == "tool_calls"
    assert choice.answer == {"service_tier": "default", "citations": ["a"]}


@pytest.mark.parametrize(("ends", "reason"), [("data: [DONE]\n\n", "tool_calls"), ("", "length")])
async def test_a_stream_of_calls_that_gives_no_reason_to_end(
    chat: ChatClient, upstream: ScriptedUpstream, ends: str, reason: str
) -> None:
    chunks = [{"choices": [{"delta": delta}]} for delta in (*STREAMED["OpenAI"], {"content": ""})]
    raw = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + ends
    upstream.fail("answer", Fault(raw=raw.encode(), raw_type="text/event-stream"))
    so_far, _ = await answer(chat)
    assert (so_far.tool_calls, so_far.finish_reason) == ([WEATHER, TIME], reason)


async def test_a_function_of_the_old_api(chat: ChatClient, upstream: ScriptedUpstream) -> None:
    pieces = ({"name": "weather", "arguments": ""}, {"arguments": '{"city": '}, {"arguments": '"Bern"}'})
    deltas = tuple({"function_call": piece} for piece in pieces)
    upstream.responders["answer"] = lambda _: Reply("", "function_call", deltas=deltas)
    so_far, [choice] = await answer(chat)
    assert choice.more == {"function_call": WEATHER["function"]}
    assert so_far.tool_calls == [{"id": "", "type": "function", "function": WEATHER["function"]}]


async def test_of_several_choices_all_come_back_and_the_first_is_recorded(
    chat: ChatClient, upstream: ScriptedUpstream
) -> None:
    chunks = [(1, "Dry."), (0, "Rain "), (1, " Really."), (0, "all day.")]
    raw = "".join(
        f"data: {json.dumps({'choices': [{'index': index, 'delta': {'content': text}}]})}\n\n" for index, text in chunks
    )
    raw += (
        f"data: {json.dumps({'choices': [{'index': 1, 'delta': {}, 'finish_reason': 'length'}]})}\n\ndata: [DONE]\n\n"
    )
    upstream.fail("answer", Fault(raw=raw.encode(), raw_type="text/event-stream"))
    so_far, choices = await answer(chat, n=2)
    assert (so_far.text, so_far.finish_reason) == ("Rain all day.", "stop")
    found = [(choice.index, choice.text, choice.finish_reason) for choice in choices]
    assert found == [(0, "Rain all day.", "stop"), (1, "Dry. Really.", "length")]


async def test_where_one_choice_was_asked_for_one_is_taken_whatever_its_index(
    chat: ChatClient, upstream: ScriptedUpstream
) -> None:
    """Some gateways number the chunks where the choice should stand."""
    chunks = [{"choices": [{"index": at, "delta": {"content": text}}]} for at, text in enumerate(["It ", "rains."])]
    raw = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
    upstream.fail("answer", Fault(raw=raw.encode(), raw_type="text/event-stream"))
    so_far, [choice] = await answer(chat)
    assert so_far.text == choice.text == "It rains."


@pytest.mark.parametrize("n", [1, 3])
async def test_log_probabilities_and_details_of_usage(chat: ChatClient, upstream: ScriptedUpstream, n: int) -> None:
    usage = {"prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 3}}
    more = {"cost": 0.5, "prompt_cache_hit_tokens": 8}
    upstream.responders["answer"] = lambda _: Reply("It rains.", usage={**usage, **more})
    so_far, choices = await answer(chat, n=n, logprobs=True)
    assert len(choices) == n
    for choice in choices:
        assert choice.logprobs is not None
        assert [token["token"] for token in choice.logprobs["content"]] == ["It", " rains."]
    assert so_far.usage is not None
    assert so_far.usage.prompt_tokens_details == {"cached_tokens": 8}
    assert so_far.usage.completion_tokens_details == {"reasoning_tokens": 3}
    assert choices[0].spent == {**so_far.usage.model_dump(), **more}


def test_usage_without_details_is_written_as_it_always_was() -> None:
    text = '{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'
    assert Usage.model_validate_json(text).model_dump_json() == text


async def test_unknown_fields_of_every_level(chat: ChatClient, upstream: ScriptedUpstream) -> None:
    upstream.responders["answer"] = lambda _: Reply(
        "It rains.",
        deltas=({"images": [{"index": 0, "url": "data:,"}]}, {"annotations": [{"type": "url_citation"}]}),
        choice={"stop_reason": 128009, "content_filter_results": {"hate": {"filtered": False}}},
        answer={"service_tier": "flex", "citations": ["https://weather.example"]},
    )
    so_far, [choice] = await answer(chat)
    assert so_far.text == "It rains."
    assert choice.more == {"images": [{"index": 0, "url": "data:,"}], "annotations": [{"type": "url_citation"}]}
    assert choice.choice == {"stop_reason": 128009, "content_filter_results": {"hate": {"filtered": False}}}
    assert choice.answer == {"service_tier": "flex", "citations": ["https://weather.example"]}
    assert choice.fingerprint == upstream.fingerprint


def test_what_is_said_before_the_model_begins_comes_with_its_first_piece() -> None:
    """Azure tells first what its filter found in the prompt, in a chunk without choices."""
    reader = ChunkReader()
    assert reader.read(json.dumps({"choices": [], "prompt_filter_results": [1]}).encode()) == []
    [first] = reader.read(json.dumps({"choices": [{"delta": {"content": "A"}}]}).encode())
    [second] = reader.read(json.dumps({"choices": [], "citations": ["a"]}).encode())
    assert (first.answer, second.answer) == ({"prompt_filter_results": [1]}, {"citations": ["a"]})


SPOKEN = [{"id": "audio_1"}, {"transcript": "It "}, {"data": "AAAA", "transcript": "rains."}, {"expires_at": 5}]
WORDLESS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "a refusal": ([{"refusal": "I can"}, {"refusal": "not."}], "I cannot."),
    "spoken words": ([{"audio": part} for part in SPOKEN], "It rains."),
    "a picture": ([{"images": [{"image_url": {"url": "data:,"}}]}], "[images]"),
}


@pytest.mark.parametrize("name", WORDLESS)
async def test_an_answer_without_a_text_has_words_for_the_record(
    chat: ChatClient, upstream: ScriptedUpstream, name: str
) -> None:
    deltas, words = WORDLESS[name]
    upstream.responders["answer"] = lambda _: Reply("\n", deltas=tuple(deltas))
    so_far, [choice] = await answer(chat)
    assert (so_far.text, choice.text) == (words, "\n")
    if name == "spoken words":
        assert choice.more["audio"] == {"id": "audio_1", "transcript": "It rains.", "data": "AAAA", "expires_at": 5}


@pytest.mark.parametrize(("form", "streamed"), [("wav", False), ("pcm16", True), (None, True), ([], False)])
async def test_spoken_words_are_asked_for_as_they_can_be_had(
    chat: ChatClient, upstream: ScriptedUpstream, form: object, streamed: bool
) -> None:
    message = {"content": None, "audio": {"id": "a", "data": "AAAA", "transcript": "It rains.", "expires_at": 1}}
    upstream.responders["answer"] = lambda _: Reply("", message=message, deltas=(message,))
    so_far, [choice] = await answer(chat, modalities=["text", "audio"], audio={"voice": "alloy", "format": form})
    sent = upstream.calls_of("answer")[-1].body
    assert (sent["stream"], "stream_options" in sent) == (streamed, streamed)
    assert so_far.text == "It rains."
    assert choice.more["audio"] == message["audio"]


async def test_a_stream_that_breaks_off_in_the_middle_of_a_call(chat: ChatClient, upstream: ScriptedUpstream) -> None:
    upstream.responders["answer"] = lambda _: Reply("", deltas=tuple(STREAMED["OpenAI"]))
    upstream.fail("answer", Fault(close=True, after_chunks=2))
    with pytest.raises(UpstreamError) as failed:
        await said(chat)
    assert failed.value.code == "upstream_broke_off"


async def test_pieces_of_any_number_are_put_together_in_a_moment() -> None:
    """An answer of a million characters comes in very many pieces."""
    pieces = [Delta(logprobs={"content": [{"token": "a"}]}, more={"refusal": "a"}) for _ in range(50_000)]
    pieces += [Delta(tool_calls=CallReader().read(function("f", "a", index=0))) for _ in range(50_000)]
    [whole] = await asyncio.wait_for(asyncio.to_thread(joined, pieces), timeout=30)
    assert whole.logprobs is not None
    assert len(whole.logprobs["content"]) == len(whole.more["refusal"]) == 50_000


class TestMerging:
    def test_entries_of_one_index_are_one(self) -> None:
        first = [{"index": 0, "type": "reasoning.text", "text": "a"}, {"index": 1, "data": None}]
        assert merged([first, [{"index": 0, "type": "reasoning.text", "text": "b"}]]) == [
            {"index": 0, "type": "reasoning.text", "text": "ab"},
            {"index": 1, "data": None},
        ]

    def test_of_numbers_and_other_kinds_the_newest_counts(self) -> None:
        assert merged([{"a": 1, "b": "x", "c": None}, {"a": 2, "b": {"y": 1}, "c": 3}]) == {
            "a": 2,
            "b": {"y": 1},
            "c": 3,
        }

    def test_of_a_choice_lists_go_on(self) -> None:
        assert extended([{"token_ids": [1], "stop_reason": "a"}, {"token_ids": [2], "stop_reason": "b"}]) == {
            "token_ids": [1, 2],
            "stop_reason": "b",
        }


def test_a_logarithm_of_nothing_is_a_number_that_json_has() -> None:
    token = '{"token": "a", "logprob": -Infinity, "top_logprobs": [{"token": "b", "logprob": NaN}]}'
    whole = f'{{"choices": [{{"message": {{"content": "a"}}, "logprobs": {{"content": [{token}]}}}}]}}'
    [choice] = read_completion(whole.encode()).choices
    chunk = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    said = {"index": 0, "delta": {}, "finish_reason": None, "logprobs": choice.logprobs}
    read = TypeAdapter(ChatCompletionChunk).validate_json(json.dumps({**chunk, "choices": [said]}), strict=True)
    assert read.choices[0].logprobs is not None
    [found] = read.choices[0].logprobs.content or []
    assert (found.logprob, found.top_logprobs[0].logprob) == (-9999.0, -9999.0)

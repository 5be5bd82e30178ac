"""Every way in which an OpenAI-compatible endpoint answers or refuses gives an answer, or the endpoint's own reason."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from domain.events import GateDecided, RerankDecided, SummaryFailed, SummaryRecorded, TurnFailed, TurnRecorded
from tests.service.running import Running, running, someone, until
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream, gate_keeps_all
from tests.upstream.script import Kind

QUESTION = "What is the name of my dog?"
STREAM = "text/event-stream"


def chunk(content: Any = None, reason: Any = None, **more: Any) -> str:
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return json.dumps({"object": "chat.completion.chunk", "choices": [choice], **more})


def sse(*data: str, end: str = "\n\n") -> bytes:
    return "".join(f"data: {one}{end}" for one in data).encode()


def whole(content: Any, reason: Any = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": reason}
    return json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


PARTS = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "It is Bruno."}]
ANSWERED = {
    "no finish_reason": (sse(chunk("It is "), chunk("Bruno."), "[DONE]"), "stop"),
    "empty finish_reason": (sse(chunk("It is ", ""), chunk("Bruno.", ""), chunk("", "stop"), "[DONE]"), "stop"),
    "empty finish_reason to the end": (sse(chunk("It is ", ""), chunk("Bruno.", ""), "[DONE]"), "stop"),
    "no [DONE]": (sse(chunk("It is "), chunk("Bruno.", "stop")), "stop"),
    "cut": (sse(chunk("It is "), chunk("Bruno.")), "length"),
    "content as parts": (sse(chunk(PARTS), chunk([], "stop"), "[DONE]"), "stop"),
    "comments and other fields": (
        b'\xef\xbb\xbf: welcome\n\nretry: 3000\n\nevent: ping\ndata: {"type": "ping"}\n\nid: 7\nevent: message\n'
        + sse(chunk("It is "))
        + b"data:\n\ndata: \n\n: keep-alive\n\n"
        + sse(chunk("Bruno.", "stop"), "[DONE]"),
        "stop",
    ),
    "CRLF": (sse(chunk("It is "), chunk("Bruno.", "stop"), "[DONE]", end="\r\n\r\n"), "stop"),
    "no space after data:": (sse(chunk("It is Bruno.", "stop"), "[DONE]").replace(b"data: ", b"data:"), "stop"),
    "role and null content first": (
        sse(
            json.dumps({"choices": [{"delta": {"role": "assistant", "content": None}}]}), chunk("It is Bruno.", "stop")
        ),
        "stop",
    ),
    "usage null": (sse(chunk("It is Bruno.", usage=None), chunk(None, "stop", usage=None), "[DONE]"), "stop"),
    "usage alone, without choices": (
        sse(chunk("It is Bruno.", "stop"), '{"usage": {"prompt_tokens": 1, "completion_tokens": 2}}', "[DONE]"),
        "stop",
    ),
    "an event after [DONE]": (
        sse(chunk("It is Bruno."), "[DONE]") + b'event: ping\ndata: {"type": "ping"}\n\n',
        "stop",
    ),
    "one JSON": (whole("It is Bruno."), "stop"),
    "one JSON with parts and no reason": (b"\n " + whole(PARTS, None), "stop"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ANSWERED)
def test_the_answer_is_taken_and_remembered(service: Running, user: str, name: str, stream: bool) -> None:
    raw, reason = ANSWERED[name]
    kind = "application/json" if "JSON" in name else STREAM
    service.upstream.fail("answer", Fault(raw=raw, raw_type=kind))
    answer = service.client.tell(QUESTION, user, stream=stream)
    assert (answer.text, answer.finish_reason) == ("It is Bruno.", reason)
    [turn] = service.ledger.all(TurnRecorded, user)
    assert (turn.assistant, turn.finish_reason) == ("It is Bruno.", reason)


def test_thinking_parts_are_reasoning(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(raw=whole(PARTS)))
    message = service.client.tell(QUESTION, user).body["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm."


REASON = "CUDA out of memory, try a smaller model"
REFUSALS = {
    "openai": (json.dumps({"error": {"message": REASON, "type": "server_error"}}), 500),
    "text": (json.dumps({"error": REASON}), 500),
    "detail": (json.dumps({"detail": REASON}), 400),
    "fastapi": (json.dumps({"detail": [{"loc": ["body", "messages"], "msg": REASON, "type": "x"}]}), 422),
    "message": (json.dumps({"object": "error", "message": REASON, "code": 40303}), 400),
    "errors": (json.dumps({"errors": [{"message": REASON}]}), 503),
    "nested detail": (json.dumps({"detail": {"error": {"message": REASON}}}), 400),
    "HTML": (f"<html><head><title>{REASON}</title></head><body><h1>nginx</h1></body></html>", 502),
    "plain": (REASON, 500),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusals_reason_is_told_in_openais_shape(service: Running, user: str, name: str, stream: bool) -> None:
    body, status = REFUSALS[name]
    service.upstream.fail("answer", Fault(raw=body.encode(), status=status, raw_type="text/html"))
    answer = service.client.ask(QUESTION, user, stream=stream)
    assert answer.status == (400 if status < 500 else 502)
    assert REASON in answer.error["message"]
    [failed] = service.ledger.all(TurnFailed, user)
    assert failed.error == answer.error["message"]
    assert REASON not in service.log(), "a foreign reason may quote what was sent"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("after", ["", "It is "], ids=["before tokens", "after tokens"])
@pytest.mark.parametrize("shape", [{"error": {"message": REASON}}, {"error": REASON}, {"detail": REASON}])
def test_an_error_inside_a_stream_is_told(
    service: Running, user: str, stream: bool, after: str, shape: dict[str, Any]
) -> None:
    raw = (sse(chunk(after)) if after else b"") + b"event: error\n" + sse(json.dumps(shape))
    service.upstream.fail("answer", Fault(raw=raw, raw_type=STREAM))
    answer = service.client.ask(QUESTION, user, stream=stream)
    assert REASON in answer.error["message"]
    assert not answer.ended
    [failed] = service.ledger.all(TurnFailed, user)
    assert failed.partial_assistant == after.strip()


def test_an_error_as_a_whole_body_of_status_200_is_told(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(raw=json.dumps({"error": {"message": REASON}}).encode()))
    answer = service.client.ask(QUESTION, user)
    assert (answer.status, REASON in answer.error["message"]) == (502, True)


def test_a_stream_that_breaks_off_is_not_stored_as_whole(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(raw=sse(chunk("It is ")), raw_type=STREAM, raw_ends=False))
    answer = service.client.ask(QUESTION, user, stream=True)
    assert answer.error["code"] == "upstream_broke_off"
    assert not service.ledger.all(TurnRecorded, user)
    assert service.ledger.all(TurnFailed, user)[0].partial_assistant == "It is"


@pytest.mark.parametrize("before", ["no model for ", "x" * 290 + " "])
def test_a_key_in_a_refusal_is_not_passed_on(tmp_path: Path, user: str, before: str) -> None:
    with (
        ScriptedUpstream() as upstream,
        running(upstream, tmp_path, openai_api_key="sk-very-secret-1234") as service,
    ):
        upstream.fail("answer", Fault(status=400, message=f"{before}sk-very-secret-1234 here"))
        answer = service.client.ask(QUESTION, user)
        assert f"{before}***" in answer.error["message"]
        assert len(answer.error["message"]) < 400
        assert "sk-very" not in service.client.received + service.log()


@pytest.mark.parametrize("raw", [whole(None, "length"), whole("", "length"), whole([{"type": "thinking"}], "length")])
def test_an_empty_summary_is_none_and_is_tried_again(service: Running, user: str, raw: bytes) -> None:
    service.upstream.fail("summary", Fault(raw=raw))
    service.client.tell("My dog is called Bruno.", user)
    service.settle()
    [summary] = service.ledger.all(SummaryRecorded, user)
    assert summary.summary
    assert summary.attempts == 2
    assert not service.ledger.all(SummaryFailed, user)


FEATURES = [
    ("json_schema",),
    ("json_schema", "json_object"),
    ("max_tokens",),
    ("temperature",),
    ("stream_options",),
    ("system",),
    ("json_schema", "json_object", "max_tokens", "temperature", "stream_options", "system"),
]
LEARNED = {
    "json_schema": {"response_format": "json_object"},
    "json_object": {"response_format": "prompt"},
    "max_tokens": {"max_tokens": "max_completion_tokens"},
    "temperature": {"temperature": "not sent"},
    "stream_options": {"stream_options": "not sent"},
    "system": {"system": "in the first user message"},
}


@pytest.mark.parametrize("shape", ["openai", "text", "fastapi", "message"])
@pytest.mark.parametrize("refuses", FEATURES, ids="+".join)
def test_what_an_endpoint_refuses_is_left_out_from_then_on(
    tmp_path: Path, user: str, refuses: tuple[str, ...], shape: str
) -> None:
    with (
        ScriptedUpstream(refuses=refuses, refusal_shape=shape) as upstream,
        running(upstream, tmp_path, summary_attempts=1) as service,
    ):
        for number in range(7):
            service.client.tell(f"My dog number {number} is called Bruno.", user, "told", stream=bool(number % 2))
        service.settle()
        service.client.tell(QUESTION, user, someone(), retrieve_k=2)
        upstream.forget_calls()
        answer = service.client.tell(QUESTION, user, someone(), temperature=0.3, max_tokens=50, retrieve_k=2)
        service.settle()
        assert {call.status for call in upstream.calls} == {200}, "what was refused once is not sent again"
        assert service.ledger.one(GateDecided, answer).outcome == "ok"
        assert service.ledger.one(RerankDecided, answer).outcome == "ok"
        assert len(service.ledger.all(SummaryRecorded, user, "told")) == 7
        learned: dict[str, str] = {}
        for name in refuses:
            learned |= LEARNED[name]
        assert service.client.get("/health/llm").json()["learned"] == learned


@pytest.mark.parametrize(
    "refuses", [("json_schema",), ("json_schema", "json_object"), ("stream_options",)], ids="+".join
)
def test_a_refusal_without_a_reason_is_met_by_trying(tmp_path: Path, user: str, refuses: tuple[str, ...]) -> None:
    with (
        ScriptedUpstream(refuses=refuses, refusal_shape="nameless") as upstream,
        running(upstream, tmp_path) as service,
    ):
        service.client.tell("My dog is called Bruno.", user)
        service.settle()
        answer = service.client.tell(QUESTION, user, someone(), stream=True)
        assert service.ledger.one(GateDecided, answer).outcome == "ok"
        assert answer.replayed == ["My dog is called Bruno."]


WRONG_VALUES = [
    "temperature must be between 0 and 2, got 5",
    "body.temperature: Input should be less than or equal to 2",
    "Invalid 'temperature': decimal above maximum value. Expected a value <= 2, but got 5 instead.",
    "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]",
]


@pytest.mark.parametrize("message", WRONG_VALUES)
def test_a_wrong_value_is_not_taken_for_something_that_the_endpoint_lacks(
    service: Running, user: str, message: str
) -> None:
    service.upstream.fail("answer", Fault(status=400, message=message))
    answer = service.client.ask(QUESTION, user, temperature=2, max_tokens=50)
    assert answer.status == 400
    assert message[:30] in answer.error["message"]
    assert service.client.get("/health/llm").json()["learned"] == {}


def test_a_refusal_as_the_first_event_of_a_stream_is_met_too(tmp_path: Path, user: str) -> None:
    refusal = b"event: error\n" + sse(
        json.dumps({"error": {"message": "stream_options: Extra inputs are not permitted"}})
    )
    with ScriptedUpstream() as upstream, running(upstream, tmp_path) as service:
        upstream.fail("answer", Fault(raw=refusal, raw_type=STREAM))
        service.client.tell(QUESTION, user, stream=True)
        assert service.client.get("/health/llm").json()["learned"] == {"stream_options": "not sent"}


def test_a_rate_limit_is_none_of_the_contexts(service: Running, user: str) -> None:
    before = service.services.turns.context.tokens
    service.upstream.fail("answer", Fault(status=429, message="Too many tokens, please wait before trying again."))
    assert service.client.ask(QUESTION, user).status == 429
    assert service.services.turns.context.tokens == before


def test_what_one_call_learned_is_not_forgotten_by_one_that_began_before(tmp_path: Path, user: str) -> None:
    with ScriptedUpstream(refuses=("stream_options",)) as upstream, running(upstream, tmp_path) as service:
        chat = service.services.chat

        async def both() -> None:
            upstream.fail("answer", Fault(hang_s=0.5))
            slow = asyncio.create_task(chat.complete([{"role": "user", "content": "Hi."}], timeout_s=10, max_tokens=5))
            await upstream.await_for("answer", 1)
            async with chat.stream([{"role": "user", "content": "Hi."}], {}) as answering:
                async for _ in answering.deltas:
                    pass
            await slow

        asyncio.run_coroutine_threadsafe(both(), service._loop).result(20)
        assert not chat.dialect.stream_options


def test_a_request_that_is_really_wrong_is_refused_after_few_tries(service: Running, user: str) -> None:
    service.upstream.fail_always("answer", Fault(status=400, message="logit_bias must be an object: invalid value"))
    answer = service.client.ask(QUESTION, user)
    service.upstream.heal()
    assert (answer.status, answer.error["code"]) == (400, "upstream_rejected")
    assert "logit_bias" in answer.error["message"]
    assert len(service.upstream.calls_of("answer")) <= 2


CONTEXTS: list[tuple[dict[str, Any], dict[str, Any], int, str]] = [
    ({"context_length": 6000}, {}, 6000, "/models: context_length"),
    ({"context_window": "6000"}, {}, 6000, "/models: context_window"),
    ({"max_context_length": 6000}, {}, 6000, "/models: max_context_length"),
    ({"max_context_length": 9000, "loaded_context_length": 6000}, {}, 6000, "/models: loaded_context_length"),
    ({"n_ctx": 6000}, {}, 6000, "/models: n_ctx"),
    ({"meta": {"n_ctx": 6000, "n_ctx_train": 99_000}}, {}, 6000, "/models: meta.n_ctx"),
    ({"max_input_tokens": 6000}, {}, 6000, "/models: max_input_tokens"),
    ({"top_provider": {"context_length": 6000}}, {}, 6000, "/models: top_provider.context_length"),
    (
        {"meta": {"n_ctx_train": 99_000}},
        {"/props": {"default_generation_settings": {"n_ctx": 6000}, "total_slots": 4}},
        6000,
        "/props",
    ),
    (
        {},
        {"/api/v0/models": {"data": [{"id": "scripted-chat", "loaded_context_length": 6000}]}},
        6000,
        "/models: loaded_context_length",
    ),
    (
        {},
        {
            "/api/show": {"parameters": 'stop "x"\nnum_ctx    6000', "model_info": {"llama.context_length": 131_072}},
            "/api/ps": {"models": []},
        },
        6000,
        "/api/show",
    ),
    (
        {},
        {"/api/v0/models": {"data": [{"id": "scripted-chat", "loaded_context_length": 6000}]}},
        6000,
        "/models: loaded_context_length",
    ),
    (
        {},
        {
            "/api/show": {"parameters": "", "model_info": {"llama.context_length": 131_072}},
            "/api/ps": {"models": [{"name": "scripted-chat:latest", "context_length": 6000}]},
        },
        6000,
        "/api/ps",
    ),
    ({}, {"/api/show": {"model_info": {"llama.context_length": 131_072}}}, 4096, "Ollama's default"),
]


@pytest.mark.parametrize(("card", "paths", "tokens", "source"), CONTEXTS, ids=[case[3] for case in CONTEXTS])
def test_the_context_length_is_learned(
    tmp_path: Path, card: dict[str, Any], paths: dict[str, Any], tokens: int, source: str
) -> None:
    with (
        ScriptedUpstream(max_model_len=None, model_card=card, answers_at=paths) as upstream,
        running(upstream, tmp_path) as service,
    ):
        until("the limit is known", lambda: service.services.turns.context.learned is not None)
        context = service.client.get("/health/llm").json()["context"]
        assert context == {"tokens": tokens, "source": source}
        assert service.client.get("/v1/models").json()["data"][0]["max_model_len"] == tokens


def test_a_name_that_gained_latest_is_the_same_model(tmp_path: Path) -> None:
    cards = {"/v1/models": {"data": [{"id": "other"}, {"id": "scripted-chat:latest", "context_length": 6000}]}}
    with (
        ScriptedUpstream(answers_at=cards) as upstream,
        running(upstream, tmp_path) as service,
    ):
        until("the limit is known", lambda: service.services.turns.context.learned is not None)
        assert service.services.turns.context.tokens == 6000


LOADED_WITH = [
    ({"/api/ps": {"models": [{"name": "scripted-chat:latest", "context_length": 32_768}]}}, "/api/ps"),
    (
        {"/api/v0/models": {"data": [{"id": "scripted-chat", "loaded_context_length": 6000}]}},
        "/models: loaded_context_length",
    ),
    ({}, "Ollama's default"),
]


@pytest.mark.parametrize(("loaded", "source"), LOADED_WITH, ids=["ollama", "lm studio", "unchanged"])
def test_a_model_that_is_loaded_by_its_first_answer_is_asked_about_again_once(
    tmp_path: Path, user: str, loaded: dict[str, Any], source: str
) -> None:
    unloaded = {"/api/show": {"model_info": {"llama.context_length": 131_072}}, "/api/ps": {"models": []}}
    with (
        ScriptedUpstream(max_model_len=None, answers_at=unloaded) as upstream,
        running(upstream, tmp_path) as service,
    ):
        limit = service.services.turns.context
        until("the limit is known", lambda: limit.learned is not None)
        assert limit.tokens == 4096
        upstream.answers_at = unloaded | loaded
        service.client.tell("My dog is called Bruno.", user)
        until("it was asked again", lambda: len(upstream.calls_of("models")) == 2)
        until("the limit is the loaded model's", lambda: limit.source == source)
        service.client.tell(QUESTION, user, stream=True)
        service.settle()
        assert len(upstream.calls_of("models")) == 2


TOO_LONG = [
    "This model's maximum context length is 1800 tokens. However, you requested 2309 tokens (2109 in the messages).",
    "the request exceeds the available context size (1800 tokens), try increasing it",
    "`inputs` tokens + `max_new_tokens` must be <= 1800. Given: 2109 `inputs` tokens and 200 `max_new_tokens`",
    "Input length (2309 tokens) exceeds the maximum allowed length (1800 tokens)",
    "The prompt is too long: 2309, model maximum context length: 1800",
    "This endpoint's maximum context length is 1800 tokens. However, you requested about 2309 tokens.",
    "Requested token count exceeds the model's maximum context length of 1800 tokens.",
    "(n_keep: 13055>= n_ctx: 1800). Try to load the model with a larger context length, or provide a shorter input.",
    "However, the model is loaded with context length of only 1800 tokens, which is not enough.",
    "Prompt contains 73000 tokens, too large for model with 1800 maximum context length",
    "prompt is too long: 210000 tokens > 1800 maximum",
    "Input validation error: `inputs` must have less than 1800 tokens. Given: 5000",
    "This model's maximum prompt length is 1,800 but the request contains 537,812 tokens",
    "Input tokens exceed the configured limit of 1800 tokens. Your messages resulted in 509178 tokens.",
    "The input token count (1200000) exceeds the maximum number of tokens allowed (1800).",
    "'max_tokens' is too large: 2000. This model's maximum context length is 1800 tokens and your request has 3000.",
]


@pytest.mark.parametrize("message", TOO_LONG)
def test_a_maximum_is_read_from_a_refusal_and_a_shorter_prompt_is_sent(tmp_path: Path, user: str, message: str) -> None:
    with ScriptedUpstream(max_model_len=None, tokenize=False) as upstream, running(upstream, tmp_path) as service:
        service.client.tell("My dog is called Bruno.", user)
        upstream.fail("answer", Fault(status=400, message=message))
        assert service.client.tell(QUESTION, user, stream=True).status == 200
        assert service.services.turns.context.tokens == 1800


def test_a_gate_that_finds_its_prompt_too_long_is_asked_with_less_from_then_on(tmp_path: Path, user: str) -> None:
    long = "My dog Bruno ran along the harbour and back again, as he does on every other morning. " * 8
    with (
        ScriptedUpstream(max_model_len=None, tokenize=False) as upstream,
        running(upstream, tmp_path, summary_attempts=1) as service,
    ):
        upstream.fail_always("summary", Fault(status=500))
        upstream.say("answer", "Noted.")
        service.tell_all([f"{number} {long}" for number in range(30)], user, "told")
        service.settle()
        upstream.max_model_len = 3000
        first = service.client.tell(QUESTION, user, someone(), max_tokens=64)
        assert service.ledger.one(GateDecided, first).outcome == "fallback"
        second = service.client.tell(QUESTION, user, someone(), max_tokens=64)
        assert service.ledger.one(GateDecided, second).outcome == "ok"
        assert service.services.turns.context.tokens == 3000


def test_a_server_that_cannot_be_made_happy_says_its_maximum(service: Running, user: str) -> None:
    before = service.services.turns.context.tokens
    service.upstream.fail_always("answer", Fault(status=400, message=TOO_LONG[0]))
    answer = service.client.ask(QUESTION, user)
    service.upstream.heal()
    service.services.turns.context = type(service.services.turns.context)(service.services.settings)
    assert before > 1800
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert "at most 1800 tokens" in answer.error["message"]


@pytest.mark.parametrize(
    ("kind", "setting"), [("gate", "GATE_TIMEOUT_S"), ("rerank", "RERANK_TIMEOUT_S"), ("answer", "LLM_TIMEOUT_S")]
)
def test_who_waits_too_long_is_told_which_setting_to_raise(tmp_path: Path, user: str, kind: Kind, setting: str) -> None:
    short = {"gate_timeout_s": 0.3, "rerank_timeout_s": 0.3, "llm_timeout_s": 0.3}
    with ScriptedUpstream() as upstream, running(upstream, tmp_path, **short) as service:
        upstream.responders["gate"] = gate_keeps_all
        service.tell_all([f"My dog number {n} is called Bruno." for n in range(4)], user)
        upstream.fail(kind, Fault(hang_s=UNTIL_RELEASED))
        answer = service.client.ask(QUESTION, user, "friday", retrieve_k=1)
        if kind == "answer":
            told = answer.error["message"]
        else:
            gate, rerank = service.ledger.one(GateDecided, answer), service.ledger.one(RerankDecided, answer)
            told = (gate if kind == "gate" else rerank).note or ""
        assert f"was silent for 0.3 s: try again, or raise {setting}" in told

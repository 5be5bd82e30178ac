"""Whatever the endpoints answer, a turn is answered or refused in words, and the ledger has it and verifies."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.decisions import read_answer
from domain.events import GateDecided, RerankDecided, SummaryFailed, SummaryRecorded, TurnFailed, TurnRecorded
from domain.rerank_scores import read_scores
from projections.verification.storage import verify_ledger_file
from service.chat_answers import ChunkReader, Delta, Reported, Unreadable, joined, read_completion
from tests.service.running import Running, chat_body, someone
from tests.upstream import Fault, Kind

DEEP, BIG = "[" * 100_000, "9" * 5000
VALUES: tuple[str, ...] = (
    *("null", "true", "-1", "1.5", "NaN", "Infinity", "1e999", "9" * 300, BIG, f"{DEEP}{']' * 100_000}", DEEP),
    *("[]", "{}", "[[]]", '"x"', '""', r'"\ud800"', r'"\u0000"', r'"a\ud83d\udea8b"', '{"a": 1}', "[null, {}]"),
)
FIELDS = ("content", "reasoning", "finish_reason", "prompt_tokens", "completion_tokens", "usage", "choices", "message")
SENT_ON = ("tool_calls", "function_call", "refusal", "audio", "annotations", "logprobs", "index", "service_tier", "x")


def answer_with_more(value: str, *, streamed: bool) -> bytes:
    """Return an answer that says a JSON text under many names wherever it can: in the message, the choice, beside."""
    name = "delta" if streamed else "message"
    more = ", ".join(f'"{field}": {value}' for field in SENT_ON)
    choice = f'{{"{name}": {{"content": "Yes.", {more}}}, "finish_reason": "stop", {more}}}'
    usage = f'{{"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {value}, {more}}}'
    whole = f'{{"choices": [{choice}], "usage": {usage}, {more}}}'
    return f"data: {whole}\n\ndata: [DONE]\n\n".encode() if streamed else whole.encode()


def answer_with(field: str, value: str, *, streamed: bool) -> bytes:
    """Return an answer of the chat endpoint with a JSON text in the place of one field."""
    fields = {"content": '"Yes."', "reasoning": '"Hm."', "finish_reason": '"stop"'}
    fields |= {"prompt_tokens": "7", "completion_tokens": "5", field: value}
    said = f'{{"role": "assistant", "content": {fields["content"]}, "reasoning": {fields["reasoning"]}}}'
    said = value if field == "message" else said
    choices = f'[{{"index": 0, "{"delta" if streamed else "message"}": {said}, '
    choices += f'"finish_reason": {fields["finish_reason"]}}}]'
    usage = f'{{"prompt_tokens": {fields["prompt_tokens"]}, "completion_tokens": {fields["completion_tokens"]}}}'
    whole = f'{{"choices": {fields.get("choices", choices)}, "usage": {fields.get("usage", usage)}}}'
    return f"data: {whole}\n\ndata: [DONE]\n\n".encode() if streamed else whole.encode()


@pytest.fixture(scope="module")
def service_settings() -> dict[str, object]:
    return {"summary_attempts": 1}


@pytest.fixture(scope="module")
def user_with_facts(module_service: Running) -> str:
    user = someone()
    module_service.upstream.say("answer", "Noted.")
    module_service.tell_all([f"Bruno the dog met cat number {n}." for n in range(1, 9)], user)
    module_service.settle()
    return user


def verified(service: Running) -> None:
    assert verify_ledger_file(service.ledger.path)[1] == []


def ended(service: Running, user: str, conversation: str) -> TurnRecorded | TurnFailed:
    """Return how the one turn of a conversation ended."""
    payloads = [event.payload for event in service.ledger.stream(user, conversation)]
    [end] = [payload for payload in payloads if isinstance(payload, TurnRecorded | TurnFailed)]
    return end


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("field", FIELDS)
def test_an_answer_of_any_shape_is_recorded(service: Running, user: str, field: str, streamed: bool) -> None:
    for number, value in enumerate(VALUES):
        raw = answer_with(field, value, streamed=streamed)
        service.upstream.fail(
            "answer", Fault(raw=raw, raw_type="text/event-stream" if streamed else "application/json")
        )
        answer = service.client.ask("Where?", user, f"{field}-{number}", stream=streamed, candidate_n=0)
        # A part that one call cannot do without may be left out and the call repeated: then that one is answered.
        service.upstream.heal("answer")
        end = ended(service, user, f"{field}-{number}")
        said = "error" in (answer.events[-1] if answer.events else answer.body)
        assert said == isinstance(end, TurnFailed), (value[:40], answer)
        assert answer.status in {200, 502}, (value[:40], answer)
        if isinstance(end, TurnRecorded) and end.usage is not None:
            assert 0 <= end.usage.total_tokens < 2**63
    verified(service)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_what_else_an_answer_says_costs_no_turn(service: Running, user: str, streamed: bool) -> None:
    for number, value in enumerate([*VALUES, f"[{{}}, {'[' * 500}{']' * 500}]"]):
        raw = answer_with_more(value, streamed=streamed)
        service.upstream.fail(
            "answer", Fault(raw=raw, raw_type="text/event-stream" if streamed else "application/json")
        )
        answer = service.client.ask("Where?", user, f"more-{number}", stream=streamed, candidate_n=0)
        service.upstream.heal("answer")
        end = ended(service, user, f"more-{number}")
        unreadable = any(part in value for part in (BIG, DEEP))
        assert isinstance(end, TurnFailed) == unreadable, (value[:40], answer)
        assert unreadable or answer.text == "Yes.", (value[:40], answer)
    verified(service)


@pytest.mark.parametrize("kind", ["gate", "rerank"])
def test_a_decision_of_any_shape_falls_back(service: Running, user_with_facts: str, kind: Kind) -> None:
    key = "keep" if kind == "gate" else "top"
    contents = [
        *(f'{{"{key}": {value}}}' for value in VALUES),
        *(f'{{"{key}": [1, {value}]}}' for value in VALUES),
        *(f'{{"{key}": [1], "reasons": [{{"n": {value}, "why": {value}}}]}}' for value in VALUES),
        *VALUES,
        '{"a":' * 100_000,
    ]
    raws = [answer_with(field, value, streamed=False) for field in FIELDS for value in VALUES]
    raws += [json.dumps({"choices": [{"message": {"content": text}}]}).encode() for text in contents]
    # What is recorded here is a memory too: only the facts are to be near the question.
    service.upstream.say("answer", " ".join(f"filler{n}" for n in range(60)))
    for number, raw in enumerate(raws):
        service.upstream.fail(kind, Fault(raw=raw))
        knobs: dict[str, object] = {"retrieve_k": 2, "candidate_n": 8, "use_gate": kind == "gate"}
        question = "Which cat did the dog Bruno meet?"
        answer = service.client.ask(question, user_with_facts, f"{kind}-{number}", **knobs)
        assert answer.status == 200, (raw[:80], answer)
        decision: GateDecided | RerankDecided
        if kind == "gate":
            decision = service.ledger.one(GateDecided, answer)
        else:
            decision = service.ledger.one(RerankDecided, answer)
        assert decision.outcome in {"ok", "fallback"}
        service.upstream.heal(kind)
    verified(service)


def test_a_summary_of_any_shape_is_recorded_or_failed(service: Running, user: str) -> None:
    raws = [answer_with(field, value, streamed=False) for field in FIELDS for value in VALUES]
    for number, raw in enumerate(raws):
        service.upstream.fail_always("summary", Fault(raw=raw))
        service.client.tell("Where?", user, f"{number}", candidate_n=0)
    service.settle()
    found = [event.payload for event in service.ledger.reader.events_after(0, 1_000_000) if event.user_id == user]
    ends = [payload for payload in found if isinstance(payload, SummaryRecorded | SummaryFailed)]
    assert len(ends) == len(raws)
    verified(service)


@pytest.mark.parametrize(("field", "streamed"), [("response_format", False), ("logit_bias", True)])
def test_a_parameter_that_cannot_be_recorded_is_refused_before_the_first_byte(
    service: Running, user: str, field: str, streamed: bool
) -> None:
    levels = [f"{'[' * n}{']' * n}" for n in (1, 100, 195, 196, 197, 198, 199, 200, 250, 300, 600, 100_000)]
    for number, value in enumerate([*VALUES, *levels, '"\\ud800"', '{"\\ud800": 1}', "1" * 4000]):
        service.upstream.forget_calls()
        body = json.dumps({**chat_body("Where?", user, f"{field}-{number}", stream=streamed), field: "@"})
        body = body.replace('"@"', value)
        kind = {"content-type": "application/json"}
        response = service.client.http.post("/v1/chat/completions", content=body.encode(), headers=kind)
        if response.status_code == 200:
            assert "error" not in response.text[-300:]
            recorded = ended(service, user, f"{field}-{number}")
            assert isinstance(recorded, TurnRecorded)
        else:
            assert response.status_code == 400, (value[:40], response.text)
            error: Any = response.json()["error"]
            assert field in error["message"] or "body" in error["message"], error
            assert not service.upstream.calls_of("answer")
    verified(service)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)
CALL = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(-1, 2) | JSON,
        "id": st.sampled_from(["a", "b", ""]) | JSON,
        "type": JSON,
        "function": st.fixed_dictionaries(
            {}, optional={"name": st.sampled_from(["f", "g"]) | JSON, "arguments": st.sampled_from(["{", "}"]) | JSON}
        )
        | JSON,
    },
)
SAID = JSON | st.fixed_dictionaries(
    {},
    optional={"content": st.text(), "tool_calls": st.lists(CALL, max_size=3), "function_call": CALL, "audio": JSON},
)
SHAPES = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={"index": st.integers(0, 1), "message": SAID, "delta": SAID, "logprobs": JSON, "else": JSON}
                | {"finish_reason": st.sampled_from(["stop", None]) | JSON},
            ),
            max_size=2,
        )
        | JSON,
        "usage": JSON | st.fixed_dictionaries({"prompt_tokens": JSON, "completion_tokens": JSON}),
        "error": JSON,
        "else": JSON,
    },
)


@given(answers=st.lists(SHAPES | JSON, min_size=1, max_size=3), several=st.booleans())
def test_any_answer_is_read_or_refused_by_name(answers: list[Any], several: bool) -> None:
    reader = ChunkReader(several=several)
    found: list[Delta] = []
    for answer in answers:
        body = json.dumps(answer).encode()
        try:
            found += reader.read(body)
        except (Unreadable, Reported) as error:
            str(error).encode()
        try:
            found += read_completion(body, several=several).choices
        except (Unreadable, Reported) as error:
            str(error).encode()
    for delta in [*found, *(joined(found) if found else [])]:
        # What cannot be written would end the stream of a client.
        msgspec.json.encode([delta.more, delta.choice, delta.answer, delta.spent, delta.logprobs, delta.tool_calls])
        assert all(isinstance(call["index"], int) for call in delta.tool_calls)


@given(decision=JSON, key=st.sampled_from(("keep", "top", "results")), count=st.integers(0, 9), inside=st.booleans())
def test_any_decision_is_read_or_none(decision: Any, key: str, count: int, inside: bool) -> None:
    raw = json.dumps({key: decision} if inside else decision)
    answer = read_answer(raw, key, count)
    assert answer is None or all(1 <= number <= count for number in answer.numbers)
    scores = read_scores(raw, count)
    assert scores is None or all(1 <= number <= count and abs(score) < float("inf") for number, score in scores)


def test_an_answer_ends_where_no_model_goes_on(service: Running, user: str) -> None:
    piece = json.dumps({"choices": [{"index": 0, "delta": {"content": "word " * 2000}}]})
    raw = f"data: {piece}\n\n".encode() * 150
    service.upstream.fail("answer", Fault(raw=raw, raw_type="text/event-stream"))
    answer = service.client.tell("Where?", user, stream=True, candidate_n=0)
    assert answer.finish_reason == "length"
    recorded = ended(service, user, "c")
    assert isinstance(recorded, TurnRecorded)
    assert len(recorded.assistant) == len(answer.text.strip())
    assert 1_000_000 <= len(recorded.assistant) < 1_200_000


@pytest.mark.parametrize(
    ("raw", "raw_type"),
    [
        (b"data: " + b"x" * (9 << 20), "text/event-stream"),
        (b"data: x\n" * (2 << 20), "text/event-stream"),
        (b" " * (9 << 20), "text/event-stream"),
        (b'{"choices": [{"message": {"content": "' + b"x" * (9 << 20) + b'"}}]}', "application/json"),
    ],
    ids=["a line", "an event", "blanks", "a whole answer"],
)
def test_an_answer_that_does_not_end_is_refused(service: Running, user: str, raw: bytes, raw_type: str) -> None:
    service.upstream.fail("answer", Fault(raw=raw, raw_type=raw_type))
    answer = service.client.ask("Where?", user, candidate_n=0)
    assert (answer.status, answer.error["code"]) == (502, "upstream_unreadable")
    assert isinstance(ended(service, user, "c"), TurnFailed)


@pytest.mark.parametrize("size", [200_000, 5 << 20])
@pytest.mark.parametrize("kind", ["gate", "rerank"])
def test_a_decision_that_is_far_too_long_falls_back(
    service: Running, user_with_facts: str, kind: Kind, size: int
) -> None:
    content = json.dumps({"keep": [1], "top": [1], "more": "x" * size})
    service.upstream.fail(kind, Fault(content=content))
    knobs: dict[str, object] = {"retrieve_k": 2, "candidate_n": 8, "use_gate": kind == "gate"}
    answer = service.client.tell("Which cat did Bruno meet?", user_with_facts, f"long-{kind}-{size}", **knobs)
    assert answer.memory("memory_status")[kind]["outcome"] == "fallback"

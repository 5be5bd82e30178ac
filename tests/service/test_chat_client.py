"""Where the chat model gives no answer, the client is told in OpenAI's shape and the question is kept."""

from __future__ import annotations

from pathlib import Path

import openai
import pytest

from domain.errors import LedgerWriteFailed
from domain.events import RetrievalRecorded, TurnFailed, TurnRecorded
from domain.prompt import BuiltPrompt
from service.api import chat
from tests.service.running import Running, running
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

QUESTION = "What is the name of my dog?"


@pytest.fixture(scope="module")
def service_settings() -> dict[str, object]:
    return {"llm_timeout_s": 1.0}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream waits for every failure here, the timeout too; ``api/test_first_bytes.py`` has those that come later."""
    monkeypatch.setattr(chat, "FIRST_BYTES_S", 10.0)


FAILURES = [
    (Fault(close=True), 502, "upstream_unreachable"),
    (Fault(status=500), 502, "upstream_failed"),
    (Fault(status=503), 502, "upstream_failed"),
    (Fault(status=401), 502, "upstream_refused_key"),
    (Fault(status=403), 502, "upstream_refused_key"),
    (Fault(status=404), 502, "upstream_not_found"),
    (Fault(status=400), 400, "upstream_rejected"),
    (Fault(status=429, retry_after="7"), 429, "rate_limit_exceeded"),
    (Fault(status=408), 504, "upstream_timeout"),
    (Fault(hang_s=UNTIL_RELEASED), 504, "upstream_timeout"),
    (Fault(garbage=True), 502, None),
    (Fault(malformed=True), 502, None),
]
NAMES = ["closed", "500", "503", "401", "403", "404", "400", "429", "408", "hangs", "garbage", "malformed"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "status", "code"), FAILURES, ids=NAMES)
def test_a_failure_before_the_answer_has_its_own_status(
    service: Running, user: str, stream: bool, fault: Fault, status: int, code: str | None
) -> None:
    service.upstream.fail("answer", fault)
    answer = service.client.ask(QUESTION, user, stream=stream)
    assert answer.status == status
    assert not answer.events
    assert code is None or answer.error["code"] == code
    assert ("raise LLM_TIMEOUT_S" in answer.error["message"]) == (fault.hang_s > 0)
    [failed] = service.ledger.all(TurnFailed, user)
    assert (failed.user, failed.partial_assistant, failed.status) == (QUESTION, "", status)
    assert (failed.code, failed.error) == (answer.error["code"], answer.error["message"])
    assert not service.ledger.all(TurnRecorded, user)
    assert answer.headers["x-request-id"] in service.log()
    # Nothing of the failure is a memory or takes a number.
    assert service.client.tell("Hello.", user).memory("turn")["turn_id"] == 1
    assert service.messages()[1:] == [("user", "Hello.")]


def test_retry_after_is_passed_on(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(status=429, retry_after="7"))
    answer = service.client.ask(QUESTION, user)
    assert answer.headers["retry-after"] == "7"
    assert answer.error["type"] == "rate_limit_error"


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(close=True, after_chunks=2), "upstream_broke_off"),
        (Fault(error=True, after_chunks=2), "upstream_failed"),
        (Fault(hang_s=UNTIL_RELEASED, after_chunks=2), "upstream_timeout"),
    ],
    ids=["closed", "error line", "silent"],
)
def test_a_break_in_mid_stream_is_an_error_line(service: Running, user: str, fault: Fault, code: str) -> None:
    service.upstream.say("answer", "One two three four.")
    service.upstream.fail("answer", fault)
    answer = service.client.ask(QUESTION, user, stream=True)
    assert answer.status == 200
    assert answer.text == "One two"
    assert answer.error["code"] == code
    assert not answer.ended
    assert not [event for event in answer.events if "turn" in event]
    [failed] = service.ledger.all(TurnFailed, user)
    assert (failed.user, failed.partial_assistant, failed.code) == (QUESTION, "One two", code)
    assert [type(event.payload).__name__ for event in service.ledger.stream(user)] == [
        "RetrievalRecorded",
        "GateDecided",
        "RerankDecided",
        "TurnFailed",
    ]
    assert answer.id == service.ledger.stream(user)[-1].correlation_id
    assert answer.headers["x-request-id"] in service.log()


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_choices_is_an_error(service: Running, user: str, stream: bool) -> None:
    service.upstream.fail("answer", Fault(empty_choices=True))
    answer = service.client.ask(QUESTION, user, stream=stream)
    assert answer.error["code"] == "upstream_broke_off"
    assert [failed.user for failed in service.ledger.all(TurnFailed, user)] == [QUESTION]


@pytest.mark.parametrize("stream", [False, True])
def test_a_lone_surrogate_in_finish_reason_loses_no_turn(service: Running, user: str, stream: bool) -> None:
    service.upstream.fail("answer", Fault(finish_reason="st\ud800op", content="Bruno \udc00!"))
    answer = service.client.tell(QUESTION, user, stream=stream)
    [turn] = service.ledger.all(TurnRecorded, user)
    assert (turn.assistant, turn.finish_reason) == ("Bruno \ufffd!", "st\ufffdop")
    assert (answer.text, answer.finish_reason) == (turn.assistant, turn.finish_reason)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("reason", [7, ["stop"], {"why": "stop"}, True])
def test_a_finish_reason_that_is_not_text_makes_an_answer_unreadable(
    service: Running, user: str, stream: bool, reason: object
) -> None:
    service.upstream.say("answer", "One two")
    service.upstream.fail("answer", Fault(finish_reason=reason))
    answer = service.client.ask(QUESTION, user, stream=stream)
    assert (answer.status, answer.error["code"]) == (200 if stream else 502, "upstream_unreadable")
    assert not answer.ended
    [failed] = service.ledger.all(TurnFailed, user)
    assert (failed.user, failed.partial_assistant, failed.status) == (QUESTION, "One two", 502)
    assert failed.code == "upstream_unreadable"


def test_a_lone_surrogate_in_an_error_message_loses_no_turn(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(status=400, message="not \ud800 today"))
    answer = service.client.ask(QUESTION, user)
    assert (answer.status, answer.error["code"]) == (400, "upstream_rejected")
    assert "not \ufffd today" in answer.error["message"]
    assert [failed.code for failed in service.ledger.all(TurnFailed, user)] == ["upstream_rejected"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_unexpected_error_keeps_the_question(
    service: Running, user: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_named: object) -> BuiltPrompt:
        raise RuntimeError(f"no prompt for {QUESTION}")

    monkeypatch.setattr(service.services.turns, "_prompt", broken)
    answer = service.client.ask(QUESTION, user, stream=stream)
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    [failed] = service.ledger.all(TurnFailed, user)
    assert (failed.user, failed.code, failed.status) == (QUESTION, "internal_error", 500)
    assert QUESTION not in failed.error + answer.error["message"] + service.log()
    monkeypatch.undo()
    assert service.client.tell(QUESTION, user).memory("turn")["turn_id"] == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "lost", [LedgerWriteFailed("the ledger could not be written (disk full)"), RuntimeError(f"no room for {QUESTION}")]
)
def test_a_failure_that_cannot_be_recorded_is_still_told(
    service: Running, user: str, stream: bool, lost: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object, **_named: object) -> None:
        raise lost

    service.upstream.fail("answer", Fault(status=500, message="CUDA out of memory"))
    monkeypatch.setattr(service.services.ledger, "append", full)
    answer = service.client.ask(QUESTION, user, stream=stream)
    assert (answer.status, answer.error["code"]) == (502, "upstream_failed")
    assert "CUDA out of memory" in answer.error["message"]
    assert f"its failure could not be recorded: {type(lost).__name__}" in service.log()
    assert QUESTION not in service.log()


def test_the_official_client_sees_the_break(service: Running, user: str) -> None:
    service.upstream.say("answer", "One two three four.")
    service.upstream.fail("answer", Fault(close=True, after_chunks=2))
    with openai.OpenAI(base_url=f"{service.client.base_url}/v1", api_key="any") as official:
        chunks = official.chat.completions.create(
            model="m", messages=[{"role": "user", "content": QUESTION}], user=user, stream=True
        )
        with pytest.raises(openai.APIError, match="broke off"):
            list(chunks)


def test_the_same_break_without_stream_is_a_status(service: Running, user: str) -> None:
    service.upstream.say("answer", "One two three four.")
    service.upstream.fail("answer", Fault(close=True, after_chunks=2))
    answer = service.client.ask(QUESTION, user)
    assert (answer.status, answer.error["code"]) == (502, "upstream_broke_off")
    assert service.ledger.all(TurnFailed, user)[0].partial_assistant == "One two"


def test_a_slow_answer_that_keeps_coming_is_no_timeout(service: Running, user: str) -> None:
    service.upstream.fail("answer", Fault(chunk_delay_s=0.15, content="a b c d e f g h i j"))
    assert service.client.tell(QUESTION, user).text == "a b c d e f g h i j"


def test_a_chat_model_that_is_down_and_comes_back(tmp_path: Path, user: str) -> None:
    with (
        ScriptedUpstream() as upstream,
        ScriptedUpstream() as embedding,
        running(upstream, tmp_path, emb_base_url=embedding.base_url) as service,
    ):
        upstream.stop()
        answer = service.client.ask(QUESTION, user)
        assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
        upstream.start()
        assert service.client.tell(QUESTION, user).memory("turn")["turn_id"] == 1
        assert [failed.user for failed in service.ledger.all(TurnFailed, user)] == [QUESTION]


def test_the_key_is_sent_to_both_endpoints(tmp_path: Path, user: str) -> None:
    with ScriptedUpstream(api_key="sk-right") as upstream:
        with running(upstream, tmp_path / "right", openai_api_key="sk-right") as service:
            assert service.client.tell("Hi.", user).memory("memory_status")["retrieval"] == "ok"
        with running(upstream, tmp_path / "wrong", openai_api_key="sk-wrong") as service:
            answer = service.client.ask("Hi.", user)
            assert (answer.status, answer.error["code"]) == (502, "upstream_refused_key")
            assert "sk-wrong" not in service.log() + service.client.received


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "broken", ["service.turn.RetrievalRecorded", "service.decider.GateDecided", "service.turn.PromptReport"]
)
def test_a_decision_that_cannot_be_recorded_keeps_the_question(
    service: Running, user: str, broken: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(*_arguments: object, **_named: object) -> None:
        raise RuntimeError(f"no event for {QUESTION}")

    monkeypatch.setattr(broken, stumble)
    answer = service.client.ask(QUESTION, user, stream=stream)
    assert (answer.status, answer.error["code"]) == (500, "internal_error"), "nothing of an answer was shown by then"
    [failed] = service.ledger.all(TurnFailed, user)
    assert (failed.user, failed.code, failed.status) == (QUESTION, "internal_error", 500)
    assert len(service.ledger.all(RetrievalRecorded, user)) == (0 if "Retrieval" in broken else 1)
    assert QUESTION not in failed.error + answer.error["message"] + service.log()
    monkeypatch.undo()
    assert service.client.tell(QUESTION, user).memory("turn")["turn_id"] == 1

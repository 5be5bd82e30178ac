"""Every turn gets its summary in the end: retried with back-off, given up aloud, tried again at the next start."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.events import SummaryFailed, SummaryRecorded
from domain.identity import StreamId
from domain.prompts import SUMMARY_SYSTEM, version_of
from service.chat_answers import Completion
from service.memory_commands import MemoryCommands
from service.summarizer import Summarizer
from tests.ledgers import new_ledger_file, opened, record_turn
from tests.service.running import Running, running, until
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

DOG = "My dog is called Bruno."


@pytest.fixture(scope="module")
def service_settings() -> dict[str, object]:
    return {"summary_attempts": 2, "summary_timeout_s": 2.0}


def test_it_summarises_the_exchange_and_names_its_turn_as_cause(service: Running, user: str) -> None:
    answer = service.client.tell(DOG, user)
    service.settle()
    turn, summary = service.ledger.of_answer(answer)[-2:]
    assert summary.causation_id == turn.event_id
    payload = summary.payload
    assert isinstance(payload, SummaryRecorded)
    assert (payload.memory_id, payload.turn_id, payload.attempts) == (turn.event_id, 1, 1)
    assert (payload.model, payload.prompt_version) == ("scripted-chat", version_of(SUMMARY_SYSTEM))
    assert DOG.rstrip(".") in payload.summary
    [call] = service.upstream.calls_of("summary")
    assert call.body["messages"][0]["content"] == SUMMARY_SYSTEM
    assert call.body["temperature"] == 0


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(hang_s=UNTIL_RELEASED),
        Fault(content="<think>What should I say?</think>"),
    ],
    ids=["500", "hangs", "only thinks"],
)
def test_a_failure_is_retried(service: Running, user: str, fault: Fault) -> None:
    service.upstream.fail("summary", fault)
    service.client.tell(DOG, user)
    until("the summary is there", lambda: service.ledger.all(SummaryRecorded, user))
    [summary] = service.ledger.all(SummaryRecorded, user)
    assert summary.attempts == 2
    first, second = service.upstream.wait_for("summary", 2, ended=True)
    assert first.body == second.body
    assert first.ended is not None
    assert first.ended <= second.started
    assert not service.ledger.all(SummaryFailed, user)


def test_reasoning_is_not_part_of_it(service: Running, user: str) -> None:
    service.upstream.fail("summary", Fault(content="<think>Bruno? Who?</think>The dog is Bruno."))
    service.client.tell(DOG, user)
    service.settle()
    assert [summary.summary for summary in service.ledger.all(SummaryRecorded, user)] == ["The dog is Bruno."]


def test_an_unexpected_failure_is_counted_and_logged_without_the_text(
    service: Running, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Summarizer._ask

    async def broken(summarizer: Summarizer, messages: list[dict[str, str]]) -> Completion:
        if "Bruno" in messages[-1]["content"]:
            raise RuntimeError(f"cannot summarise {messages!r}")
        return await ask(summarizer, messages)

    monkeypatch.setattr(Summarizer, "_ask", broken)
    answer = service.client.tell(DOG, user)
    service.client.tell("The sea is cold.", user)
    until("it is said", lambda: f"recording the summary of turn {answer.id} failed" in service.log())
    until("the other one is there", lambda: len(service.ledger.all(SummaryRecorded, user)) == 1)
    assert "RuntimeError" in service.log()
    ready = service.client.get("/health/ready")
    assert ready.status_code == 200, "turns go on"
    assert ready.json()["checks"]["summaries"]["status"] == "degraded"
    monkeypatch.undo()
    until("it is made up for", lambda: len(service.ledger.all(SummaryRecorded, user)) == 2)
    until("all is well", lambda: service.client.get("/health/ready").json()["status"] == "ok")
    assert "Bruno" not in service.log()


def test_a_summary_that_takes_too_long_names_its_own_setting(tmp_path: Path, user: str) -> None:
    with (
        ScriptedUpstream() as upstream,
        running(upstream, tmp_path, summary_attempts=1, summary_timeout_s=0.2) as service,
    ):
        upstream.fail_always("summary", Fault(hang_s=UNTIL_RELEASED))
        service.client.tell(DOG, user)
        until("it is given up", lambda: service.ledger.all(SummaryFailed, user))
        [failed] = service.ledger.all(SummaryFailed, user)
        assert "silent for 0.2 s: try again, or raise SUMMARY_TIMEOUT_S" in failed.error


def test_giving_up_is_recorded_and_the_next_start_tries_again(service: Running, tmp_path: Path, user: str) -> None:
    upstream = service.upstream
    with running(upstream, tmp_path, summary_attempts=2) as first:
        upstream.fail_always("summary", Fault(status=500))
        answer = first.client.tell(DOG, user)
        until("it is given up", lambda: first.ledger.all(SummaryFailed, user))
        [failed] = first.ledger.all(SummaryFailed, user)
        assert (failed.memory_id, failed.attempts) == (answer.memory("turn")["memory_id"], 2)
        assert "500" in failed.error
        assert len(upstream.calls_of("summary")) == 2
        # It is a memory all the same.
        assert first.client.tell("What is my dog called?", user, "other").replayed == [DOG]
        until("that one is given up too", lambda: first.ledger.all(SummaryFailed, user, "other"))
    with running(upstream, tmp_path) as second:
        until("it is there", lambda: second.ledger.all(SummaryRecorded, user))
        second.settle()
        assert len(second.ledger.all(SummaryRecorded, user)) == 1
        made = len(upstream.calls_of("summary"))
    with running(upstream, tmp_path) as third:
        third.settle()
        assert len(upstream.calls_of("summary")) == made


def test_a_hidden_turn_gets_its_summary_once_it_is_back(service: Running, tmp_path: Path, user: str) -> None:
    stream = StreamId(user, "c")
    with opened(new_ledger_file(tmp_path)) as ledger:
        turn = record_turn(ledger, stream, DOG)
        MemoryCommands(ledger).forget(user, turn.event_id)
    with running(service.upstream, tmp_path) as second:
        second.client.tell("The sea is cold.", user)
        second.settle()
        assert turn.event_id not in {summary.memory_id for summary in second.ledger.all(SummaryRecorded, user)}
        second.client.http.post(f"/v1/memories/{turn.event_id}/restore", params={"user": user})
        until(
            "the summary is there",
            lambda: turn.event_id in {summary.memory_id for summary in second.ledger.all(SummaryRecorded, user)},
        )
        second.settle()
        assert len(second.ledger.all(SummaryRecorded, user)) == 2

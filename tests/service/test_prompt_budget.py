"""The prompt fits the model: by setting, by what the server says, or by a safe default; the event says what was cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain.events import (
    GateDecided,
    RerankDecided,
    RetrievalRecorded,
    SummaryFailed,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
)
from domain.prompt import LAYOUT
from domain.prompts import CHAT_SYSTEM
from domain.tokens import estimate_tokens
from tests.service.running import Running, running, someone, until
from tests.upstream import Fault, ScriptedUpstream, gate_keeps_all

LONG = "My dog Bruno " + "ran along the harbour " * 40
QUESTION = "Where did my dog Bruno run?"
BUDGET = sum(map(estimate_tokens, (CHAT_SYSTEM, QUESTION, LONG))) + estimate_tokens(LONG) // 2
"""Room for the system prompt, the question and one long turn, by estimate."""


def fill_memory(service: Running, user: str) -> list[str]:
    """Two long turns in this conversation, two in another, all with summaries as long as they are."""
    service.upstream.say("answer", "Noted.")
    service.upstream.say("summary", LONG)
    service.upstream.responders["gate"] = gate_keeps_all
    old = service.tell_all([f"{n} {LONG}" for n in range(2)], user, "old")
    new = service.tell_all([f"{n} {LONG}" for n in range(2, 4)], user, "new")
    service.settle()
    return [*old, *new]


def test_over_a_set_budget_whole_items_are_left_out_and_reported(tmp_path: Path, user: str) -> None:
    with (
        ScriptedUpstream(tokenize=False) as upstream,
        running(upstream, tmp_path, prompt_budget_tokens=BUDGET) as service,
    ):
        told = fill_memory(service, user)
        answer = service.client.tell(QUESTION, user, "new", retrieve_k=1)
        report = service.ledger.report(answer)
        assert (report.layout, report.budget_tokens) == (LAYOUT, BUDGET)
        assert report.tokens <= BUDGET
        # The newest turn of the window is in, the older one, the replay and the summary are not.
        assert [text[0] for text in service.said()] == ["3", "W"]
        # The older turn of this conversation is not shown in the window, and so a memory like any other.
        assert [item.part for item in report.left_out] == ["replay", "summary", "summary", "window"]
        assert report.left_out[3].memory_id == told[2]
        assert sorted(item.memory_id for item in report.left_out[:3]) == sorted(told[:3])
        assert report.shares is not None
        assert report.shares.memory == 0
        # What the model was not shown is not claimed to have been used.
        assert answer.memory("retrieved") == {"replay": [], "summary_only": []}
        assert answer.memory("memory_status")["shown"] == {
            "recalled": 3,
            "replayed": 0,
            "summarised": 0,
            "beside": 0,
            "left_out": 3,
            "reason": f"the prompt had no room for them in its {BUDGET} tokens",
        }
        turn = service.ledger.one(TurnRecorded, answer)
        assert (turn.window, turn.replayed, turn.summarised) == ((told[3],), (), ())


def test_system_and_question_are_always_sent(upstream: ScriptedUpstream, tmp_path: Path, user: str) -> None:
    with running(upstream, tmp_path, prompt_budget_tokens=256) as service:
        fill_memory(service, user)
        question = f"{QUESTION} {LONG}"
        answer = service.client.tell(question, user, "new")
        # The newest turn comes too, as short as it gets.
        assert [role for role, _ in service.messages()] == ["system", "user", "assistant", "user"]
        assert len(service.messages()[1][1]) < 100
        assert service.messages()[-1][1] == question
        report = service.ledger.report(answer)
        assert report.tokens > report.budget_tokens == 256


@pytest.mark.parametrize(("max_tokens", "budget"), [(None, 900), (100, 1100)])
def test_the_servers_model_length_is_the_budget(tmp_path: Path, user: str, max_tokens: int | None, budget: int) -> None:
    with (
        ScriptedUpstream(max_model_len=1200) as upstream,
        running(upstream, tmp_path, answer_reserve_tokens=300) as service,
    ):
        until("the limit is known", lambda: service.services.turns.context.tokens == 1200)
        fill_memory(service, user)
        for _ in range(3):
            # The strict server refuses a prompt that leaves no room for the answer.
            answer = service.client.tell(QUESTION, user, someone(), max_tokens=max_tokens)
        assert service.ledger.report(answer).budget_tokens == budget
        assert service.client.get("/v1/models").json()["data"][0]["max_model_len"] == 1200


def test_without_either_a_safe_default_is_the_budget(tmp_path: Path, user: str) -> None:
    with ScriptedUpstream(max_model_len=None) as upstream, running(upstream, tmp_path) as service:
        answer = service.client.tell(QUESTION, user, max_tokens=96)
        assert service.ledger.report(answer).budget_tokens == 8096
        assert "8192 are assumed, until LLM_CONTEXT_TOKENS says more" in service.log()


def test_a_set_context_goes_before_what_the_server_says(tmp_path: Path, user: str) -> None:
    with (
        ScriptedUpstream(max_model_len=32_768) as upstream,
        running(upstream, tmp_path, llm_context_tokens=2000) as service,
    ):
        until("the limit is known", lambda: service.services.turns.context.learned is not None)
        answer = service.client.tell(QUESTION, user, max_tokens=500)
        assert service.ledger.report(answer).budget_tokens == 1500
        assert "are assumed" not in service.log()


def test_a_server_that_finds_a_prompt_too_long_gets_a_shorter_one_once(tmp_path: Path, user: str) -> None:
    """Nobody said what the model takes, and it is less than assumed: its refusal names the maximum."""
    with ScriptedUpstream(max_model_len=None, tokenize=False) as upstream, running(upstream, tmp_path) as service:
        service.upstream.say("answer", LONG)
        service.tell_all([f"{n} {LONG}" for n in range(6)], user, "long")
        service.settle()
        upstream.max_model_len = 1800
        asked = len(upstream.calls_of("answer"))
        answer = service.client.tell(QUESTION, user, "long", max_tokens=200)
        assert answer.status == 200
        assert [call.status for call in upstream.calls_of("answer")[asked:]] == [400, 200]
        assert service.services.turns.context.tokens == 1800
        assert service.ledger.report(answer).budget_tokens == 1600
        again = service.client.tell(QUESTION, user, "long", max_tokens=200)
        assert again.status == 200
        assert len(upstream.calls_of("answer")) == asked + 3


def test_a_question_longer_than_the_model_takes_is_refused_with_the_limit(tmp_path: Path, user: str) -> None:
    with ScriptedUpstream(max_model_len=1000) as upstream, running(upstream, tmp_path) as service:
        until("the limit is known", lambda: service.services.turns.context.tokens == 1000)
        answer = service.client.ask("word " * 10_000, user)
        assert answer.status == 400
        assert answer.error["code"] == "context_length_exceeded"
        assert "at most 1000" in answer.error["message"]
        assert [failed.code for failed in service.ledger.all(TurnFailed, user)] == ["context_length_exceeded"]


def test_a_long_paste_is_cut_for_search_and_decisions_and_sent_whole(tmp_path: Path, user: str) -> None:
    with ScriptedUpstream(max_model_len=32_768) as upstream, running(upstream, tmp_path) as service:
        until("the limit is known", lambda: service.services.turns.context.tokens == 32_768)
        fill_memory(service, user)
        paste = "What does this log say of my dog Bruno? " + "2026-11-27 INFO all is well. " * 1700
        answer = service.client.tell(paste, user, someone())
        assert service.messages()[-1][1] == paste
        retrieval = service.ledger.one(RetrievalRecorded, answer)
        assert retrieval.outcome == "ok"
        assert retrieval.query.startswith("What does this log say")
        assert len(retrieval.query) < 4100
        (asked,) = [call.body["messages"][1]["content"] for call in upstream.calls_of("gate")[-1:]]
        assert retrieval.query in asked


def test_the_servers_own_count_is_used_if_it_offers_one(tmp_path: Path, user: str) -> None:
    with ScriptedUpstream() as upstream, running(upstream, tmp_path, prompt_budget_tokens=700) as service:
        fill_memory(service, user)

        def ask() -> str:
            answer = service.client.tell(QUESTION, user, "new", use_rerank=False)
            return service.ledger.report(answer).counted

        for _ in range(2):  # the first question stands, with its date, in the window of the second
            ask()
            until("counts have come", lambda: upstream.calls_of("tokenize") and not upstream.in_flight("tokenize"))
        assert ask() == "exact"
        bodies = [call.body for call in upstream.calls_of("tokenize")]
        assert all(body["model"] == "scripted-chat" for body in bodies)
        counted = [body["prompt"] for body in bodies]
        assert len(counted) == len(set(counted))


def test_a_server_that_cannot_count_is_not_asked_again(tmp_path: Path, user: str) -> None:
    with (
        ScriptedUpstream(tokenize=False) as upstream,
        running(upstream, tmp_path, prompt_budget_tokens=700) as service,
    ):
        fill_memory(service, user)
        for _ in range(3):
            answer = service.client.tell(QUESTION, user, "new")
            assert service.ledger.report(answer).counted == "estimate"


@pytest.mark.parametrize("reasons", [False, True], ids=["numbers", "reasons"])
def test_gate_rerank_and_summary_fit_the_model_too(tmp_path: Path, user: str, reasons: bool) -> None:
    """A strict server refuses what is too long; so many long memories fit only if they are shortened and left out."""
    told = 35
    with (
        ScriptedUpstream(max_model_len=1500, tokenize=False) as upstream,
        running(upstream, tmp_path, answer_reserve_tokens=300, summary_attempts=1, gate_reasons=reasons) as service,
    ):
        until("the limit is known", lambda: service.services.turns.context.tokens == 1500)
        upstream.say("answer", "Noted.")
        upstream.fail("answer", Fault(content="All along the harbour wall. " * 400))
        upstream.responders["gate"] = gate_keeps_all
        service.tell_all([f"{n} {LONG}" for n in range(told)], user, "old")
        service.settle()
        assert not service.ledger.all(SummaryFailed, user, "old")
        assert len(service.ledger.all(SummaryRecorded, user, "old")) == told
        answer = service.client.tell(QUESTION, user, "new")
        gate = service.ledger.one(GateDecided, answer)
        # Without a gate the rerank is asked about more than any gate had room for.
        ungated = service.client.tell(QUESTION, user, "ungated", use_gate=False)
        for asked in (answer, ungated):
            assert service.ledger.one(RerankDecided, asked).outcome == "ok"
        assert gate.outcome == "ok"
        for kind in ("gate", "rerank", "summary"):
            assert {call.status for call in upstream.calls_of(kind)} == {200}
        # What the gate had no room for is dropped, and says that it was not asked about.
        shown = upstream.calls_of("gate")[-1].body["messages"][1]["content"].count("\n[")
        assert 0 < shown < told == len(gate.verdicts)
        assert [verdict.keep for verdict in gate.verdicts] == [True] * shown + [False] * (told - shown)
        for verdict in gate.verdicts:
            assert ("not asked about" in (verdict.reason or "")) == (verdict.n > shown)

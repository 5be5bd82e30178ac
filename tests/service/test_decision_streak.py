"""A gate or rerank that cannot be had again and again is said once, and until it can be had again."""

from __future__ import annotations

import json
import logging
from logging.handlers import BufferingHandler
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.events import Outcome
from service.decision_streak import FAILURES_SAID, DecisionStreak
from tests.service.running import Running, running
from tests.upstream import RERANK_MODEL, Fault, Kind, ScriptedUpstream

QUESTION = "Which cat did the dog Bruno meet?"
FACTS = [f"Bruno the dog met cat number {n}." for n in range(1, 5)]
CANARY = "CanaryTextQuetzal"
KEY = "sk-canary-4711"


@pytest.fixture(scope="module")
def service_settings() -> dict[str, object]:
    return {"openai_api_key": KEY}


@pytest.fixture
def told(service: Running, user: str) -> str:
    service.upstream.say("answer", "Noted.")
    service.tell_all([f"{fact} {CANARY}" for fact in FACTS], user)
    service.settle()
    return user


def ask(service: Running, user: str, times: int = 1, **more: object) -> None:
    for _ in range(times):
        service.client.tell(f"{QUESTION} {CANARY}", user, "asking", **{"recent_turns": 0, "retrieve_k": 1, **more})


def said(service: Running, stage: str) -> list[str]:
    return [line for line in service.log().splitlines() if f"service.decision_streak: the {stage}" in line]


FAULTS = [
    (Fault(status=400, message=f"no such thing: {CANARY} {KEY}"), "rejected the request (400) [upstream_rejected]"),
    (Fault(status=500, message=f"{CANARY} {KEY}"), "fails (500) [upstream_failed]"),
    (Fault(status=401, message=f"{CANARY} {KEY}"), "refuses the key (401) [upstream_refused_key]"),
    (Fault(close=True), "(LLM_BASE_URL) cannot be reached [upstream_unreachable]"),
    (Fault(garbage=True), "cannot be read"),
    (Fault(content=f"I like {CANARY}."), "the answer holds no decision on these candidates"),
]


@pytest.mark.parametrize("stage", ["gate", "rerank"])
@pytest.mark.parametrize(("fault", "reason"), FAULTS, ids=["400", "500", "401", "closed", "garbage", "prose"])
def test_it_is_said_once_with_the_reason_and_over_when_one_succeeds(
    service: Running, told: str, stage: Kind, fault: Fault, reason: str
) -> None:
    before = len(said(service, stage))
    ready = service.client.get("/health/ready").json()
    assert (ready["status"], stage in ready["checks"]) == ("ok", False)
    service.upstream.fail_always(stage, fault)
    ask(service, told, FAILURES_SAID - 1)
    assert service.client.get("/health/ready").json()["status"] == "ok"
    ask(service, told, 3)
    [line] = said(service, stage)[before:]
    assert f"WARNING service.decision_streak: the {stage} could not be had 3 times in a row" in line
    assert reason in line
    ready = service.client.get("/health/ready")
    # It must go on to be asked: only a turn shows that it works again.
    assert ready.status_code == 200
    assert ready.json()["status"] == "degraded"
    check = ready.json()["checks"][stage]
    assert check["status"] == "degraded"
    assert reason in check["message"]
    assert "5 times in a row" in check["message"]
    service.upstream.heal()
    # One that was not asked for tells nothing.
    ask(service, told, use_gate=False, use_rerank=False)
    assert service.client.get("/health/ready").json()["status"] == "degraded"
    ask(service, told)
    assert service.client.get("/health/ready").json()["status"] == "ok"
    assert said(service, stage)[before + 1 :] == [f"WARNING service.decision_streak: the {stage} decides again"]
    for text in (service.log(), ready.text):
        assert CANARY not in text
        assert KEY not in text


def test_a_rerank_endpoint_too(upstream: ScriptedUpstream, user: str, tmp_path: Path) -> None:
    given = {"rerank_base_url": upstream.base_url, "rerank_model": RERANK_MODEL}
    with running(upstream, tmp_path, **given) as service:
        service.tell_all(FACTS, user)
        service.settle()
        upstream.fail_always("scores", Fault(content=json.dumps({"results": []})))
        ask(service, user, FAILURES_SAID)
        message = service.client.get("/health/ready").json()["checks"]["rerank"]["message"]
        assert message.endswith("so the order of the search is used: the answer holds no scores of these memories")
        upstream.heal()
        ask(service, user)
        assert "rerank" not in service.client.get("/health/ready").json()["checks"]


@given(outcomes=st.lists(st.sampled_from(["ok", "fallback", "skipped"]), max_size=30))
def test_it_is_trouble_after_three_failures_without_a_success_between(outcomes: list[Outcome]) -> None:
    handler = BufferingHandler(len(outcomes) + 1)
    logger = logging.getLogger("service.decision_streak")
    logger.addHandler(handler)
    try:
        streak = DecisionStreak("gate", "every candidate is kept")
        for outcome in outcomes:
            streak.note(outcome, "why")
    finally:
        logger.removeHandler(handler)
    told = "".join(outcome[0] for outcome in outcomes if outcome != "skipped")
    in_a_row = len(told) - len(told.rstrip("f"))
    assert (streak.trouble is not None) == (in_a_row >= FAILURES_SAID)
    long_ones = [run for run in told.split("o") if len(run) >= FAILURES_SAID]
    ended = len(long_ones) - (in_a_row >= FAILURES_SAID)
    assert len(handler.buffer) == len(long_ones) + ended

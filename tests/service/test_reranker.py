"""A rerank endpoint can take the place of the LLM rerank; whatever it says, the turn goes on and the event tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.errors import SettingsError
from domain.events import GateDecided, RerankDecided, TurnRecorded
from domain.settings import load_settings
from service.settings import ServiceSettings
from tests.service.running import Answer, Running, running, someone
from tests.upstream import RERANK_MODEL, UNTIL_RELEASED, Fault, ScriptedUpstream, gate_keeps_all

QUESTION = "Which cat did the dog Bruno meet?"
FACTS = [f"Bruno the dog met cat number {n}." for n in range(1, 6)]
KEY = "a-key-of-its-own"


@pytest.fixture(scope="module")
def module_service(module_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    given = {
        "rerank_base_url": module_upstream.base_url,
        "rerank_model": RERANK_MODEL,
        "rerank_api_key": KEY,
        "rerank_timeout_s": 1.0,
    }
    with running(module_upstream, tmp_path_factory.mktemp("storage"), **given) as service:
        yield service


@pytest.fixture(scope="module")
def user_with_facts(module_service: Running) -> str:
    user = someone()
    module_service.upstream.say("answer", "Noted.")
    module_service.tell_all(FACTS, user)
    module_service.settle()
    return user


@pytest.fixture(autouse=True)
def _all_facts_are_kept(upstream: ScriptedUpstream) -> None:
    upstream.say("answer", " ".join(f"filler{n}" for n in range(60)))
    upstream.responders["gate"] = gate_keeps_all


def ask(service: Running, user: str, **knobs: Any) -> tuple[Answer, GateDecided, RerankDecided]:
    answer = service.client.tell(QUESTION, user, someone(), **{"candidate_n": 5, "retrieve_k": 2, **knobs})
    return answer, service.ledger.one(GateDecided, answer), service.ledger.one(RerankDecided, answer)


def test_it_orders_all_memories_and_the_event_keeps_its_scores(service: Running, user_with_facts: str) -> None:
    raw = json.dumps({"results": [{"index": n, "relevance_score": n / 10} for n in (3, 1, 4, 0, 2)]})
    service.upstream.fail("scores", Fault(content=raw))
    answer, gate, rerank = ask(service, user_with_facts)
    in_gate_order = [verdict.memory_id for verdict in gate.verdicts]
    assert rerank.order == tuple(in_gate_order[n] for n in (4, 3, 2, 1, 0))
    assert (rerank.strategy, rerank.outcome, rerank.model, rerank.prompt_version) == (
        "endpoint",
        "ok",
        RERANK_MODEL,
        None,
    )
    assert (rerank.named, rerank.scores, rerank.raw_answer) == (5, (0.4, 0.3, 0.2, 0.1, 0.0), raw)
    assert rerank.replayed == rerank.order[:2]
    assert [item["memory_id"] for item in answer.memory("retrieved")["replay"]] == list(rerank.replayed)
    assert answer.memory("memory_status")["rerank"] == {"strategy": "endpoint", "outcome": "ok"}
    assert not service.upstream.calls_of("rerank")


def test_it_is_sent_dated_lines_and_its_own_key(service: Running, user_with_facts: str) -> None:
    answer, _, rerank = ask(service, user_with_facts)
    [call] = service.upstream.calls_of("scores")
    day = answer.memory("retrieved")["replay"][0]["ts"][:10]
    assert call.headers["authorization"] == f"Bearer {KEY}"
    assert (call.body["query"], call.body["top_n"]) == (QUESTION, 5)
    assert all(re.match(rf"\({day} \d\d:\d\d\) ", text) for text in call.body["documents"])
    assert rerank.outcome == "ok"
    assert KEY not in service.log()


def test_unscored_memories_follow_in_gate_order(service: Running, user_with_facts: str) -> None:
    service.upstream.fail("scores", Fault(content='[{"index": 3, "score": 0.5}, {"index": 77, "score": 1}]'))
    _, gate, rerank = ask(service, user_with_facts)
    assert rerank.order == tuple(gate.verdicts[n].memory_id for n in (3, 0, 1, 2, 4))
    assert (rerank.named, rerank.scores) == (1, (0.5,))


@pytest.mark.parametrize(
    "raw", ["", "I cannot.", '{"results": []}', '{"results": [{"index": 9, "relevance_score": 1}]}']
)
def test_an_unreadable_answer_leaves_the_gate_order(service: Running, user_with_facts: str, raw: str) -> None:
    service.upstream.fail("scores", Fault(content=raw))
    answer, gate, rerank = ask(service, user_with_facts)
    assert (rerank.strategy, rerank.outcome, rerank.raw_answer, rerank.scores) == ("endpoint", "fallback", raw, ())
    assert rerank.order == tuple(verdict.memory_id for verdict in gate.verdicts)
    assert len(answer.replayed) == 2


@pytest.mark.parametrize(
    ("fault", "note"),
    [
        (Fault(status=500), "the rerank endpoint fails (500)"),
        (Fault(status=401), "check RERANK_API_KEY"),
        (Fault(status=404), f"RERANK_MODEL = '{RERANK_MODEL}'"),
        (Fault(status=429), "(429)"),
        (Fault(hang_s=UNTIL_RELEASED), "silent for 1 s: try again, or raise RERANK_TIMEOUT_S"),
        (Fault(close=True), "(RERANK_BASE_URL) cannot be reached"),
        (Fault(cut=True), "the rerank endpoint"),
        (Fault(malformed=True), "no scores"),
        (Fault(garbage=True), "no scores"),
    ],
    ids=["500", "401", "404", "429", "hangs", "closed", "cut", "malformed", "garbage"],
)
def test_a_failing_endpoint_loses_no_turn(service: Running, user_with_facts: str, fault: Fault, note: str) -> None:
    service.upstream.fail("scores", fault)
    answer, gate, rerank = ask(service, user_with_facts)
    assert (rerank.strategy, rerank.outcome) == ("endpoint", "fallback")
    assert note in (rerank.note or "")
    assert rerank.replayed == tuple(verdict.memory_id for verdict in gate.verdicts[:2])
    assert service.ledger.one(TurnRecorded, answer).replayed == rerank.replayed
    assert not service.upstream.calls_of("rerank")


def test_a_request_can_turn_it_off(service: Running, user_with_facts: str) -> None:
    _, _, rerank = ask(service, user_with_facts, use_rerank=False)
    assert (rerank.strategy, rerank.outcome, rerank.model) == ("none", "skipped", None)
    _, _, rerank = ask(service, user_with_facts, retrieve_k=5)
    assert (rerank.strategy, rerank.outcome, rerank.model) == ("endpoint", "skipped", None)
    assert not service.upstream.calls_of("scores")


def test_health_reports_it(service: Running) -> None:
    told = service.client.get("/health/rerank")
    assert told.status_code == 200
    assert told.json() == {"status": "ok", "strategy": "endpoint", "model": RERANK_MODEL, "score": 0.5}
    service.upstream.fail("scores", Fault(status=503))
    told = service.client.get("/health/rerank")
    assert (told.status_code, told.json()["status"]) == (503, "failing")
    assert "the rerank endpoint fails (503)" in told.json()["message"]
    service.upstream.fail("scores", Fault(content="{}"))
    assert service.client.get("/health/rerank").status_code == 503


class TestSettings:
    def load(self, **given: str) -> ServiceSettings:
        needed = {"llm_base_url": "http://a", "llm_model": "m", "emb_base_url": "http://b", "emb_model": "e"}
        return load_settings(ServiceSettings, _env_file=None, **needed, **given)

    @pytest.mark.parametrize(
        ("given", "strategy"),
        [
            ({}, "llm"),
            ({"rerank_base_url": "http://r", "rerank_model": "r"}, "endpoint"),
            ({"rerank_base_url": "http://r", "rerank_model": "r", "reranker": "llm"}, "llm"),
            ({"reranker": "none"}, "none"),
        ],
    )
    def test_an_endpoint_is_used_where_one_is_configured(self, given: dict[str, str], strategy: str) -> None:
        assert self.load(**given).rerank_strategy == strategy

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            ({"reranker": "endpoint"}, "RERANKER = 'endpoint'"),
            ({"reranker": "endpoint"}, "set RERANK_BASE_URL and RERANK_MODEL too"),
            ({"reranker": "endpoint", "rerank_base_url": "http://r"}, "set RERANK_MODEL too"),
            ({"rerank_model": "r"}, "set RERANK_BASE_URL too"),
            ({"reranker": "gate"}, "RERANKER = 'gate'"),
            ({"rerank_base_url": "localhost:8003", "rerank_model": "r"}, "RERANK_BASE_URL = 'localhost:8003'"),
        ],
    )
    def test_an_incomplete_endpoint_is_named_in_one_line(self, given: dict[str, str], named: str) -> None:
        with pytest.raises(SettingsError) as told:
            self.load(**given)
        assert named in str(told.value)
        assert "\n" not in str(told.value)

    @pytest.mark.parametrize("url", ["http://r/v2", "http://r/v2/", "http://r/v2/rerank"])
    def test_the_address_may_name_the_path(self, url: str) -> None:
        assert self.load(rerank_base_url=url, rerank_model="r").rerank_base_url == "http://r/v2"


def test_without_a_version_in_the_address_and_without_a_key_of_its_own(
    upstream: ScriptedUpstream, tmp_path: Path, user: str
) -> None:
    given = {"rerank_base_url": upstream.root_url, "rerank_model": RERANK_MODEL, "openai_api_key": "shared"}
    with running(upstream, tmp_path, **given) as service:
        service.tell_all(FACTS[:3], user)
        _, _, rerank = ask(service, user, retrieve_k=1)
        assert rerank.outcome == "ok"
        assert upstream.calls_of("scores")[-1].headers["authorization"] == "Bearer shared"


def test_reranker_none_overrules_a_request(upstream: ScriptedUpstream, tmp_path: Path, user: str) -> None:
    with running(upstream, tmp_path, reranker="none") as service:
        service.tell_all(FACTS[:3], user)
        assert service.client.get("/v1/models").json()["data"][0]["knobs"]["use_rerank"] is False
        _, _, rerank = ask(service, user, retrieve_k=1, use_rerank=True)
        assert (rerank.strategy, rerank.outcome) == ("none", "skipped")
        assert service.client.get("/health/rerank").json() == {"status": "ok", "strategy": "none"}
        assert not upstream.calls_of("rerank", "scores")

"""Whatever the gate and the rerank answer, the turn goes on, and the event says who decided and how."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from domain.events import GateDecided, RerankDecided, RetrievalRecorded, TurnRecorded
from domain.prompts import GATE_SYSTEM, RERANK_SYSTEM, version_of
from domain.score_gate import NEAREST_KEPT
from tests.service.running import Answer, Running, running, someone
from tests.upstream import UNTIL_RELEASED, Fault, Kind, ScriptedUpstream, gate_drops_all, gate_keeps_all

QUESTION = "Which cat did the dog Bruno meet?"
FACTS = [f"Bruno the dog met cat number {n}." for n in range(1, 7)]
DOGS_AND_OTHERS = [
    "A dog barked in Oslo.",
    "Rain called off our long walk.",
    "Every dog ran along the beach and into the waves.",
    "I like soup.",
    "Rent is due.",
]
"""Three of these share a word with the question after a dog's name."""
TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def service_settings() -> dict[str, object]:
    return {"gate_timeout_s": TIMEOUT_S, "rerank_timeout_s": TIMEOUT_S}


@pytest.fixture(scope="module")
def user_with_facts(module_service: Running) -> str:
    """A user with six memories, who only ever asks in conversations of their own."""
    user = someone()
    module_service.upstream.say("answer", "Noted.")
    module_service.tell_all(FACTS, user)
    module_service.settle()
    return user


@pytest.fixture
def ask(service: Running, user_with_facts: str) -> Asker:
    return Asker(service, user_with_facts)


class Asker:
    """Asks the same question about the same six memories, each time in a new conversation."""

    def __init__(self, service: Running, user: str) -> None:
        self.service = service
        self.user = user

    def __call__(self, **knobs: object) -> tuple[Answer, GateDecided, RerankDecided]:
        # The answers recorded here are memories too: only the best six, the facts, are candidates.
        knobs = {"candidate_n": len(FACTS), **knobs}
        answer = self.service.client.tell(QUESTION, self.user, someone(), **knobs)
        ledger = self.service.ledger
        return answer, ledger.one(GateDecided, answer), ledger.one(RerankDecided, answer)


@pytest.fixture(autouse=True)
def _answers_are_far_from_the_question(upstream: ScriptedUpstream) -> None:
    upstream.say("answer", " ".join(f"filler{n}" for n in range(60)))


def decision_request(service: Running, kind: Kind) -> tuple[list[str], dict[str, object]]:
    """The lines of the newest question to the gate or the rerank, and its schema."""
    body = service.upstream.calls_of(kind)[-1].body
    schema = body["response_format"]
    assert schema["type"] == "json_schema"
    assert body["temperature"] == 0
    return body["messages"][1]["content"].splitlines(), schema["json_schema"]


def kept_numbers(gate: GateDecided) -> list[int]:
    return [verdict.n for verdict in gate.verdicts if verdict.keep]


class TestGate:
    def test_it_is_asked_with_numbered_dated_lines_and_a_schema(self, ask: Asker) -> None:
        answer, gate, _ = ask()
        lines, schema = decision_request(ask.service, "gate")
        assert QUESTION in lines
        day = answer.memory("retrieved")["replay"][0]["ts"][:10]
        candidates = [line for line in lines if line.startswith("[")]
        # They were told today, so with the time of day.
        dated = [re.match(rf"\[(\d)\] \({day} \d\d:\d\d\) ", line) for line in candidates]
        assert [found and found[1] for found in dated] == ["1", "2", "3", "4", "5", "6"]
        assert schema["name"] == "memory_gate"
        assert schema["schema"]["properties"].keys() == {"keep"}  # type: ignore[index]  # a JSON schema
        assert gate.strategy == "llm"
        assert gate.prompt_version == version_of(GATE_SYSTEM)
        assert gate.model == "scripted-chat"
        assert gate.usage is not None
        assert gate.latency_ms > 0

    def test_what_it_drops_is_not_shown_to_the_model(self, ask: Asker) -> None:
        ask.service.upstream.say("gate", '{"keep": [2, 5]}')
        answer, gate, _ = ask()
        lines, _ = decision_request(ask.service, "gate")
        assert gate.outcome == "ok"
        assert kept_numbers(gate) == [2, 5]
        assert gate.raw_answer == '{"keep": [2, 5]}'
        candidates = [line for line in lines if line.startswith("[")]
        shown = [fact for fact in FACTS if any(fact in text for _, text in ask.service.messages())]
        assert sorted(shown) == sorted(f for f in FACTS if f in candidates[1] or f in candidates[4])
        assert sorted(answer.replayed) == sorted(shown)
        assert answer.memory("memory_status")["gate"] == {"strategy": "llm", "outcome": "ok"}

    def test_it_may_drop_everything(self, ask: Asker) -> None:
        ask.service.upstream.responders["gate"] = gate_drops_all
        answer, gate, rerank = ask()
        assert (gate.outcome, kept_numbers(gate), rerank.outcome) == ("ok", [], "skipped")
        assert answer.memory("retrieved") == {"replay": [], "summary_only": []}
        assert [role for role, _ in ask.service.messages()] == ["system", "user"]

    @pytest.mark.parametrize(
        ("raw", "numbers"),
        [
            ('Sure! Here you go:\n{"keep": [3, 1]}\nAnything else?', [1, 3]),
            ('```json\n{"keep": [4]}\n```', [4]),
            ('{"keep": [1, 2, 5', [1, 2, 5]),
            ('{"keep": [2, 99, 0, -1, 4]}', [2, 4]),
            ('{"keep": [6, 6, 6, 2, 2]}', [2, 6]),
            ('{"keep": ["3", "[5]", 2.0]}', [2, 3, 5]),
            ('<think>{"keep": [1]} or not?</think>{"keep": [5]}', [5]),
            ("[2, 3]", [2, 3]),
            ('{"keep": [], "keep_count": 0}', []),
        ],
    )
    def test_an_answer_is_read_leniently(self, ask: Asker, raw: str, numbers: list[int]) -> None:
        ask.service.upstream.say("gate", raw)
        _, gate, _ = ask()
        assert (gate.outcome, kept_numbers(gate), gate.raw_answer) == ("ok", numbers, raw)

    @pytest.mark.parametrize(
        "raw",
        ["", "I would rather not say.", "{}", '{"keep": "none"}', '{"keep": [77, 88]}', "<think>[1]</think>", "null"],
    )
    def test_an_unreadable_answer_keeps_all_in_vector_order(self, ask: Asker, raw: str) -> None:
        ask.service.upstream.say("gate", raw)
        answer, gate, _ = ask(gate_keep_max=4)
        assert (gate.outcome, gate.raw_answer) == ("fallback", raw)
        assert kept_numbers(gate) == [1, 2, 3, 4]
        assert [verdict.n for verdict in gate.verdicts if verdict.over_limit] == [5, 6]
        assert answer.memory("memory_status")["gate"]["outcome"] == "fallback"

    @pytest.mark.parametrize(
        ("fault", "note"),
        [
            (Fault(status=500), "fails (500)"),
            (Fault(status=429), "429"),
            (Fault(status=400), "400"),
            (Fault(close=True), "cannot be reached"),
            (Fault(garbage=True), "cannot be read"),
            (Fault(malformed=True), "cannot be read"),
            (Fault(empty_choices=True), "cannot be read"),
            (Fault(cut=True), ""),
            (Fault(hang_s=UNTIL_RELEASED), "silent for 1 s: try again, or raise GATE_TIMEOUT_S"),
        ],
        ids=["500", "429", "400", "closed", "garbage", "malformed", "no choices", "cut", "hangs"],
    )
    def test_a_failing_gate_loses_no_turn(self, ask: Asker, fault: Fault, note: str) -> None:
        ask.service.upstream.fail("gate", fault)
        answer, gate, _ = ask()
        assert (gate.outcome, gate.raw_answer) == ("fallback", None)
        assert note in (gate.note or "")
        assert kept_numbers(gate) == [1, 2, 3, 4, 5, 6]
        assert ask.service.ledger.one(TurnRecorded, answer).replayed

    def test_over_the_limit_the_best_by_vector_are_kept(self, ask: Asker) -> None:
        ask.service.upstream.say("gate", '{"keep": [6, 5, 2, 1]}')
        _, gate, _ = ask(gate_keep_max=3)
        assert kept_numbers(gate) == [1, 2, 5]
        assert [verdict.n for verdict in gate.verdicts if verdict.over_limit] == [6]

    @pytest.mark.parametrize("given", [False, "false"])
    def test_use_gate_false_keeps_all_without_a_call(self, ask: Asker, given: object) -> None:
        answer, gate, _ = ask(use_gate=given, gate_keep_max=5)
        assert not ask.service.upstream.calls_of("gate")
        assert (gate.strategy, gate.outcome, kept_numbers(gate)) == ("off", "skipped", [1, 2, 3, 4, 5])
        assert answer.memory("memory_status")["gate"] == {"strategy": "off", "outcome": "skipped"}

    def test_without_candidates_the_gate_is_not_called(self, service: Running, user: str) -> None:
        answer = service.client.tell(QUESTION, user)
        gate = service.ledger.one(GateDecided, answer)
        assert (gate.outcome, gate.verdicts) == ("skipped", ())
        assert [call.kind for call in service.upstream.calls if call.kind in {"gate", "rerank"}] == []


class TestRerank:
    def test_it_picks_the_top_k_and_the_rest_are_summaries(self, ask: Asker) -> None:
        ask.service.upstream.responders["gate"] = gate_keeps_all
        ask.service.upstream.say("rerank", '{"top": [4, 2]}')
        answer, gate, rerank = ask(retrieve_k=2)
        lines, schema = decision_request(ask.service, "rerank")
        summaries = [line.split(") ", 1)[1] for line in lines if line.startswith("[")]
        assert schema["name"] == "memory_rerank"
        assert "Name the best 2." in lines
        assert [fact for fact in answer.replayed if fact in summaries[3]] == answer.replayed[:1]
        assert [fact for fact in answer.replayed if fact in summaries[1]] == answer.replayed[1:]
        assert answer.summaries == [summaries[n - 1] for n in (1, 3, 5, 6)]
        assert rerank.outcome == "ok"
        assert rerank.named == 2
        assert rerank.order == tuple(gate.verdicts[n - 1].memory_id for n in (4, 2, 1, 3, 5, 6))
        assert rerank.replayed == rerank.order[:2]
        assert rerank.prompt_version == version_of(RERANK_SYSTEM)
        assert answer.memory("memory_status")["rerank"] == {"strategy": "llm", "outcome": "ok"}

    @pytest.mark.parametrize(
        ("raw", "order"),
        [
            ('The best are {"top": [3, 3, 9, 1]} I think', [3, 1, 2, 4, 5, 6]),
            ('```\n{"top": [6, 5', [6, 5, 1, 2, 3, 4]),
            ('{"top": [5]}', [5, 1, 2, 3, 4, 6]),
        ],
    )
    def test_an_answer_is_read_leniently(self, ask: Asker, raw: str, order: list[int]) -> None:
        ask.service.upstream.responders["gate"] = gate_keeps_all
        ask.service.upstream.say("rerank", raw)
        _, gate, rerank = ask(retrieve_k=3)
        assert (rerank.outcome, rerank.raw_answer) == ("ok", raw)
        assert rerank.order == tuple(gate.verdicts[n - 1].memory_id for n in order)

    @pytest.mark.parametrize("raw", ["", "They are all lovely.", '{"top": [70]}', '{"best": [1]}'])
    def test_an_unreadable_answer_leaves_the_gate_order(self, ask: Asker, raw: str) -> None:
        ask.service.upstream.responders["gate"] = gate_keeps_all
        ask.service.upstream.say("rerank", raw)
        answer, gate, rerank = ask(retrieve_k=2)
        assert (rerank.outcome, rerank.raw_answer, rerank.named) == ("fallback", raw, 0)
        assert rerank.order == tuple(verdict.memory_id for verdict in gate.verdicts)
        assert len(answer.replayed) == 2
        assert answer.memory("memory_status")["rerank"] == {"strategy": "llm", "outcome": "fallback"}

    @pytest.mark.parametrize(
        ("fault", "note"),
        [
            (Fault(status=503), "fails (503)"),
            (Fault(hang_s=UNTIL_RELEASED), "try again, or raise RERANK_TIMEOUT_S"),
            (Fault(close=True), "cannot be reached"),
            (Fault(garbage=True), "cannot be read"),
        ],
        ids=["503", "hangs", "closed", "garbage"],
    )
    def test_a_failing_rerank_loses_no_turn(self, ask: Asker, fault: Fault, note: str) -> None:
        ask.service.upstream.responders["gate"] = gate_keeps_all
        ask.service.upstream.fail("rerank", fault)
        answer, gate, rerank = ask(retrieve_k=2)
        assert (rerank.outcome, rerank.raw_answer) == ("fallback", None)
        assert note in (rerank.note or "")
        assert rerank.replayed == tuple(verdict.memory_id for verdict in gate.verdicts[:2])
        assert len(answer.replayed) == 2

    @pytest.mark.parametrize(
        ("knobs", "replayed"),
        [
            ({"use_rerank": False, "retrieve_k": 2}, 2),
            ({"use_rerank": "False", "retrieve_k": "2"}, 2),
            ({"retrieve_k": 6}, 6),
            ({"retrieve_k": 0}, 0),
        ],
    )
    def test_it_is_not_called_when_there_is_nothing_to_choose(
        self, ask: Asker, knobs: dict[str, object], replayed: int
    ) -> None:
        ask.service.upstream.responders["gate"] = gate_keeps_all
        answer, _, rerank = ask(**knobs)
        assert not ask.service.upstream.calls_of("rerank")
        assert rerank.outcome == "skipped"
        assert (len(answer.replayed), len(answer.summaries)) == (replayed, 6 - replayed)


class TestStrategies:
    def test_reasons_are_asked_for_and_recorded_in_either_form(
        self, upstream: ScriptedUpstream, tmp_path: Path, user: str
    ) -> None:
        upstream.say("answer", "Noted.")
        with running(upstream, tmp_path, gate_reasons=True) as service:
            service.tell_all(FACTS[:2], user)
            for raw in (
                {"keep": [1], "reasons": [{"n": 1, "why": "a cat"}, {"n": 2, "why": "no cat"}]},
                {"keep": [1], "reasons": {"1": "a cat", "2": "no cat", "9": "who?"}},
            ):
                upstream.say("gate", json.dumps(raw))
                answer = service.client.tell(QUESTION, user, someone(), candidate_n=2)
                gate = service.ledger.one(GateDecided, answer)
                assert [(v.keep, v.reason) for v in gate.verdicts] == [(True, "a cat"), (False, "no cat")]
            _, schema = decision_request(service, "gate")
            assert schema["schema"]["required"] == ["keep", "reasons"]  # type: ignore[index]  # a JSON schema

    @pytest.mark.parametrize("as_list", [True, False])
    def test_a_lone_surrogate_in_a_reason_loses_no_turn(
        self, upstream: ScriptedUpstream, tmp_path: Path, user: str, as_list: bool
    ) -> None:
        upstream.say("answer", "Noted.")
        why = "a \ud800cat"
        reasons = [{"n": 1, "why": why}] if as_list else {"1": why}
        with running(upstream, tmp_path, gate_reasons=True) as service:
            service.tell_all(FACTS[:1], user)
            upstream.say("gate", json.dumps({"keep": [1], "reasons": reasons}))
            for stream in (False, True):
                answer = service.client.tell(QUESTION, user, someone(), candidate_n=1, stream=stream)
                assert service.ledger.one(TurnRecorded, answer).user == QUESTION
                gate = service.ledger.one(GateDecided, answer)
                assert [(v.keep, v.reason) for v in gate.verdicts] == [(True, "a \ufffdcat")]

    def test_gate_score_decides_by_similarity_and_records_its_rule(
        self, upstream: ScriptedUpstream, tmp_path: Path, user: str
    ) -> None:
        upstream.say("answer", "Noted.")
        with running(upstream, tmp_path, gate="score", use_rerank_default=False) as service:
            told = service.tell_all(["My dog is called Bruno.", *DOGS_AND_OTHERS], user)
            answer = service.client.tell("How is my dog called?", user)
            gate = service.ledger.one(GateDecided, answer)
            assert (gate.strategy, gate.outcome, gate.model) == ("score", "ok", None)
            kept = [verdict.memory_id for verdict in gate.verdicts if verdict.keep]
            assert kept[0] == told[0]
            assert gate.score_rule is not None
            assert gate.score_rule["scale"] == "fused"
            candidates = service.ledger.one(RetrievalRecorded, answer).candidates
            threshold = gate.score_rule["threshold"]
            standing_out = {item.memory_id for item in candidates if item.score >= threshold}
            nearest = sorted(candidates, key=lambda item: -(item.dense_score or 0.0))[:NEAREST_KEPT]
            assert gate.score_rule["near"] == nearest[-1].dense_score
            # Some are kept for their meaning alone, and not all of them are.
            assert standing_out < set(kept) == standing_out | {item.memory_id for item in nearest} < set(told)
            assert all((verdict.reason or "").startswith("fused score ") for verdict in gate.verdicts)
            assert answer.memory("memory_status")["gate"] == {"strategy": "score", "outcome": "ok"}
            assert not upstream.calls_of("gate", "rerank")
            # A request can still ask for the rerank, and turn the gate off.
            answer = service.client.tell(
                "How is my dog called?", user, "x", use_gate=False, use_rerank=True, retrieve_k=1
            )
            assert service.ledger.one(GateDecided, answer).strategy == "off"
            assert len(upstream.calls_of("rerank")) == 1

    def test_gate_off_keeps_all(self, upstream: ScriptedUpstream, tmp_path: Path, user: str) -> None:
        upstream.say("answer", "Noted.")
        with running(upstream, tmp_path, gate="off") as service:
            service.tell_all(FACTS, user)
            answer = service.client.tell("Unrelated.", user, use_gate=True)
            assert service.ledger.one(GateDecided, answer).strategy == "off"
            assert len(answer.replayed) + len(answer.summaries) == len(FACTS)
            assert not upstream.calls_of("gate")

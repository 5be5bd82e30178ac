"""Each model call of an answer can be made again from events: the same messages, by their hash and by what was sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from domain.audit_reader import AuditReader
from domain.events import (
    GateDecided,
    RerankDecided,
    SummaryFailed,
    SummaryRecorded,
    TurnFailed,
    TurnRecorded,
)
from domain.model_call import ModelCall
from domain.sqlite import open_engine
from service.audit.call_proofs import gate_prompt
from service.audit.explain import trace_of
from service.dialect import Dialect
from tests.ledgers import new_ledger_file
from tests.service.audit.test_explain import explained
from tests.service.importing.exports import chatgpt, written
from tests.service.opm import environment, opm
from tests.service.running import Running, running, until
from tests.upstream import RERANK_MODEL, Fault, ScriptedUpstream, gate_keeps_all
from tests.upstream.script import Kind

DOG = "My dog is called Bruno."
FACTS = [DOG, "The dog Bruno likes cheese.", "Bruno the dog sleeps a lot.", "I live in Oslo."]
DIALECTS = [(), ("json_schema",), ("json_schema", "json_object"), ("system",), ("max_tokens", "temperature")]
QUESTION = "What is the name of my dog?"


@contextmanager
def remembering(upstream: ScriptedUpstream, folder: Path, user: str, **settings: Any) -> Iterator[Running]:
    with running(upstream, folder, **settings) as service:
        upstream.responders["gate"] = gate_keeps_all
        service.tell_all(FACTS, user)
        service.settle()
        yield service


@contextmanager
def audit_reader(service: Running) -> Iterator[AuditReader]:
    engine = open_engine(service.ledger.path, writer=False)
    yield AuditReader(engine)
    engine.dispose()


def sent(service: Running, kind: Kind) -> list[dict[str, str]]:
    """Return the messages of the newest call of a kind, as the endpoint got them."""
    messages: list[dict[str, str]] = service.upstream.calls_of(kind)[-1].body["messages"]
    return messages


def check_call(call: ModelCall | None, service: Running, kind: Kind) -> None:
    """Check that a recorded call says all that went over the wire."""
    assert call is not None
    body = service.upstream.calls_of(kind)[-1].body
    made = Dialect(**call.dialect).put({**call.request, "messages": [{"role": "user", "content": ""}]})
    assert {**made, "messages": body["messages"]}.items() <= body.items()
    assert call.endpoint == service.upstream.base_url
    assert (call.answered_by, call.fingerprint) == (service.upstream.answers_as, service.upstream.fingerprint)


def by_hand(value: object) -> str:
    """Return a hash by the recipe of docs/audit.md."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


class TestEachCallOfAnAnswer:
    def test_its_hash_can_be_made_by_hand(self, tmp_path: Path, user: str) -> None:
        with ScriptedUpstream() as upstream:
            settings = {"rerank_base_url": upstream.base_url, "rerank_model": RERANK_MODEL}
            with remembering(upstream, tmp_path, user, **settings) as service:
                asked = service.client.tell("Wie heißt mein 🐕?", user, "friday", retrieve_k=2)
                gate, rerank = service.ledger.one(GateDecided, asked), service.ledger.one(RerankDecided, asked)
                body = upstream.calls_of("scores")[-1].body
                turn = service.ledger.one(TurnRecorded, asked)
                assert gate.call is not None
                assert rerank.call is not None
                assert turn.call is not None
                assert by_hand(sent(service, "gate")) == gate.call.messages_hash
                assert by_hand([body["query"], body["documents"]]) == rerank.call.messages_hash
                assert by_hand(sent(service, "answer")) == turn.call.messages_hash

    @pytest.mark.parametrize(
        "refuses",
        [(), ("json_schema",), ("json_schema", "json_object"), ("system",), ("max_tokens", "temperature")],
        ids=str,
    )
    def test_is_proved_in_every_dialect(self, tmp_path: Path, user: str, refuses: tuple[str, ...]) -> None:
        with (
            ScriptedUpstream(refuses=refuses) as upstream,
            remembering(upstream, tmp_path, user, decision_extra_body={"seed": 7}) as service,
        ):
            asked = service.client.tell(QUESTION, user, "friday", retrieve_k=2, use_rerank=True)
            service.settle()
            trace = explained(service, asked.id, "--json").json
            assert trace["prompt"]["proof"] == "same_as_sent", trace["prompt"]["note"]
            assert trace["prompt"]["messages"] == sent(service, "answer")
            assert set(trace["calls"]) == {"gate", "rerank", "summary"}
            for stage, made in trace["calls"].items():
                assert made["proof"] == "same_as_sent", (stage, made["note"])
                assert made["messages"] == sent(service, stage)
            gate, rerank = service.ledger.one(GateDecided, asked), service.ledger.one(RerankDecided, asked)
            check_call(gate.call, service, "gate")
            check_call(rerank.call, service, "rerank")
            assert gate.call is not None
            assert gate.call.request["seed"] == 7
            turn = service.ledger.one(TurnRecorded, asked)
            check_call(turn.call, service, "answer")
            assert turn.call is not None
            assert turn.call.attempts == 1  # what was learned before is not tried again

    def test_is_proved_where_lines_were_shortened_and_candidates_left_out(self, tmp_path: Path, user: str) -> None:
        with ScriptedUpstream() as upstream, running(upstream, tmp_path, llm_context_tokens=2048) as service:
            upstream.responders["gate"] = gate_keeps_all
            service.tell_all([f"Bruno the dog met cat {n}. {'It purred and ran away. ' * 20}" for n in range(30)], user)
            service.settle()
            asked = service.client.tell(f"What did Bruno the dog meet? {'Tell me. ' * 300}", user, "friday")
            gate = service.ledger.one(GateDecided, asked)
            assert gate.asked is not None
            assert gate.asked.candidates < len(gate.verdicts)
            assert gate.asked.line_chars < 400
            trace = explained(service, asked.id, "--json").json
            assert trace["calls"]["gate"]["proof"] == "same_as_sent"
            assert trace["calls"]["gate"]["messages"] == sent(service, "gate")
            fates = [candidate["fate"] for candidate in trace["candidates"]]
            assert fates.count("not_asked") > 0

    def test_is_proved_for_a_rerank_endpoint(self, tmp_path: Path, user: str) -> None:
        with ScriptedUpstream() as upstream:
            settings = {"rerank_base_url": upstream.base_url, "rerank_model": RERANK_MODEL}
            with remembering(upstream, tmp_path, user, **settings) as service:
                asked = service.client.tell(QUESTION, user, "friday", retrieve_k=2)
                trace = explained(service, asked.id, "--json").json
                assert trace["calls"]["rerank"]["proof"] == "same_as_sent"
                body = service.upstream.calls_of("scores")[-1].body
                assert trace["calls"]["rerank"]["messages"][0]["content"].split("\n") == [
                    body["query"],
                    *body["documents"],
                ]

    def test_differs_where_the_event_says_otherwise(self, service: Running, user: str) -> None:
        service.upstream.responders["gate"] = gate_keeps_all
        service.tell_all(FACTS, user)
        service.settle()
        asked = service.client.tell(QUESTION, user, "friday")
        with audit_reader(service) as reader:
            trace = trace_of(reader, reader.events_of_answer(asked.id))
            prompt_text = reader.prompt_text
            assert trace.gate is not None
            assert trace.gate.asked is not None
            assert trace.retrieval is not None
            assert trace.turn is not None
            one_less = trace.gate.asked.model_copy(update={"candidates": trace.gate.asked.candidates - 1})
            for gate, proof in (
                (trace.gate, "same_as_sent"),
                (trace.gate.model_copy(update={"asked": one_less}), "differs"),
                (trace.gate.model_copy(update={"asked": None}), "not_possible"),
            ):
                made = gate_prompt(gate, trace.retrieval, trace.turn.ts, prompt_text, trace.memories)
                assert made is not None
                assert made.proof == proof


class TestACallThatFailed:
    def test_of_the_answer_is_recorded_and_proved(self, service: Running, user: str) -> None:
        service.upstream.responders["gate"] = gate_keeps_all
        service.tell_all(FACTS, user)
        service.settle()
        service.upstream.fail("answer", Fault(status=500, message="no luck"))
        service.client.ask(QUESTION, user, "friday", messages=[{"role": "user", "content": QUESTION}])
        [failed] = service.ledger.all(TurnFailed, user, "friday")
        assert failed.call is not None
        assert len(failed.replayed) == 4
        trace = explained(service, "--last", "--user", user, "--json").json
        assert trace["prompt"]["proof"] == trace["calls"]["gate"]["proof"] == "same_as_sent"
        assert trace["prompt"]["messages"] == sent(service, "answer")

    def test_in_the_middle_of_a_stream(self, service: Running, user: str) -> None:
        service.upstream.fail("answer", Fault(after_chunks=2, close=True))
        service.client.ask(QUESTION, user, stream=True)
        until("it is recorded", lambda: service.ledger.all(TurnFailed, user))
        [failed] = service.ledger.all(TurnFailed, user)
        assert failed.call is not None
        assert failed.prompt is not None
        assert failed.partial_assistant

    def test_of_the_gate_and_of_the_summary(self, tmp_path: Path, user: str) -> None:
        with (
            ScriptedUpstream() as upstream,
            remembering(upstream, tmp_path, user, summary_attempts=1) as service,
        ):
            upstream.fail("gate", Fault(status=500))
            upstream.fail("summary", Fault(status=500))
            asked = service.client.tell(QUESTION, user, "friday")
            until("it is given up", lambda: service.ledger.all(SummaryFailed, user, "friday"))
            trace = explained(service, asked.id, "--json").json
            assert trace["gate"]["outcome"] == "fallback"
            for stage in ("gate", "summary"):
                assert trace["calls"][stage]["proof"] == "same_as_sent", stage
                assert trace["calls"][stage]["messages"] == sent(service, stage)

    def test_tokens_of_each_attempt_at_a_summary_count(self, tmp_path: Path, user: str) -> None:
        with ScriptedUpstream() as upstream, running(upstream, tmp_path, summary_attempts=2) as service:
            upstream.fail("summary", Fault(content="<think>Hm.</think>"))
            service.client.tell(DOG, user)
            service.settle()
            [summary] = service.ledger.all(SummaryRecorded, user)
            assert summary.attempts == 2
            assert summary.usage is not None
            assert summary.usage.completion_tokens > 3


def test_every_attempt_at_the_summary_of_an_imported_memory_is_proved(tmp_path: Path) -> None:
    """It belongs to no answer, so its summary is found by what it is about."""
    storage = tmp_path / "storage"
    storage.mkdir()
    new_ledger_file(storage)
    export = written(tmp_path / "export.json", [chatgpt("c1", "My cat is called Miso.", "Nice.")])
    assert opm(environment(storage), "import", str(export), "--user", "ann").status == 0
    with ScriptedUpstream() as upstream:
        upstream.fail_always("summary", Fault(status=500))
        with running(upstream, storage) as first:
            [memory] = first.client.get("/v1/memories", user="ann").json()["data"]
            conversation = memory["conversation_id"]
            until("it failed", lambda: first.ledger.all(SummaryFailed, "ann", conversation))
        failed = upstream.calls_of("summary")[-1].body["messages"]
        upstream.heal()
        with running(upstream, storage) as second:
            until("it is there", lambda: second.ledger.all(SummaryRecorded, "ann", conversation))
            trace = explained(second, memory["memory_id"], "--json").json
            assert trace["calls"]["summary"]["proof"] == "same_as_sent"
            assert trace["calls"]["summary"]["messages"] == sent(second, "summary")
            assert [made["proof"] for made in trace["summary_attempts"]] == ["same_as_sent"]
            assert trace["summary_attempts"][0]["messages"] == failed
            told = explained(second, memory["memory_id"], "--prompt-of", "summary").out
            assert told.count("the same as sent") == 2
            assert "no model was asked" not in told
            report = opm(environment(storage), "report", "--user", "ann").out
            assert "failed summary: the same as sent" in report

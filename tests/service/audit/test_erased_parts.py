"""What an erasure took from an answer that stays is told as erased, and by which event: never as if it had not been."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from domain.clock import iso
from domain.events import Erased as BlankedEvent
from domain.events import Event, MemoriesErased
from domain.identity import user_stream
from tests.ledgers import opened
from tests.service.audit.test_explain import DOG, DOG_QUESTION
from tests.service.opm import Ran, environment, opm
from tests.service.running import Answer, Running, running
from tests.upstream import ScriptedUpstream, gate_keeps_all

REASON = "asked by letter"


@dataclass(frozen=True)
class Erased:
    """An answer that was given with a memory, which was erased since with all that says anything about it."""

    service: Running
    answer: Answer
    memory_id: str
    erasure: Event

    def opm(self, *arguments: str) -> Ran:
        return opm(environment(self.service.ledger.path.parent), *arguments)

    @property
    def said(self) -> str:
        return f"erased by MemoriesErased {self.erasure.event_id}, {iso(self.erasure.recorded_at)}: {REASON}"


@pytest.fixture(params=["gate", "rerank", "both"])
def erased(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Erased]:
    with ScriptedUpstream() as upstream, running(upstream, tmp_path, use_rerank_default=True) as service:
        upstream.responders["gate"] = gate_keeps_all
        memory_id, _ = service.tell_all([DOG, "The dog Bruno likes cheese."], "ann")
        service.settle()
        # Decisions in words are erased with a memory that they are about.
        for kind in ("gate", "rerank"):
            if request.param in (kind, "both"):
                upstream.say(kind, "The dog called Bruno matters most.")
        answer = service.client.tell(DOG_QUESTION, "ann", "friday", retrieve_k=1)
        service.settle()
        folder = environment(tmp_path)
        ran = opm(folder, "erase", "-u", "ann", "--memory", memory_id, "--reason", REASON, "--yes")
        assert ran.status == 0, ran.err
        own = user_stream("ann")
        [begun] = [
            e for e in service.ledger.stream("ann", own.conversation_id) if isinstance(e.payload, MemoriesErased)
        ]
        yield Erased(service, answer, memory_id, begun)


def kinds_erased(erased: Erased) -> set[str]:
    return set(erased.opm("explain", erased.answer.id, "--json").json["erased"])


def test_a_decision_is_not_told_as_one_that_no_model_made(erased: Erased) -> None:
    kinds = kinds_erased(erased)
    assert kinds
    assert kinds <= {"GateDecided", "RerankDecided"}
    stages = {"RerankDecided": ["rerank"], "GateDecided": ["gate"]}
    whole = erased.opm("explain", erased.answer.id, "--full", "--no-prompt").out
    report = erased.opm("report", "--user", "ann").out
    for kind in kinds:
        for stage in stages[kind]:
            ran = erased.opm("explain", erased.answer.id, "--prompt-of", stage)
            assert ran.status == 0
            assert erased.said in " ".join(ran.out.split())
            assert kind in ran.out
            assert "no model was asked" not in ran.out
            assert f"{stage.title()}: {erased.said}" in " ".join(whole.split())
            assert f"{stage.title()}: none" not in report
            assert f"{stage.title()}: {erased.said}" in report.replace("\\", "")


def test_a_memory_is_told_as_erased_wherever_the_answer_names_it(erased: Erased) -> None:
    trace = erased.opm("explain", erased.answer.id, "--json").json
    assert DOG not in json.dumps(trace["candidates"])
    since = {candidate["memory_id"]: candidate["since"] for candidate in trace["candidates"]}[erased.memory_id]
    assert (since["what"], since["by"]) == ("erased", erased.erasure.event_id)
    for ran in (erased.opm("explain", erased.answer.id, "--full"), erased.opm("report", "--user", "ann")):
        assert ran.status == 0, ran.err
        assert "not in the ledger" not in ran.out
        assert erased.said in " ".join(ran.out.replace("\\", "").split())


def test_a_prompt_that_showed_it_says_so(erased: Erased) -> None:
    prompt = erased.opm("explain", erased.answer.id, "--json").json["prompt"]
    assert prompt["proof"] == "not_possible"
    assert erased.said in prompt["note"]


def test_the_report_says_what_was_erased_and_how_much_is_blanked(erased: Erased) -> None:
    report = erased.opm("report", "--user", "ann").out.replace("\\", "")
    [row] = [line for line in report.splitlines() if "| erased (memory) |" in line]
    assert REASON in row
    assert "1 memories" in row
    assert "opm erase" in row
    with opened(erased.service.ledger.path) as ledger:
        blanked = sum(isinstance(event.payload, BlankedEvent) for event in ledger.reader.events_after(0, 10_000))
    assert f"but for {blanked} that erasures have blanked" in report


def test_an_erased_answer_has_no_prompt_that_never_was(erased: Erased) -> None:
    answered = erased.answer.memory("turn")["memory_id"]
    assert erased.opm("erase", "-u", "ann", "--memory", answered, "--yes").status == 0
    for stage in ("gate", "rerank", "answer", "summary"):
        ran = erased.opm("explain", erased.answer.id, "--prompt-of", stage)
        assert ran.status == 0
        assert "erased by MemoriesErased" in ran.out
        assert "no model was asked" not in ran.out
    assert "erased by" in erased.opm("explain", erased.answer.id).out

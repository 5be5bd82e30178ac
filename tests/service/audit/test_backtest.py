"""``opm backtest`` finds again what happened while nothing is changed, and says what would have changed else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from domain.audit_reader import AuditReader
from domain.events import GateDecided, RetrievalRecorded
from domain.identity import file_name
from domain.sqlite import open_engine
from tests.ledgers import ROOT
from tests.service.audit.test_explain import withdraw
from tests.service.opm import Ran, environment, opm
from tests.service.running import Running, running
from tests.upstream import RERANK_MODEL, UNTIL_RELEASED, Fault, ScriptedUpstream, gate_drops_all, gate_keeps_all

USER = "ann/1"
FACTS = [
    "My dog is called Bruno.",
    "The dog Bruno likes cheese.",
    "The dog Bruno sleeps near the oven.",
    "The dog met a cat in Oslo.",
    "I live in Oslo near the river.",
]
QUESTIONS = ["What is the name of my dog?", "Does my dog Bruno like cheese?", "Where in Oslo do I live?"]


def converse(service: Running, **knobs: Any) -> None:
    """Tell facts and ask about them, in between each other, with an edit and a withdrawal on the way."""
    told = service.tell_all(FACTS[:2], USER)
    service.settle()
    service.client.tell(QUESTIONS[0], USER, "q1", **knobs)
    told += service.tell_all(FACTS[2:4], USER)
    service.client.tell(QUESTIONS[1], USER, "q2", **knobs)
    service.settle()
    withdraw(service, USER, "facts", told[1], edit_to="The dog Bruno likes ham.")
    service.client.tell(QUESTIONS[1], USER, "q3", **knobs)
    withdraw(service, USER, "facts", told[0])
    service.tell_all(FACTS[4:], USER)
    for question in QUESTIONS:
        service.client.tell(question, USER, "q4", **knobs)
    service.settle()


ASKED = 6


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as upstream:
        upstream.embedding_models = ("scripted-embedding", "other-embedding")
        yield upstream


@pytest.fixture(scope="module")
def storage(upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llm")
    with running(upstream, folder) as service:
        converse(service, retrieve_k=1, candidate_n=3)
    return folder


@pytest.fixture(autouse=True)
def healthy(upstream: ScriptedUpstream) -> Iterator[None]:
    responders = dict(upstream.responders)
    upstream.forget_calls()
    yield
    upstream.responders.update(responders)
    upstream.heal()
    upstream.release()


@contextmanager
def opened_reader(storage: Path) -> Iterator[AuditReader]:
    engine = open_engine(storage / "ledger.sqlite3", writer=False)
    try:
        yield AuditReader(engine)
    finally:
        engine.dispose()


def head_of(storage: Path) -> tuple[int, str]:
    with opened_reader(storage) as audit:
        return audit.head()


def backtest(storage: Path, upstream: ScriptedUpstream, *arguments: str, **variables: str) -> Ran:
    return opm(environment(storage, upstream, **variables), "backtest", "--user", USER, "--since", "0", *arguments)


def report(storage: Path, upstream: ScriptedUpstream, *arguments: str, **variables: str) -> Any:
    ran = backtest(storage, upstream, "--json", "--fresh", *arguments, **variables)
    assert ran.status == 0, ran.err
    assert ran.json["complete"]
    return ran.json


class TestNothingChanged:
    def test_every_question_gets_what_it_got_without_a_call(self, storage: Path, upstream: ScriptedUpstream) -> None:
        before = head_of(storage)
        found = report(storage, upstream)
        assert found["totals"]["questions"] == ASKED
        assert found["totals"]["exact"] == ASKED
        assert found["totals"]["agreement"] == found["totals"]["agreement_replayed"] == 1.0
        assert found["totals"]["spent"]["calls"] == 0
        assert found["totals"]["spent_then"]["calls"] > ASKED
        assert found["left_out"] == {"memory was not asked": len(FACTS)}
        assert found["memories"] == []
        assert not upstream.calls_of("gate", "rerank", "answer", "summary")
        assert head_of(storage) == before

    def test_also_when_the_model_is_asked_again(self, storage: Path, upstream: ScriptedUpstream) -> None:
        found = report(storage, upstream, "--ask-again")
        assert found["totals"]["exact"] == ASKED
        assert all(
            question["then"]["candidates"] == question["now"]["candidates"] for question in found["per_question"]
        )
        assert found["totals"]["spent"] == found["totals"]["spent_then"]
        assert len(upstream.calls_of("gate", "rerank")) == found["totals"]["spent"]["calls"] > ASKED

    def test_with_the_gate_by_score(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        with running(upstream, tmp_path, gate="score", gate_score_min=0.1, use_rerank_default=False) as service:
            converse(service, retrieve_k=1)
            [decided, *_] = service.ledger.all(GateDecided, USER, "q4")
            assert decided.strategy == "score"
        found = report(tmp_path, upstream)
        assert found["totals"]["questions"] == ASKED
        assert found["totals"]["exact"] == ASKED
        assert found["totals"]["spent"]["calls"] == found["totals"]["spent_then"]["calls"] == 0

    def test_with_a_rerank_endpoint_while_it_is_there(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        upstream.responders["gate"] = gate_keeps_all
        endpoint = {"rerank_base_url": upstream.base_url, "rerank_model": RERANK_MODEL}
        with running(upstream, tmp_path, **endpoint) as service:
            converse(service, retrieve_k=1)
        upstream.forget_calls()
        variables = {name.upper(): value for name, value in endpoint.items()}
        assert report(tmp_path, upstream, **variables)["totals"]["spent"]["calls"] == 0
        again = report(tmp_path, upstream, "--ask-again", RERANKER="llm", **variables)
        assert again["totals"]["exact"] == ASKED
        assert upstream.calls_of("scores")
        assert not upstream.calls_of("rerank")
        upstream.forget_calls()
        assert report(tmp_path, upstream, "--ask-again")["complete"]
        assert upstream.calls_of("rerank")
        assert not upstream.calls_of("scores")


class TestSomethingChanged:
    def test_more_replayed(self, storage: Path, upstream: ScriptedUpstream) -> None:
        found = report(storage, upstream, "--retrieve-k", "3")
        assert found["totals"]["came_in"] == found["totals"]["went_out"] == 0
        assert found["totals"]["agreement"] == 1.0
        assert found["totals"]["agreement_replayed"] < 1.0
        moved = [question["replayed_instead"] for question in found["per_question"] if not question["exact"]]
        assert moved
        assert all(moved)
        assert not upstream.calls_of("gate")

    def test_without_a_gate(self, storage: Path, upstream: ScriptedUpstream) -> None:
        found = report(storage, upstream, "--no-gate")
        for question in found["per_question"]:
            assert set(question["now"]["replayed"] + question["now"]["summaries"]) == set(question["now"]["candidates"])
            assert question["went_out"] == []
        assert found["totals"]["came_in"] == sum(memory["came_in"] for memory in found["memories"]) > 0

    def test_fewer_candidates(self, storage: Path, upstream: ScriptedUpstream) -> None:
        found = report(storage, upstream, "--candidate-n", "1")
        assert all(len(question["now"]["candidates"]) <= 1 for question in found["per_question"])
        assert found["totals"]["went_out"] > 0

    def test_another_gate_model_is_asked_under_its_name(self, storage: Path, upstream: ScriptedUpstream) -> None:
        upstream.responders["gate"] = gate_drops_all
        found = report(storage, upstream, "--gate-model", "scripted-chat")
        assert all(question["now"]["replayed"] == [] for question in found["per_question"])
        assert found["totals"]["went_out"] > 0
        assert {call.body["model"] for call in upstream.calls_of("gate")} == {"scripted-chat"}
        assert found["totals"]["spent"]["prompt_tokens"] > 0

    def test_another_embedding_model_through_the_cache(self, storage: Path, upstream: ScriptedUpstream) -> None:
        first = report(storage, upstream, "--embedding-model", "other-embedding")
        assert first["settings"]["embedding_model"] == "other-embedding"
        assert first["totals"]["memories_embedded"] > 0
        again = report(storage, upstream, "--embedding-model", "other-embedding")
        assert again["totals"]["memories_embedded"] == 0
        assert again["per_question"] == first["per_question"]

    def test_by_words_or_by_vectors_instead_of_both(self, storage: Path, upstream: ScriptedUpstream) -> None:
        assert report(storage, upstream, "--retrieval", "hybrid", "--ask-again")["totals"]["exact"] == ASKED
        dense = report(storage, upstream, "--retrieval", "dense")
        assert dense["totals"]["questions"] == ASKED
        assert dense["settings"]["retrieval"] == "dense"
        found = report(storage, upstream, "--retrieval", "lexical", "--no-gate", "--candidate-n", "50")
        asked = next(question for question in found["per_question"] if question["question"] == QUESTIONS[2])
        with opened_reader(storage) as audit:
            events = audit.events_named(asked["now"]["candidates"])
            said = audit.memories(USER, [event.position for event in events.values()], as_of=asked["position"])
        # Vectors always find something; words only what shares one.
        assert said
        assert all({"oslo", "live"} & set(re.findall(r"\w+", memory.line.lower())) for memory in said.values())
        assert found["totals"]["questions_embedded"] == 0

    def test_only_the_questions_of_the_period(self, storage: Path, upstream: ScriptedUpstream) -> None:
        asked = report(storage, upstream)["per_question"]
        middle = str(asked[2]["position"])
        later = opm(
            environment(storage, upstream), "backtest", "--user", USER, "--since", middle, "--json", "--fresh"
        ).json
        earlier = report(storage, upstream, "--until", middle)
        assert [q["question_id"] for q in earlier["per_question"]] == [q["question_id"] for q in asked[:3]]
        assert [q["question_id"] for q in later["per_question"]] == [q["question_id"] for q in asked[3:]]
        assert report(storage, upstream, "--limit", "3")["totals"]["questions"] < ASKED


class TestInterrupted:
    def test_a_killed_run_goes_on_where_it_was(self, storage: Path, upstream: ScriptedUpstream) -> None:
        arguments = ["--user", USER, "--since", "0", "--ask-again", "--concurrency", "1", "--name", "killed"]
        upstream.fail("gate", Fault(), Fault(), Fault(hang_s=UNTIL_RELEASED))
        process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "backtest", *arguments],
            env={"PATH": "", "PYTHONPATH": str(ROOT), **environment(storage, upstream)},
            cwd=storage,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        upstream.wait_for("gate", 3, timeout=60)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        upstream.release()
        upstream.heal()
        path = storage / "users" / file_name(USER) / "backtests" / "killed.jsonl"
        assert len(path.read_bytes().splitlines()) == 2
        with path.open("ab") as file:
            file.write(b'{"key": "torn')
        upstream.forget_calls()
        ran = backtest(storage, upstream, "--ask-again", "--name", "killed", "--json")
        assert ran.status == 0
        assert ran.json["resumed"] == 2
        assert ran.json["totals"]["exact"] == ASKED
        assert len(upstream.calls_of("gate")) == ASKED - 2
        assert all(json.loads(line) for line in path.read_bytes().splitlines())

    def test_results_of_other_settings_do_not_count(self, storage: Path, upstream: ScriptedUpstream) -> None:
        backtest(storage, upstream, "--name", "shared", "--fresh")
        other = backtest(storage, upstream, "--name", "shared", "--no-gate", "--json").json
        assert other["resumed"] == 0
        assert backtest(storage, upstream, "--name", "shared", "--json").json["resumed"] == ASKED

    def test_a_setting_of_zero_is_one_of_its_own(self, storage: Path, upstream: ScriptedUpstream) -> None:
        backtest(storage, upstream, "--name", "zero", "--fresh")
        none_replayed = backtest(storage, upstream, "--name", "zero", "--retrieve-k", "0", "--json").json
        assert none_replayed["resumed"] == 0
        assert all(question["now"]["replayed"] == [] for question in none_replayed["per_question"])
        assert none_replayed["settings"]["retrieve_k"] == 0

    def test_a_chat_model_that_is_away_ends_with_1_and_is_asked_again(
        self, storage: Path, upstream: ScriptedUpstream
    ) -> None:
        upstream.fail_always("gate", Fault(status=503))
        ran = backtest(storage, upstream, "--ask-again", "--name", "away", "--json", "--concurrency", "1")
        assert ran.status == 1
        assert "run it again to continue" in ran.err
        assert not ran.json["complete"]
        assert len(upstream.calls_of("gate")) == 3
        upstream.heal()
        ran = backtest(storage, upstream, "--ask-again", "--name", "away", "--json")
        assert ran.status == 0
        assert ran.json["totals"]["exact"] == ASKED

    def test_one_decision_that_fails_does_not_end_the_run(self, storage: Path, upstream: ScriptedUpstream) -> None:
        upstream.fail("gate", Fault(status=503))
        ran = backtest(storage, upstream, "--ask-again", "--name", "one", "--json", "--concurrency", "1")
        assert ran.status == 1
        assert (ran.json["unanswered"], ran.json["totals"]["questions"]) == (1, ASKED - 1)

    def test_an_embedding_model_that_is_away(self, storage: Path, upstream: ScriptedUpstream) -> None:
        upstream.fail("embed", Fault(), Fault(), Fault(status=503))
        ran = backtest(storage, upstream, "--fresh", "--name", "embed", "--json")
        assert ran.status == 1
        assert ran.json["totals"]["questions"] == 1
        assert backtest(storage, upstream, "--name", "embed", "--json").json["resumed"] == 1


class TestTheReport:
    def test_for_a_person(self, storage: Path, upstream: ScriptedUpstream) -> None:
        told = backtest(storage, upstream, "--no-gate", "--fresh")
        assert told.status == 0
        for part in ("agreement", "came in", "spent", "Questions that would", "Memories that came in", QUESTIONS[2]):
            assert part in told.out, part
        assert max(map(cell_len, told.out.splitlines())) <= 120

    def test_as_a_page_of_its_own_in_which_all_is_escaped(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        script = "<script>alert(1)</script> & <b>dog</b>"
        with running(upstream, tmp_path) as service:
            told = service.tell_all([f"My dog is {script}"], USER)
            service.settle()
            service.client.tell(f"My dog {script}?", USER, "q")
            upstream.responders["gate"] = gate_drops_all
            service.client.tell(f"Is my dog {script}?", USER, "q", recent_turns=0)
            service.settle()
            assert told
        page = tmp_path / "report.html"
        assert backtest(tmp_path, upstream, "--no-gate", "--html", str(page)).status == 0
        text = page.read_text(encoding="utf-8")
        tags: list[str] = []

        class Tags(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                tags.append(tag)
                assert not {name for name, _ in attrs} & {"src", "href", "onclick"}

        Tags().feed(text)
        assert "script" not in tags
        assert "b" not in tags
        assert "&lt;script&gt;" in text
        assert "color-scheme: light dark" in text
        assert not re.search(r"https?://", text)

    def test_what_was_forgotten_since_is_not_shown(self, storage: Path, upstream: ScriptedUpstream) -> None:
        ran = backtest(storage, upstream, "--gate-model", "scripted-chat", "--candidate-n", "0", "--json", "--fresh")
        # Later answers quote what was forgotten; they are memories of their own, and nobody has withdrawn them.
        assert [memory["note"] for memory in ran.json["memories"]].count("(forgotten or superseded since)") == 1


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (["--no-gate", "--gate", "score"], "--no-gate"),
            (["--gate-model", "m", "--gate", "off"], "--gate-model = 'm'"),
            (["--emb-base-url", "http://x/v1"], "--emb-base-url"),
            (["--html", "/nowhere/at/all.html"], "--html"),
            (["--until", "0", "--since", "1"], "--until"),
        ],
    )
    def test_is_named(self, storage: Path, upstream: ScriptedUpstream, arguments: list[str], named: str) -> None:
        told = backtest(storage, upstream, *arguments)
        assert told.status == 2
        assert named in told.err

    def test_nobody(self, storage: Path, upstream: ScriptedUpstream) -> None:
        told = opm(environment(storage, upstream), "backtest", "--user", "nobody", "--since", "0")
        assert (told.status, "--user = 'nobody'" in told.err) == (2, True)


def test_degraded_questions_are_left_out(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path) as service:
        service.tell_all(FACTS[:1], USER)
        service.settle()
        upstream.fail("embed", Fault(status=503))
        asked = service.client.tell(QUESTIONS[0], USER, "q")
        assert service.ledger.one(RetrievalRecorded, asked).outcome == "degraded"
        service.settle()
    assert report(tmp_path, upstream)["left_out"] == {"memory was degraded": 1, "memory was not asked": 1}


def test_a_question_too_long_to_be_embedded_is_replayed_by_its_beginning(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    with running(upstream, tmp_path) as service:
        service.tell_all(FACTS, USER)
        service.settle()
        upstream.max_input_chars = 2000
        try:
            service.client.tell(QUESTIONS[0] + " Think!" * 400, USER, "q")
            service.settle()
            found = report(tmp_path, upstream)["totals"]
            assert (found["questions"], found["exact"]) == (1, 1)
        finally:
            upstream.max_input_chars = None


def test_a_question_that_cannot_be_embedded_at_all_is_left_out(storage: Path, upstream: ScriptedUpstream) -> None:
    upstream.fail("embed", Fault(), Fault(status=400))
    found = report(storage, upstream)
    assert found["left_out"]["its question cannot be embedded"] == 1
    assert found["totals"]["questions"] == ASKED - 1

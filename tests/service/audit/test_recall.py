"""``opm recall`` finds what a turn finds, and as of an earlier position what a turn would have found then."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from rich.cells import cell_len

from domain.clock import iso
from domain.events import RetrievalRecorded
from tests.ledgers import ROOT
from tests.service.audit.test_explain import withdraw
from tests.service.opm import Ran, environment, opm
from tests.service.running import Running, running, someone
from tests.upstream import Fault, ScriptedUpstream

FACTS = ["My dog is called Bruno.", "The dog Bruno likes cheese.", "I live in Oslo."]
QUESTION = "What is the name of my dog?"


def storage_of(service: Running) -> Path:
    return service.ledger.path.parent


def recalled(service: Running, user: str, *arguments: str, query: str = QUESTION) -> Ran:
    variables = environment(storage_of(service), service.upstream)
    only_projections = {name: value for name, value in variables.items() if not name.startswith("LLM_")}
    return opm(only_projections, "recall", query, "--user", user, *arguments)


def lines(ran: Ran) -> dict[str, str]:
    """Return the memories that came: their summary or question by id."""
    assert ran.status == 0, ran.err
    return {memory["memory_id"]: memory["summary"] or memory["user"] for memory in ran.json["memories"]}


class TestNow:
    def test_it_finds_what_a_turn_finds_with_the_same_scores(self, service: Running, user: str) -> None:
        service.tell_all(FACTS, user)
        service.settle()
        found = recalled(service, user, "--json").json["memories"]
        asked = service.client.tell(QUESTION, user, "friday", recent_turns=0)
        candidates = service.ledger.one(RetrievalRecorded, asked).candidates
        assert [(memory["memory_id"], round(memory["score"], 6)) for memory in found] == [
            (candidate.memory_id, candidate.score) for candidate in candidates
        ]

    def test_the_ledger_stays_as_it_is(self, service: Running, user: str) -> None:
        service.tell_all(FACTS, user)
        service.settle()
        head = service.ledger.reader.head()
        assert recalled(service, user).status == 0
        assert service.ledger.reader.head() == head

    def test_as_many_as_are_asked_for(self, service: Running, user: str) -> None:
        service.tell_all(FACTS, user)
        assert len(recalled(service, user, "-n", "2", "--json").json["memories"]) == 2

    def test_for_a_person(self, service: Running, user: str) -> None:
        [memory_id, *_] = service.tell_all([*FACTS, "我的猫叫豆豆。" * 30], user)
        service.settle()
        position = service.ledger.reader.head_position()
        withdraw(service, user, "facts", memory_id, edit_to="The dog is called Bello.")
        told = recalled(service, user, "--at", str(position)).out
        assert f"at position {position} of {position + 1}" in told
        assert f"edited at {position + 1}" in told
        assert "facts 1" in told
        assert max(map(cell_len, told.splitlines())) <= 120
        assert "Bello" in recalled(service, user, "--full").out

    def test_never_another_users(self, service: Running, user: str) -> None:
        service.tell_all(FACTS, user)
        other = someone()
        service.tell_all(["I keep axolotls."], other)
        assert all("Bruno" not in line for line in lines(recalled(service, other, "--json")).values())

    def test_as_a_process_without_the_chat_settings(self, service: Running, user: str) -> None:
        service.tell_all(FACTS, user)
        variables = {
            "STORAGE_DIR": str(storage_of(service)),
            "EMB_BASE_URL": service.upstream.base_url,
            "EMB_MODEL": service.upstream.embedding_model,
        }
        ran = subprocess.run(
            [sys.executable, "-m", "service.cli", "recall", QUESTION, "--user", user, "--json"],
            env={"PATH": "", "PYTHONPATH": str(ROOT), **variables},
            cwd=storage_of(service),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert len(json.loads(ran.stdout)["memories"]) == 3


class TestThen:
    def test_before_and_after_an_edit_and_a_withdrawal(self, service: Running, user: str) -> None:
        told = service.tell_all(FACTS, user)
        service.settle()
        before = service.ledger.reader.head_position()
        withdraw(service, user, "facts", told[0], edit_to="The dog is called Bello.")
        edited = service.ledger.reader.head_position()
        withdraw(service, user, "facts", told[0])
        [then, corrected, now] = [
            lines(recalled(service, user, "--json", *at)) for at in (["--at", str(before)], ["--at", str(edited)], [])
        ]
        assert "Bruno" in then[told[0]]
        assert corrected[told[0]] == "The dog is called Bello."
        assert told[0] not in now
        assert now.keys() == then.keys() - {told[0]}
        since = {
            m["memory_id"]: m["since"] for m in recalled(service, user, "--json", "--at", str(before)).json["memories"]
        }
        assert since[told[0]]["what"] == "forgotten"
        assert since[told[1]] is None

    def test_a_corrected_text_is_found_by_its_new_words_only_after_the_edit(self, service: Running, user: str) -> None:
        told = service.tell_all(["I have an unusual pet."], user)
        service.settle()
        before = service.ledger.reader.head_position()
        withdraw(service, user, "facts", told[0], edit_to="Axolotls swim at home.")
        [then, now] = [
            recalled(service, user, "--json", *at, query="axolotls swim").json["memories"][0]
            for at in (["--at", str(before)], [])
        ]
        assert then["scores"]["dense"] < 0.3 < now["scores"]["dense"]
        assert then["ranks"]["lexical"] is None
        assert now["ranks"]["lexical"] == 1

    def test_every_earlier_turn_is_found_again_as_it_was(self, service: Running, user: str) -> None:
        asked = []
        for number, fact in enumerate([*FACTS, "The dog Bruno met cat number 5."]):
            service.client.tell(fact, user, "facts", candidate_n=0)
            if number % 2:
                service.settle()
            asked.append(service.client.tell(QUESTION, user, f"ask {number}", recent_turns=0))
        service.settle()
        for answer in asked:
            retrieval = service.ledger.one(RetrievalRecorded, answer)
            again = recalled(service, user, "--json", "--at", str(retrieval.index_position)).json["memories"]
            assert [(m["memory_id"], round(m["scores"]["dense"], 6)) for m in again] == [
                (c.memory_id, c.dense_score) for c in retrieval.candidates
            ]

    def test_by_date(self, service: Running, user: str) -> None:
        told = service.tell_all(FACTS[:1], user)
        service.settle()
        [first] = [event for event in service.ledger.stream(user, "facts") if event.event_id == told[0]]
        service.tell_all(FACTS[1:2], user)
        after = iso(first.recorded_at + timedelta(microseconds=1))
        assert list(lines(recalled(service, user, "--json", "--at", after))) == told
        assert not lines(recalled(service, user, "--json", "--at", f"{first.recorded_at:%Y-%m-%d}"))
        assert "Nothing was found" in recalled(service, user, "--at", "2020-01-01").out

    @pytest.mark.parametrize(
        ("at", "said"), [("999999", "the ledger ends at position"), ("soon", "give a ledger position, or a date")]
    )
    def test_a_moment_that_is_none_is_named(self, service: Running, user: str, at: str, said: str) -> None:
        service.tell_all(FACTS[:1], user)
        told = recalled(service, user, "--at", at)
        assert told.status == 2
        assert f"--at = '{at}'" in told.err
        assert said in told.err

    def test_nobody_is_named(self, service: Running) -> None:
        told = recalled(service, "nobody")
        assert told.status == 2
        assert "--user = 'nobody'" in told.err


class TestTheModelOfThen:
    def test_is_used_while_it_answers_and_said_when_it_does_not(self, tmp_path: Path) -> None:
        with ScriptedUpstream() as upstream:
            upstream.embedding_models = ("e5-old", "new-model")
            with running(upstream, tmp_path) as service:
                service.tell_all(FACTS, "ann")
                service.settle()
                asked = service.client.tell(QUESTION, "ann", "friday", recent_turns=0)
                then = service.ledger.one(RetrievalRecorded, asked)
                service.settle()
            swapped = environment(tmp_path, upstream, EMB_MODEL="new-model")
            ran = opm(swapped, "recall", QUESTION, "--user", "ann", "--at", str(then.index_position), "--json")
            assert ran.json["embedding_model"] == "e5-old"
            assert [round(m["score"], 6) for m in ran.json["memories"]] == [c.score for c in then.candidates]
            upstream.embedding_models = ("new-model",)
            ran = opm(swapped, "recall", QUESTION, "--user", "ann", "--at", str(then.index_position), "--json")
            assert ran.json["embedding_model"] == "new-model"
            assert "e5-old" in ran.json["notes"][0]
            assert len(ran.json["memories"]) == 3

    def test_where_none_answers_the_words_have_to_do(self, service: Running, user: str) -> None:
        told = service.tell_all([*FACTS, "我的猫叫豆豆。"], user)
        service.settle()
        service.upstream.fail_always("embed", Fault(status=503))
        ran = recalled(service, user, "--json", query="Bruno's cheese")
        assert ran.status == 0
        assert ran.json["mode"] == "lexical"
        assert "searched by words alone" in ran.json["notes"][0]
        assert ran.json["memories"][0]["memory_id"] == told[1]
        assert list(lines(recalled(service, user, "--json", query="豆豆"))) == told[3:]


class TestByWordsAlone:
    def test_no_endpoint_is_asked(self, service: Running, user: str) -> None:
        told = service.tell_all(FACTS, user)
        service.settle()
        before = service.ledger.reader.head_position()
        withdraw(service, user, "facts", told[0])
        service.upstream.forget_calls()
        then = recalled(service, user, "--no-embed", "--json", "--at", str(before), query="dog called Bruno")
        assert next(iter(lines(then))) == told[0]
        assert then.json["notes"] == []
        assert told[0] not in lines(recalled(service, user, "--no-embed", "--json", query="dog called Bruno"))
        assert "by words" in recalled(service, user, "--no-embed", query="dog called Bruno").out
        assert not service.upstream.calls
        unset = opm(environment(storage_of(service)), "recall", "dog", "--user", user, "--no-embed")
        assert unset.status == 0

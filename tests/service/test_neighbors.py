"""A replayed turn brings the turns beside it: in the prompt, in the event, in the answer and in the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from domain.events import RetrievalRecorded, TurnRecorded
from tests.service.opm import environment, opm
from tests.service.running import Answer, Running, running, someone
from tests.upstream import ScriptedUpstream

TALK = [f"Filler {word}." for word in ("amber", "birch")]
TALK += ["We drive to the cabin at Loch Ness.", "Yes, on Tuesday.", "Bring the red canoe."]
QUESTION = "Where is the cabin?"


@pytest.fixture(autouse=True)
def _answers_say_nothing(upstream: ScriptedUpstream) -> None:
    upstream.say("answer", "Noted.")


def ask(service: Running, user: str, reach: int | None, conversation: str = "later", **knobs: object) -> Answer:
    """Ask with room for one replayed turn: the one that speaks of the cabin."""
    given = {"retrieve_k": 1, **knobs} | ({} if reach is None else {"neighbor_turns": reach})
    return service.client.tell(QUESTION, user, conversation, **given)


def shown(answer: Answer) -> list[tuple[str, str | None]]:
    return [(item["raw_user"], item["neighbor_of"]) for item in answer.memory("retrieved")["replay"]]


def test_it_is_shown_in_order_and_reported_everywhere(service: Running, user: str) -> None:
    told = service.tell_all(TALK, user)
    answer = ask(service, user, 1)
    assert service.said() == [*TALK[1:4], QUESTION]
    assert shown(answer) == [(TALK[2], None), (TALK[1], told[2]), (TALK[3], told[2])]
    items = answer.memory("retrieved")["replay"]
    assert [item["score"] is None for item in items] == [False, True, True]
    turn = service.ledger.one(TurnRecorded, answer)
    assert (turn.replayed, turn.neighbours) == ((told[2],), (told[1], told[3]))
    stored = service.client.get("/v1/turns", user=user, conversation_id="later").json()["data"][0]
    assert stored["retrieved"] == answer.memory("retrieved")


def test_the_prompt_can_be_reconstructed_with_them(service: Running, user: str) -> None:
    service.tell_all(TALK, user)
    answer = ask(service, user, 2)
    service.settle()
    told = opm(environment(service.ledger.path.parent), "explain", answer.id, "--json").json["prompt"]
    assert told["proof"] == "same_as_sent"


@pytest.mark.parametrize(("reach", "expected"), [(0, TALK[2:3]), (2, TALK), (5, TALK), ("1", TALK[1:4])])
def test_the_knob_says_how_many_on_each_side(service: Running, user: str, reach: Any, expected: list[str]) -> None:
    service.tell_all(TALK, user)
    ask(service, user, reach)
    assert service.said() == [*expected, QUESTION]


def test_none_is_taken_from_the_recent_window_or_shown_twice(service: Running, user: str) -> None:
    service.tell_all(TALK, user, "now")
    ask(service, user, 5, "now", recent_turns=2)
    assert service.said() == [*TALK, QUESTION]


def test_a_neighbor_is_not_shown_as_a_summary_too(service: Running, user: str) -> None:
    facts = ["The cabin by Loch Ness is red.", "The cabin has a stove."]
    for reach, summaries in ((0, 1), (1, 0)):
        somebody = f"{user}-{reach}"
        service.tell_all(facts, somebody)
        assert len(ask(service, somebody, reach).summaries) == summaries
    assert service.said() == [*facts, QUESTION]


def test_another_users_turns_are_never_neighbors(service: Running, user: str) -> None:
    service.tell_all(TALK[:3], user, "shared name")
    service.tell_all(["A stranger's secret."] * 4, someone(), "shared name")
    ask(service, user, 5)
    assert service.said() == [*TALK[:3], QUESTION]


def test_the_budget_leaves_them_out_first(upstream: ScriptedUpstream, tmp_path: Path, user: str) -> None:
    with running(upstream, tmp_path, prompt_budget_tokens=256) as service:
        long_talk = ["First " + "well " * 400, TALK[2], "Last."]
        told = service.tell_all(long_talk, user)
        answer = ask(service, user, 1)
        report = service.ledger.report(answer)
        assert [(item.part, item.memory_id) for item in report.left_out] == [("neighbour", told[0])]
        assert service.ledger.one(TurnRecorded, answer).neighbours == (told[2],)


def test_the_operator_sets_the_default(upstream: ScriptedUpstream, tmp_path: Path, user: str) -> None:
    with running(upstream, tmp_path, neighbor_turns_default=2) as service:
        service.tell_all(TALK, user)
        answer = ask(service, user, None)
        assert service.said() == [*TALK, QUESTION]
        assert service.ledger.one(RetrievalRecorded, answer).knobs["neighbor_turns"] == 2
        assert service.client.get("/v1/models").json()["data"][0]["knobs"]["neighbor_turns"] == 2

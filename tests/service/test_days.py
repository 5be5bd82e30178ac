"""Days are the person's: of the request's time zone, else of the setting for the person, else for everybody."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from domain.errors import SettingsError
from domain.events import RetrievalRecorded, TurnRecorded
from domain.memory import day
from domain.settings import StorageSettings, load_settings
from domain.temporal.spans import DAY, day_of
from domain.temporal.zones import zone_named
from tests.service.opm import environment, opm
from tests.service.running import Answer, Running, running
from tests.upstream import ScriptedUpstream, gate_keeps_all

DOG, DOG_QUESTION = "My dog is called Bruno.", "What did I say about my dog?"
# These two never have the same date, so at least one of them has another one than UTC.
FAR_EAST, FAR_WEST = "+14:00", "-12:00"
ZONES = (FAR_EAST, FAR_WEST, "Asia/Kolkata", "America/St_Johns", "UTC")
BAD_ZONES = ["Mars/Olympus", "", "CEST", "../etc/passwd", "+25:00", 5, True, ["UTC"]]


def moments(service: Running, answer: Answer, zone: str) -> tuple[str, datetime]:
    """Return when the first replayed memory was told, as a prompt dates it, and when the question was asked."""
    told = datetime.fromisoformat(answer.memory("retrieved")["replay"][0]["ts"]).astimezone(zone_named(zone))
    asked = service.ledger.one(TurnRecorded, answer).ts.astimezone(zone_named(zone))
    # A test that runs over midnight sees the date alone.
    return f"{told:%Y-%m-%d %H:%M}" if told.date() == asked.date() else f"{told:%Y-%m-%d}", asked


@pytest.mark.parametrize("zone", ZONES)
def test_all_that_a_model_is_told_of_days_is_in_the_zone_of_the_request(service: Running, user: str, zone: str) -> None:
    service.upstream.responders["gate"] = gate_keeps_all
    service.client.tell(DOG, user, "monday")
    service.client.tell("The dog eats cheese.", user, "tuesday", candidate_n=0)
    answer = service.client.tell(DOG_QUESTION, user, "friday", timezone=zone, retrieve_k=1)
    told, asked = moments(service, answer, zone)
    system, replayed = service.messages()[0][1], service.messages()[1][1]
    assert f"Today is {day(asked)}." in system
    assert f"- ({told[:10]}" in system
    assert replayed.startswith(f"[{told}] ")
    for stage in ("gate", "rerank"):
        asked_for = service.upstream.calls_of(stage)[-1].body["messages"][1]["content"]
        assert f"Question, asked on {day(asked)}:" in asked_for
        assert f"({told}) " in asked_for
    name = str(zone_named(zone))
    assert service.ledger.report(answer).timezone == name
    assert service.ledger.one(RetrievalRecorded, answer).knobs["timezone"] == name
    assert service.ledger.one(TurnRecorded, answer).ts.tzinfo == UTC, "events stay in UTC"


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(("question", "days_back"), [("What did I say yesterday?", 1), ("我昨天说了什么？", 1)])
def test_yesterday_is_the_persons(service: Running, user: str, zone: str, question: str, days_back: int) -> None:
    service.client.tell(DOG, user)
    answer = service.client.tell(question, user, timezone=zone)
    asked = service.ledger.one(TurnRecorded, answer).ts.astimezone(zone_named(zone))
    start, end = day_of(asked - days_back * DAY)
    named = answer.memory("memory_status")["time_range"]
    assert datetime.fromisoformat(named["start"]) == start
    assert datetime.fromisoformat(named["end"]) == end
    assert named["timezone"] == str(zone_named(zone))
    listed = service.client.get("/v1/turns", user=user, conversation_id="c").json()["data"]
    assert listed[-1]["memory_status"]["time_range"] == named


@pytest.mark.parametrize("zone", ZONES)
def test_the_prompt_is_made_again_as_it_was_sent(service: Running, user: str, zone: str) -> None:
    service.client.tell(DOG, user, "monday", timezone="Asia/Shanghai")
    answer = service.client.tell(DOG_QUESTION, user, "friday", timezone=zone)
    explained = opm(environment(service.ledger.path.parent, TIMEZONE="Europe/Vienna"), "explain", answer.id, "--json")
    assert explained.status == 0
    assert explained.json["prompt"]["proof"] == "same_as_sent"
    assert [(m["role"], m["content"]) for m in explained.json["prompt"]["messages"]] == service.messages()


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Niue", "UTC"])
def test_explain_and_recall_say_whose_days_they_list(service: Running, user: str, zone: str) -> None:
    told = service.client.tell(DOG, user, "monday")
    service.settle()
    answer = service.client.tell(DOG_QUESTION, user, "friday", timezone=zone)
    assert answer.replayed == [DOG]
    said = service.ledger.one(TurnRecorded, told).ts.astimezone(zone_named(zone)).date().isoformat()
    variables = environment(service.ledger.path.parent, service.upstream, TIMEZONE=zone)
    for command in (("explain", answer.id, "--no-prompt"), ("recall", "-u", user, DOG_QUESTION)):
        shown = opm(variables, *command)
        assert shown.status == 0
        assert f"days of {zone}" in shown.out
        lines = [line for line in shown.out.splitlines() if "replayed  " in line or "monday 1" in line]
        assert lines
        assert all(said in line for line in lines), lines


def test_a_summary_is_dated_by_the_day_on_which_it_was_said(service: Running, user: str) -> None:
    for zone in (FAR_EAST, FAR_WEST):
        service.upstream.forget_calls()
        answer = service.client.tell(DOG, user, timezone=zone)
        service.settle()
        said = service.ledger.one(TurnRecorded, answer).ts.astimezone(zone_named(zone))
        [call] = service.upstream.calls_of("summary")
        assert f"Date: {said.date()}\n" in call.body["messages"][1]["content"]


def test_words_find_the_day_on_which_it_was_said(service: Running, user: str) -> None:
    # Told without memory: an answer that quotes the other one would carry its date.
    alone: dict[str, Any] = {"candidate_n": 0, "recent_turns": 0}
    answer = service.client.tell(DOG, user, timezone=FAR_EAST, **alone)
    service.client.tell("My cat is called Miso.", user, timezone=FAR_WEST, **alone)
    said = service.ledger.one(TurnRecorded, answer).ts.astimezone(zone_named(FAR_EAST))
    found = service.client.tell(f"the {said.day}", user, "friday", retrieval="lexical", use_gate=False)
    assert found.replayed == [DOG]


@pytest.mark.parametrize("zone", BAD_ZONES)
def test_a_wrong_zone_is_named(service: Running, user: str, zone: object) -> None:
    answer = service.client.ask("Hi.", user, timezone=zone)
    assert answer.status == 400
    assert (answer.error["type"], answer.error["param"]) == ("invalid_request_error", "metadata.timezone")
    assert repr(zone) in answer.error["message"]
    assert not service.ledger.stream(user)


def test_a_slip_in_the_name_is_told(service: Running, user: str) -> None:
    assert "Europe/Vienna" in service.client.ask("Hi.", user, timezone="Vienna").error["message"]
    assert "'timezone'" in service.client.ask("Hi.", user, time_zone="UTC").error["message"]


def test_who_says_no_zone_has_that_of_the_settings(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with running(upstream, tmp_path, timezone="asia/tokyo", user_timezones={"Jose\u0301": "UTC-3"}) as service:
        for user, asked, name in (
            ("ann", {}, "Asia/Tokyo"),
            ("José", {}, "UTC-03:00"),
            ("José", {"timezone": "Europe/Vienna"}, "Europe/Vienna"),
        ):
            answer = service.client.tell(DOG, user, **asked)
            assert service.ledger.report(answer).timezone == name
            told = service.ledger.one(TurnRecorded, answer).ts.astimezone(zone_named(name))
            assert f"Today is {day(told)}." in service.messages()[0][1]


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"TIMEZONE": "Mars/Olympus"}, "TIMEZONE = 'Mars/Olympus'"),
        ({"TIMEZONE": "Vienna"}, "did you mean Europe/Vienna?"),
        ({"USER_TIMEZONES": '{"ann": "CEST"}'}, "'CEST': no time zone has this name"),
        ({"USER_TIMEZONES": '{"an\u200bn": "UTC"}'}, "U+200B ZERO WIDTH SPACE"),
        ({"USER_TIMEZONES": "Europe/Vienna"}, "USER_TIMEZONES"),
    ],
)
def test_a_wrong_setting_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, Any], complaint: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load_settings(StorageSettings, _env_file=None)
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_recall_counts_days_as_the_person_does(service: Running, user: str) -> None:
    told = service.client.tell("My dog likes cheese.", user, timezone=FAR_EAST)
    service.client.tell("My dog likes long walks.", user, timezone=FAR_EAST)
    said = service.ledger.one(TurnRecorded, told).ts
    for zone in (FAR_EAST, FAR_WEST):
        settings = environment(service.ledger.path.parent, TIMEZONE=zone)
        ran = opm(
            settings, "recall", "-u", user, f"my dog on {said.astimezone(zone_named(zone)):%d %B %Y}", "--no-embed"
        )
        assert (ran.status, "cheese" in ran.out) == (0, True)

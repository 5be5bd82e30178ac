"""Ids that look alike are one person and one conversation, wherever an id comes in; what an old ledger holds stays."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from domain.events import TurnRecorded
from domain.identity import StreamId
from domain.settings import load_settings
from service.settings import ServiceSettings
from tests.ledgers import new_ledger_file, opened, record_turn
from tests.service.opm import environment, opm
from tests.service.running import Client, Running, chat_body, running
from tests.upstream import ScriptedUpstream

COMPOSED = "José 한국"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)
UNSEEN = "an\u200bn"
UNSEEN_NAME = "U+200B ZERO WIDTH SPACE"
OLD_SPELLINGS = (DECOMPOSED, UNSEEN, " ann ")


def spelt(number: int, user: str) -> str:
    """Return one of the ways in which clients spell the same id."""
    return (user, unicodedata.normalize("NFD", user), f" {user}\t", f"\u00a0{user}\n")[number]


class TestNewLedger:
    def test_every_spelling_is_one_person_and_one_conversation(self, service: Running, user: str) -> None:
        client, person, trip = service.client, f"{user} José", f"{user} Ångström"
        for number in range(4):
            client.tell(f"Fact {number}.", spelt(number, person), spelt(number, trip))
        assert [turn.user for turn in service.ledger.all(TurnRecorded, person, trip)] == [
            f"Fact {number}." for number in range(4)
        ]
        for number in range(4):
            asked = {"user": spelt(number, person), "conversation_id": spelt(number, trip)}
            assert len(client.get("/v1/turns", **asked).json()["data"]) == 4
            memories = client.get("/v1/memories", user=spelt(number, person)).json()["data"]
            assert len(memories) == 4
        first = memories[-1]["memory_id"]
        corrected = client.http.patch(f"/v1/memories/{first}", json={"user": spelt(1, person), "summary": "So."})
        assert corrected.json()["summary"] == "So."
        assert client.http.delete(f"/v1/memories/{first}", params={"user": spelt(2, person)}).json()["deleted"]

    @pytest.mark.parametrize("path", ["/v1/turns", "/v1/memories", "/v1/conversations"])
    def test_what_cannot_be_seen_is_refused_by_name_in_a_query(self, client: Client, path: str) -> None:
        refused(client.get(path, user=UNSEEN), "user")

    def test_and_in_a_body(self, client: Client, user: str) -> None:
        refused(client.http.post("/v1/chat/completions", json=chat_body("Hi.", UNSEEN)), "user")
        refused(
            client.http.post("/v1/chat/completions", json=chat_body("Hi.", user, UNSEEN)), "metadata.conversation_id"
        )
        refused(client.get("/v1/turns", user=user, conversation_id=UNSEEN), "conversation_id")
        refused(client.http.patch("/v1/memories/m1", json={"user": UNSEEN, "summary": "s"}), "user")

    def test_a_key_stands_for_every_spelling_of_its_user(self, upstream: ScriptedUpstream, tmp_path: Path) -> None:
        with running(upstream, tmp_path, api_keys={"opm-canary": DECOMPOSED}) as service:
            headers = {"authorization": "Bearer opm-canary"}
            for user in (COMPOSED, DECOMPOSED):
                body = chat_body("Hi.", user)
                assert service.client.http.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
            assert len(service.ledger.all(TurnRecorded, COMPOSED)) == 2

    def test_the_command_line_means_the_same_person(self, tmp_path: Path) -> None:
        storage = tmp_path / "storage"
        storage.mkdir()
        with opened(new_ledger_file(storage)) as ledger:
            record_turn(ledger, StreamId(COMPOSED, "c"), "My cat is called Miso.")
        variables = environment(storage)
        lines = tmp_path / "talk.jsonl"
        said = [{"role": "user", "content": "I moved."}, {"role": "assistant", "content": "Noted."}]
        lines.write_text(json.dumps({"conversation_id": DECOMPOSED, "messages": said}), encoding="utf-8")
        assert opm(variables, "import", str(lines), "-u", DECOMPOSED).status == 0
        with opened(storage / "ledger.sqlite3") as ledger:
            assert ledger.persons.has_conversation(StreamId(COMPOSED, COMPOSED))
            assert not ledger.persons.has_events(DECOMPOSED)
        found = opm(variables, "recall", "-u", DECOMPOSED, "cat", "--no-embed", "--json")
        assert [memory["user"] for memory in found.json["memories"]] == ["My cat is called Miso."]
        exported = opm(variables, "export", "-u", f" {DECOMPOSED} ")
        assert (exported.status, len(exported.out.splitlines())) == (0, 2)
        for command in ("erase", "export"):
            ran = opm(variables, command, "-u", UNSEEN, *(["--yes"] if command == "erase" else []))
            assert (ran.status, UNSEEN_NAME in ran.err) == (2, True)
        assert opm(variables, "erase", "-u", DECOMPOSED, "--yes").status == 0
        with opened(storage / "ledger.sqlite3") as ledger:
            assert not ledger.persons.has_events(COMPOSED)


class TestOldLedger:
    """A ledger whose ids an earlier version recorded as they were sent."""

    @pytest.fixture
    @staticmethod
    def storage(tmp_path: Path) -> Path:
        with opened(new_ledger_file(tmp_path)) as ledger:
            for spelling in OLD_SPELLINGS:
                record_turn(ledger, StreamId(spelling, spelling), f"I am {spelling!r}.")
        return tmp_path

    @pytest.fixture
    @staticmethod
    def service(storage: Path, upstream: ScriptedUpstream) -> Iterator[Running]:
        with running(upstream, storage, api_keys={"opm-canary": DECOMPOSED, "opm-any": "*"}) as service:
            service.client.http.headers["authorization"] = "Bearer opm-any"
            yield service

    def test_who_sends_the_old_spelling_goes_on_where_they_were(self, service: Running) -> None:
        for spelling in OLD_SPELLINGS:
            turns = service.client.get("/v1/turns", user=spelling, conversation_id=spelling).json()["data"]
            assert [turn["user"] for turn in turns] == [f"I am {spelling!r}."]
            service.client.tell("And I moved.", spelling, spelling)
            assert service.messages()[1][1].endswith(f"I am {spelling!r}.")
            assert len(service.ledger.all(TurnRecorded, spelling, spelling)) == 2
            assert len(service.client.get("/v1/memories", user=spelling).json()["data"]) == 2

    def test_so_does_who_has_its_key(self, service: Running) -> None:
        service.client.http.headers["authorization"] = "Bearer opm-canary"
        assert len(service.client.get("/v1/memories").json()["data"]) == 1
        assert len(service.client.get("/v1/memories", user=DECOMPOSED).json()["data"]) == 1

    def test_a_new_spelling_is_the_person_of_now(self, service: Running) -> None:
        assert service.client.get("/v1/memories", user=COMPOSED).json()["data"] == []

    def test_the_operator_can_make_two_spellings_one(self, service: Running, storage: Path, tmp_path: Path) -> None:
        variables, file = environment(storage), tmp_path / "export.jsonl"
        for arguments in (
            ("export", "-u", DECOMPOSED, "-o", str(file)),
            ("import", str(file), "-u", COMPOSED),
            ("erase", "-u", DECOMPOSED, "--yes"),
        ):
            assert opm(variables, *arguments).status == 0
        for spelling in (COMPOSED, DECOMPOSED):
            (memory,) = service.client.get("/v1/memories", user=spelling).json()["data"]
            assert memory["user"] == f"I am {DECOMPOSED!r}."

    @pytest.mark.parametrize("spelling", OLD_SPELLINGS)
    def test_it_is_verified_exported_imported_and_erased(
        self, service: Running, storage: Path, tmp_path: Path, spelling: str
    ) -> None:
        variables = environment(storage)
        service.settle()
        assert opm(variables, "verify").status == 0
        file = tmp_path / "export.jsonl"
        assert opm(variables, "export", "-u", spelling, "-o", str(file)).status == 0
        elsewhere = tmp_path / "elsewhere"
        assert opm(environment(elsewhere), "import", str(file), "-u", "ann").status == 0
        with opened(elsewhere / "ledger.sqlite3") as ledger:
            assert ledger.persons.has_conversation(StreamId("ann", spelling))
        assert opm(variables, "erase", "-u", spelling, "--yes").status == 0
        service.settle()
        assert opm(variables, "verify").status == 0
        with opened(storage / "ledger.sqlite3") as ledger:
            assert [ledger.persons.has_events(each) for each in OLD_SPELLINGS] == [
                each != spelling for each in OLD_SPELLINGS
            ]


def test_a_key_for_an_id_that_cannot_be_seen_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"LLM_BASE_URL": "http://x/v1", "LLM_MODEL": "m", "EMB_BASE_URL": "http://x/v1", "EMB_MODEL": "e"}
    for name, value in {**given, "API_KEYS": json.dumps({"opm-canary": UNSEEN})}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Exception, match=r"U\+200B ZERO WIDTH SPACE") as raised:
        load_settings(ServiceSettings, _env_file=None)
    assert "opm-canary" not in str(raised.value)


def refused(response: httpx2.Response, field: str) -> None:
    """Check that a request was refused for an invisible character in a field, which the message names."""
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert (error["param"], UNSEEN_NAME in error["message"]) == (field, True), error

"""A person corrects or withdraws a memory: every way in which it could still show, shows it no more."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from domain.branches import moves_to
from domain.events import MemoryForgotten, SummaryRecorded
from domain.identity import StreamId
from domain.settings import StorageSettings
from projections.verification.storage import verify_storage
from service.memory_commands import MemoryCommands
from tests.ledgers import new_ledger_file, opened, record_turn
from tests.processes import ROOT
from tests.service.running import Client, Running, someone, until
from tests.upstream import UNTIL_RELEASED, Fault

VIOLIN = "My sister plays the violin in Vienna."
FERRY = "The ferry to Lisbon leaves at nine."
ASKED = "Where does my sister play the violin?"
LOOK = {"recent_turns": 0, "use_gate": False}


def listed(client: Client, user: str, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get("/v1/memories", user=user, **more).json()["data"]
    return found


def test_memories_are_listed_newest_first_and_paged(service: Running, user: str) -> None:
    ids = service.tell_all([FERRY, VIOLIN, "Basil grows beside tomatoes."], user)
    service.settle()
    rows = listed(service.client, user)
    assert [row["memory_id"] for row in rows] == ids[::-1]
    assert (rows[1]["user"], rows[1]["conversation_id"], rows[1]["turn_id"]) == (VIOLIN, "facts", 2)
    assert rows[1]["summary"]
    assert not rows[1]["edited"]
    first = service.client.get("/v1/memories", user=user, limit=2).json()
    assert ([row["memory_id"] for row in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    rest = service.client.get("/v1/memories", user=user, limit=2, before=ids[1]).json()
    assert ([row["memory_id"] for row in rest["data"]], rest["has_more"]) == ([ids[0]], False)
    assert listed(service.client, someone()) == []
    assert service.client.get("/v1/memories", user=someone(), before=ids[1]).status_code == 404


def test_one_memory_is_shown_to_its_own_user_until_it_is_forgotten(service: Running, user: str) -> None:
    [memory_id] = service.tell_all([VIOLIN], user)
    service.settle()
    path = f"/v1/memories/{memory_id}"
    shown = service.client.get(path, user=user)
    assert shown.json() == listed(service.client, user)[0]
    assert service.client.get(path, user=someone()).status_code == 404
    service.client.http.delete(path, params={"user": user})
    assert service.client.get(path, user=user).status_code == 404


def test_a_forgotten_memory_shows_nowhere(service: Running, user: str) -> None:
    service.tell_all([FERRY], user)
    [memory_id] = service.tell_all([VIOLIN], user, "music")
    service.settle()
    before = service.client.tell(ASKED, user, "chat", **LOOK)
    assert VIOLIN in before.replayed
    answer = service.client.http.delete(f"/v1/memories/{memory_id}", params={"user": user})
    assert answer.json() == {"object": "memory.deleted", "memory_id": memory_id, "deleted": True, "changed": True}
    again = service.client.http.delete(f"/v1/memories/{memory_id}", params={"user": user})
    assert not again.json()["changed"]
    # The answer that repeated it is a memory of its own, which a person sees in the list and withdraws too.
    quoting = before.memory("turn")["memory_id"]
    service.client.http.delete(f"/v1/memories/{quoting}", params={"user": user})

    after = service.client.tell(ASKED, user, "other", **LOOK)
    assert VIOLIN not in after.replayed
    assert VIOLIN not in str(service.messages())
    assert service.client.get("/v1/turns", user=user, conversation_id="music").json()["data"] == []
    conversations = service.client.get("/v1/conversations", user=user).json()["data"]
    assert "music" not in [row["conversation_id"] for row in conversations]
    assert service.client.get("/v1/turns", user=user, conversation_id="chat").json()["data"] == []
    assert memory_id not in [row["memory_id"] for row in listed(service.client, user)]
    service.client.tell("And now?", user, "music")
    assert VIOLIN not in str(service.messages())


def test_a_memory_that_was_taken_back_shows_everywhere_again(service: Running, user: str) -> None:
    [memory_id] = service.tell_all([VIOLIN], user, "music")
    path = f"/v1/memories/{memory_id}"
    service.client.http.delete(path, params={"user": user})
    assert VIOLIN not in service.client.tell(ASKED, user, "before", **LOOK).replayed
    service.settle()
    restored = service.client.http.post(f"{path}/restore", params={"user": user, "reason": "by mistake"}).json()
    assert restored == {
        "object": "memory.restored",
        "memory_id": memory_id,
        "restored": True,
        "changed": True,
        "superseded": False,
    }
    again = service.client.http.post(f"{path}/restore", params={"user": user}).json()
    assert not again["changed"]

    for mode in ("dense", "lexical"):
        assert VIOLIN in service.client.tell(ASKED, user, f"after {mode}", retrieval=mode, **LOOK).replayed
    [turn] = service.client.get("/v1/turns", user=user, conversation_id="music").json()["data"]
    assert turn["user"] == VIOLIN
    assert "music" in [
        row["conversation_id"] for row in service.client.get("/v1/conversations", user=user).json()["data"]
    ]
    assert memory_id in [row["memory_id"] for row in listed(service.client, user)]
    service.client.tell("And now?", user, "music")
    assert VIOLIN in str(service.messages())


def test_a_turn_that_was_left_behind_shows_nowhere_until_the_client_returns(service: Running, user: str) -> None:
    stream = StreamId(user, "music")
    ferry, violin = service.tell_all([FERRY, VIOLIN], user, "music")
    service.settle()

    def shows(number: int) -> set[str]:
        """Return where the violin shows: in searches, window and lists."""
        found = {
            mode
            for mode in ("dense", "lexical")
            if VIOLIN in service.client.tell(ASKED, user, f"{mode} {number}", retrieval=mode, **LOOK).replayed
        }
        service.client.tell("And now?", user, "music", use_gate=False, candidate_n=0)
        lists = {
            "window": str(service.messages()),
            "turns": service.client.get("/v1/turns", user=user, conversation_id="music").text,
            "memories": "\n".join(row["memory_id"] for row in listed(service.client, user)),
            "one memory": service.client.get(f"/v1/memories/{violin}", user=user).text,
        }
        return found | {where for where, text in lists.items() if (violin if where == "memories" else VIOLIN) in text}

    everywhere = {"dense", "lexical", "window", "turns", "memories", "one memory"}
    assert shows(1) == everywhere
    for number, (path, expected) in enumerate((({ferry}, set()), ({ferry, violin}, everywhere)), start=2):
        with opened(service.ledger.path) as ledger:
            turns = ledger.reader.branch(stream)
            moves = moves_to(path, turns, "left", lambda: str(uuid4()))
            assert violin in {move.causation_id for move in moves}
            ledger.append(stream, lambda _head, moves=moves: moves).result()  # type: ignore[misc]
        assert shows(number) == expected
    service.settle()
    assert verify_storage(StorageSettings(storage_dir=service.ledger.path.parent)).findings == ()


def test_an_older_answer_no_longer_shows_that_it_used_it(service: Running, user: str) -> None:
    [memory_id] = service.tell_all([VIOLIN], user)
    service.settle()
    service.client.tell(ASKED, user, "chat", **LOOK)
    for forgotten in (False, True):
        if forgotten:
            service.client.http.delete(f"/v1/memories/{memory_id}", params={"user": user})
        [asked] = service.client.get("/v1/turns", user=user, conversation_id="chat").json()["data"]
        assert (memory_id not in str(asked["retrieved"])) == forgotten


def test_a_conversation_is_titled_by_what_is_remembered_of_it(service: Running, user: str) -> None:
    first, _ = service.tell_all([VIOLIN, FERRY], user)
    service.client.http.delete(f"/v1/memories/{first}", params={"user": user})
    [row] = service.client.get("/v1/conversations", user=user).json()["data"]
    assert (row["title"], row["turns"]) == (FERRY, 1)


def test_a_summary_that_comes_after_the_forgetting_finds_nothing(service: Running, user: str) -> None:
    """The summarizer was at it when the person withdrew the memory."""
    service.upstream.fail("summary", Fault(hang_s=UNTIL_RELEASED))
    [memory_id] = service.tell_all([VIOLIN], user)
    service.upstream.wait_for("summary")
    service.client.http.delete(f"/v1/memories/{memory_id}", params={"user": user})
    service.upstream.release()
    until("the summary is there", lambda: service.ledger.all(SummaryRecorded, user, "facts"))
    service.settle()
    assert service.ledger.all(SummaryRecorded, user, "facts")
    found = service.client.tell(ASKED, user, "chat", **LOOK)
    assert (found.replayed, found.summaries) == ([], [])


def test_a_correction_takes_the_place_of_the_summary(service: Running, user: str) -> None:
    [memory_id] = service.tell_all([VIOLIN], user)
    service.settle()
    corrected = "My brother plays the cello in Graz."
    answer = service.client.http.patch(f"/v1/memories/{memory_id}", json={"user": user, "summary": corrected})
    body = answer.json()
    assert (body["summary"], body["edited"], body["changed"]) == (corrected, True, True)
    found = service.client.tell("Who plays the cello in Graz?", user, "chat", retrieve_k=0, **LOOK)
    assert found.summaries == [corrected]
    assert service.ledger.all(SummaryRecorded, user, "facts"), "the one before stays in the ledger"
    [row] = [row for row in listed(service.client, user) if row["memory_id"] == memory_id]
    assert (row["summary"], row["edited"], row["user"]) == (corrected, True, VIOLIN)


def test_opm_beside_a_running_service_takes_a_memory_out_of_the_next_search(service: Running, user: str) -> None:
    [memory_id] = service.tell_all([VIOLIN], user)
    service.settle()
    assert VIOLIN in service.client.tell(ASKED, user, "one", **LOOK).replayed
    command = [sys.executable, "-m", "service.cli", "forget", memory_id]
    environment = {"STORAGE_DIR": str(service.ledger.path.parent), "PATH": ""}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    assert VIOLIN not in service.client.tell(ASKED, user, "two", **LOOK).replayed


@pytest.mark.parametrize("memory_id", ["no-such", "%E7%8C%AB", "'; --"])
def test_an_unknown_memory_is_a_404_and_so_is_somebody_elses(service: Running, user: str, memory_id: str) -> None:
    [other] = service.tell_all([VIOLIN], someone())
    for asked in (memory_id, other):
        for answer in (
            service.client.http.get(f"/v1/memories/{asked}", params={"user": user}),
            service.client.http.delete(f"/v1/memories/{asked}", params={"user": user}),
            service.client.http.patch(f"/v1/memories/{asked}", json={"user": user, "summary": "Mine."}),
            service.client.http.post(f"/v1/memories/{asked}/restore", params={"user": user}),
        ):
            assert answer.status_code == 404
            error = answer.json()["error"]
            assert (error["param"], error["code"], error["type"]) == (
                "memory_id",
                "memory_not_found",
                "invalid_request_error",
            )


@pytest.mark.parametrize("body", [{}, {"summary": " "}, {"summary": 5}, {"summary": "x", "sumary": "y"}])
def test_a_correction_must_have_a_text(service: Running, user: str, body: dict[str, Any]) -> None:
    [memory_id] = service.tell_all([VIOLIN], user)
    answer = service.client.http.patch(f"/v1/memories/{memory_id}", json={"user": user, **body})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in {"summary", "sumary"}


def test_many_who_forget_at_once_record_it_once(tmp_path: Path) -> None:
    with opened(new_ledger_file(tmp_path)) as ledger:
        stream = StreamId("ann", "c")
        memory_id = record_turn(ledger, stream).event_id
        with ThreadPoolExecutor(8) as pool:
            forgotten = [pool.submit(MemoryCommands(ledger).forget, "ann", memory_id) for _ in range(8)]
            talked = [pool.submit(record_turn, ledger, stream) for _ in range(20)]
        assert sorted(future.result() for future in forgotten) == [False] * 7 + [True]
        assert len([future.result() for future in talked]) == 20
        events = ledger.reader.events_after(0, 100)
        assert sum(isinstance(event.payload, MemoryForgotten) for event in events) == 1

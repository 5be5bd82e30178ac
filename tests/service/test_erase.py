"""A person is erased beside a service that other people go on using."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from domain.verification import is_blanked
from tests.byte_search import traces
from tests.ledgers import check_chain_with_erasures
from tests.processes import ROOT
from tests.service.running import Running, running, someone, until
from tests.upstream import UNTIL_RELEASED, Fault, ScriptedUpstream

SECRETS = [f"Zanzibarquest number {number} is where the Klabautermann lives." for number in range(12)]


@pytest.fixture
def own_service(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[Running]:
    """A service of this test's own, since its whole folder is searched."""
    with running(upstream, tmp_path / "storage") as service:
        yield service


def erase(service: Running, user: str, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "service.cli", "erase", "--user", user, "--yes", "--json", *more]
    environment = {"STORAGE_DIR": str(service.ledger.path.parent), "PATH": os.environ["PATH"]}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_others_keep_chatting_while_a_person_is_erased(own_service: Running) -> None:
    user, folder = "ann.alpenrose@example.org", own_service.ledger.path.parent
    own_service.tell_all(SECRETS, user, "Tagebuch")
    own_service.settle()
    assert own_service.client.tell("Where does the Klabautermann live?", user, "chat", use_gate=False).replayed
    own_service.settle()
    stop, told, failed = threading.Event(), [0], []

    def chat(name: str) -> None:
        while not stop.is_set():
            answer = own_service.client.ask(f"Remark {told[0]}.", name)
            told[0] += 1
            if answer.status != 200:
                failed.append(answer.body)

    threads = [threading.Thread(target=chat, args=(someone(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until("others chat", lambda: told[0] > 5)
        done = erase(own_service, user)
        at_the_end = told[0]
        until("others still chat", lambda: told[0] > at_the_end + 5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert done["recorded_since"] == 0
    own_service.settle()
    assert traces(folder, [user, "Tagebuch", "Zanzibarquest", "Klabautermann"]) == []
    rows = own_service.ledger.reader.stored_after(0, 1_000_000)
    check_chain_with_erasures(rows)
    assert sum(map(is_blanked, rows)) == done["events"]

    assert own_service.client.get("/v1/conversations", user=user).json()["data"] == []
    assert own_service.client.get("/v1/memories", user=user).json()["data"] == []
    anew = own_service.client.tell("Where is it?", user, "Tagebuch", use_gate=False)
    assert (anew.replayed, anew.summaries, anew.memory("turn")["turn_id"]) == ([], [], 1)
    assert own_service.ledger.stream(user, "Tagebuch")[0].version == 1


def test_a_running_answer_and_summary_bring_nothing_back(own_service: Running) -> None:
    user, folder = "ann.alpenrose@example.org", own_service.ledger.path.parent
    own_service.upstream.fail("summary", Fault(hang_s=UNTIL_RELEASED))
    own_service.tell_all(SECRETS[:1], user, "Tagebuch")
    own_service.upstream.wait_for("summary")
    own_service.upstream.fail("answer", Fault(hang_s=UNTIL_RELEASED))
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(own_service.client.ask("Where does the Klabautermann live?", user, "Tagebuch"))
    )
    asking.start()
    own_service.upstream.wait_for("answer", 2)
    erase(own_service, user)
    own_service.upstream.release()
    asking.join()
    own_service.settle()
    assert (answers[0].status, answers[0].error["code"]) == (503, "ledger_unavailable")
    assert "erased" in answers[0].error["message"]
    assert own_service.ledger.stream(user, "Tagebuch") == []
    assert traces(folder, ["Tagebuch", "Zanzibarquest", "Klabautermann"]) == []


def test_the_next_start_finishes_an_interrupted_erasure(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    folder = tmp_path / "storage"
    with running(upstream, folder) as service:
        service.tell_all(SECRETS, "ann.alpenrose")
    (folder / "erasing").mkdir()
    marker = folder / "erasing" / "e-1.json"
    marker.write_text(json.dumps({"user_id": "ann.alpenrose", "event_id": "e-1"}))
    with running(upstream, folder) as service:
        service.settle()
        assert "finished 1 interrupted erasures" in service.log()
        assert "alpenrose" not in service.log()
        assert traces(folder, ["ann.alpenrose", "Zanzibarquest"]) == []
        assert not marker.exists()

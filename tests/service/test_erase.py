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
def alone(upstream: ScriptedUpstream, tmp_path: Path) -> Iterator[Running]:
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


def test_others_go_on_chatting_while_a_person_is_erased(alone: Running) -> None:
    user, folder = "ann.alpenrose@example.org", alone.ledger.path.parent
    alone.tell_all(SECRETS, user, "Tagebuch")
    alone.settle()
    assert alone.client.tell("Where does the Klabautermann live?", user, "chat", use_gate=False).replayed
    alone.settle()
    stop, told, failed = threading.Event(), [0], []

    def chat(name: str) -> None:
        while not stop.is_set():
            answer = alone.client.ask(f"Remark {told[0]}.", name)
            told[0] += 1
            if answer.status != 200:
                failed.append(answer.body)

    threads = [threading.Thread(target=chat, args=(someone(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until("others chat", lambda: told[0] > 5)
        done = erase(alone, user)
        at_the_end = told[0]
        until("others still chat", lambda: told[0] > at_the_end + 5)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert done["recorded_since"] == 0
    alone.settle()
    assert traces(folder, [user, "Tagebuch", "Zanzibarquest", "Klabautermann"]) == []
    rows = alone.ledger.reader.stored_after(0, 1_000_000)
    check_chain_with_erasures(rows)
    assert sum(map(is_blanked, rows)) == done["events"]

    assert alone.client.get("/v1/conversations", user=user).json()["data"] == []
    assert alone.client.get("/v1/memories", user=user).json()["data"] == []
    anew = alone.client.tell("Where is it?", user, "Tagebuch", use_gate=False)
    assert (anew.replayed, anew.summaries, anew.memory("turn")["turn_id"]) == ([], [], 1)
    assert alone.ledger.stream(user, "Tagebuch")[0].version == 1


def test_an_answer_and_a_summary_under_way_bring_nothing_back(alone: Running) -> None:
    user, folder = "ann.alpenrose@example.org", alone.ledger.path.parent
    alone.upstream.fail("summary", Fault(hang_s=UNTIL_RELEASED))
    alone.tell_all(SECRETS[:1], user, "Tagebuch")
    alone.upstream.wait_for("summary")
    alone.upstream.fail("answer", Fault(hang_s=UNTIL_RELEASED))
    answers: list[Any] = []
    asking = threading.Thread(
        target=lambda: answers.append(alone.client.ask("Where does the Klabautermann live?", user, "Tagebuch"))
    )
    asking.start()
    alone.upstream.wait_for("answer", 2)
    erase(alone, user)
    alone.upstream.release()
    asking.join()
    alone.settle()
    assert (answers[0].status, answers[0].error["code"]) == (503, "ledger_unavailable")
    assert "erased" in answers[0].error["message"]
    assert alone.ledger.stream(user, "Tagebuch") == []
    assert traces(folder, ["Tagebuch", "Zanzibarquest", "Klabautermann"]) == []


def test_an_erasure_that_was_interrupted_is_finished_when_the_service_starts(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    folder = tmp_path / "storage"
    with running(upstream, folder) as service:
        service.tell_all(SECRETS, "ann.alpenrose")
    (folder / "erasing").mkdir()
    marker = folder / "erasing" / "e-1.json"
    marker.write_text(json.dumps({"user_id": "ann.alpenrose", "event_id": "e-1"}))
    with running(upstream, folder) as service:
        service.settle()
        assert "1 erasures that had been interrupted are finished" in service.log()
        assert "alpenrose" not in service.log()
        assert traces(folder, ["ann.alpenrose", "Zanzibarquest"]) == []
        assert not marker.exists()

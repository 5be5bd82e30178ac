"""A swap under load: while a rebuild runs beside the service, memory gives the right answer to every question.

The two models give unrelated vectors for the same text, so a question searched in an index of the other model would not
find its fact.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from domain.events import RetrievalRecorded, TurnRecorded
from tests.ledgers import ROOT
from tests.ledgers import opened as opened_ledger
from tests.processes import Service, service_process
from tests.projections.rebuild.test_rebuild import record
from tests.projections.world import MODEL, OTHER_MODEL
from tests.upstream import CHAT_MODEL, Fault, ScriptedUpstream

FACTS = 500
DIMS = 512
"""With fewer, words collide so often that another fact is sometimes nearest."""
AFTER_THE_SWITCH = 15
CLIENTS = 2


def code(number: int) -> str:
    return f"k{number:03d}x"


def fact(number: int) -> str:
    return f"Parcel {code(number)} of {code(number)[::-1]} lies in harbour {number % 13}."


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """The chat model and the old embedding model."""
    with ScriptedUpstream(dims=DIMS, embedding_models=(MODEL,)) as upstream:
        yield upstream


class Load:
    """Clients that ask about one fact after the other, each once, until they are stopped."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self.asked = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        with httpx2.Client(base_url=self._service.base_url, timeout=30) as client:
            while not self._stop.is_set() and (number := next(self._numbers)) < FACTS:
                answer = client.post("/v1/chat/completions", json=question(number))
                status = answer.json().get("memory_status", {})
                retrieved = json.dumps(answer.json().get("retrieved"))
                if answer.status_code != 200 or status["retrieval"] != "ok" or fact(number) not in retrieved:
                    self.wrong.append(f"{number}: {answer.status_code} {status} {retrieved}")
                self.asked += 1

    def stop(self) -> None:
        self._stop.set()


def question(number: int) -> dict[str, object]:
    return {
        "model": CHAT_MODEL,
        "user": "ann",
        "messages": [{"role": "user", "content": f"Where is parcel {code(number)} of {code(number)[::-1]}?"}],
        "metadata": {"conversation_id": f"question {number}", "use_rerank": "false"},
    }


@pytest.mark.parametrize(("dims", "told"), [(384, True), (DIMS, False)])
def test_no_question_fails_and_none_is_searched_with_the_wrong_model(
    storage: Path, upstream: ScriptedUpstream, dims: int, told: bool
) -> None:
    """``told``: the service was started with the new model; otherwise it learns of it from the ledger alone."""
    record(storage, upstream, {"ann": [fact(number) for number in range(FACTS)]})
    with ScriptedUpstream(dims=dims, embedding_models=(OTHER_MODEL,)) as other:
        env = {
            "STORAGE_DIR": str(storage),
            "LLM_BASE_URL": upstream.base_url,
            "LLM_MODEL": CHAT_MODEL,
            "EMB_BASE_URL": other.base_url if told else upstream.base_url,
            "EMB_MODEL": OTHER_MODEL if told else MODEL,
        }
        other.fail_always("embed", Fault(hang_s=0.02))
        with service_process(env) as service, ThreadPoolExecutor(CLIENTS) as clients:
            load = Load(service)
            running = [clients.submit(load.run) for _ in range(CLIENTS)]
            try:
                rebuilt = subprocess.run(
                    [sys.executable, "-m", "projections.rebuild", "--model", OTHER_MODEL, "--base-url", other.base_url],
                    cwd=ROOT,
                    env=env | {"EMB_BATCH": "32"},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert rebuilt.returncode == 0, rebuilt.stderr
                enough = load.asked + AFTER_THE_SWITCH
                asyncio.run(reached(load, enough, running))
            finally:
                load.stop()
            for client in running:
                client.result()
    assert load.wrong == []
    retrievals = recorded(storage)
    assert len(retrievals) == load.asked
    models = [(retrieval.embedding_model, retrieval.dimensions) for retrieval in retrievals]
    assert set(models) == {(MODEL, DIMS), (OTHER_MODEL, dims)}, "the load met both generations"
    code_at = codes(storage)
    for retrieval in retrievals:
        best = min(retrieval.candidates, key=lambda candidate: candidate.rank)
        assert code_at[best.turn_position] in retrieval.query, "the nearest memory is the fact asked for"


async def reached(load: Load, enough: int, running: list[Future[None]]) -> None:
    while load.asked < enough:
        assert not all(client.done() for client in running), "the facts are used up: record more"
        await asyncio.sleep(0.01)


def recorded(storage: Path) -> list[RetrievalRecorded]:
    with opened_ledger(storage / "ledger.sqlite3") as ledger:
        events = ledger.reader.events_after(0, 1_000_000, [RetrievalRecorded.type])
    return [event.payload for event in events if isinstance(event.payload, RetrievalRecorded)]


def codes(storage: Path) -> dict[int, str]:
    """Return the first code in each turn, by position."""
    with opened_ledger(storage / "ledger.sqlite3") as ledger:
        events = ledger.reader.events_after(0, 1_000_000, [TurnRecorded.type])
    return {
        event.position: found.group()
        for event in events
        if isinstance(event.payload, TurnRecorded) and (found := re.search(r"k\d+x", event.payload.user))
    }

"""``python -m benchmarks.turn``: what memory adds to the time of a turn, as its history grows, and after a crash.

The service runs as a process in front of a scripted upstream without latency, another process on the same machine. The
added latency of a turn is its time, from the first byte sent to the last one read, minus the time that it waited for
upstream calls, as the service records it in the ledger: from composing a question to having read its answer, piece by
piece where it is streamed. Beside it stands its time minus that of the same four calls, byte for byte as the service
made them, made bare with the same client library: what is done while a call is waited for counts there too, and so does
what other work of the service adds to a call. Turns and bare calls of all sizes take turns in one run, so that whatever
else the machine does hits them alike; where it does much, both figures grow, and the bare calls tell by how much.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from openai import AsyncOpenAI, AsyncStream
from openai.types.chat import ChatCompletionChunk

from benchmarks.history import SHARED_WORD, make_history
from domain.events import GateDecided, RerankDecided, RetrievalRecorded, TurnRecorded
from domain.ledger import Ledger
from projections.embedding.endpoint import EmbeddingSpace
from tests.processes import ROOT, Service, service_process
from tests.upstream import CHAT_MODEL, EMBEDDING_MODEL, ScriptedUpstream

USER = "ann"
ANSWER = " ".join(f"word{number}" for number in range(60))
"""The same to every question: an answer that quotes memory would grow from turn to turn."""
CONVERSATION = "measured"
ADDED_MS_MAX = 10.0
GROWTH_MAX = 1.5
COLD_MS_MAX = 250.0
_CHAT_KINDS = ("gate", "rerank", "answer")
_WARM_UP_TURNS = 8
_COLD_STARTS = 3
_SETTLE_S = 0.3
"""After a turn: its summary, its vectors and its mirror line are written then, and belong to no turn's latency."""
_ACCEPTED_S = 0.05
"""After connecting: the service takes on the connection then, and not within the first turn."""
_QUIET_S = 0.5
"""After a summary: its vector is asked for last."""
_IDLE_TICKS_MAX = 5
"""Hundredths of a second of processor time within a second."""
_TIMEOUT_S = 120.0
_SEARCHED_TRIES_MAX = 300


@dataclass
class Measured:
    """One size of history: times in milliseconds, one per turn."""

    memories: int
    turns: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    search: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    calls_before: int = 0
    calls_after: int = 0

    @property
    def added(self) -> list[float]:
        return [turn - waited for turn, waited in zip(self.turns, self.waited, strict=True)]

    @property
    def over_bare(self) -> list[float]:
        return [turn - bare for turn, bare in zip(self.turns, self.bare, strict=True)]


@dataclass
class Setting:
    """A service with its history, and the bodies of the four calls that one of its turns makes."""

    service: Service
    storage_dir: Path
    measured: Measured
    bodies: Mapping[str, Mapping[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turn", description="Added latency of a turn.")
    parser.add_argument("--memories", type=int, nargs="+", default=[1_000, 50_000])
    parser.add_argument("--turns", type=int, default=100)
    parser.add_argument("--dims", type=int, default=1024)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="turn-") as folder, contextlib.ExitStack() as stack:
        upstream_url = stack.enter_context(_upstream_process(given.dims))
        settings = []
        for memories in given.memories:
            storage_dir = Path(folder) / str(memories)
            _note(f"making {memories} memories of {given.dims} dimensions")
            make_history(storage_dir, USER, memories, EmbeddingSpace(EMBEDDING_MODEL, given.dims, ""))
            env = _environment(storage_dir, upstream_url)
            _rebuild(env)
            measured = Measured(memories)
            bodies = _recorded_calls(env, given.dims, measured)
            service = stack.enter_context(service_process(env))
            _wait_until_searched(service)
            _wait_until_idle(service)
            settings.append(Setting(service, storage_dir, measured, bodies))
        _note(f"measuring {given.turns} turns of each")
        asyncio.run(_measure(settings, upstream_url, given.turns))
        for setting in settings:
            _read_own_account(setting, given.turns)
            _note(f"restarting the service with {setting.measured.memories} memories {_COLD_STARTS} times")
            _measure_cold(setting)
    _print_table([setting.measured for setting in settings])


@contextlib.contextmanager
def _upstream_process(dims: int) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.upstream", "--dims", str(dims), "--answer", ANSWER]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def _environment(storage_dir: Path, base_url: str) -> dict[str, str]:
    return {
        "STORAGE_DIR": str(storage_dir),
        "LLM_BASE_URL": base_url,
        "LLM_MODEL": CHAT_MODEL,
        "EMB_BASE_URL": base_url,
        "EMB_MODEL": EMBEDDING_MODEL,
        "PYTHONPATH": str(ROOT),
    }


def _rebuild(env: Mapping[str, str]) -> None:
    subprocess.run(
        [sys.executable, "-m", "projections.rebuild"],
        cwd=ROOT,
        env=dict(env),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _recorded_calls(env: Mapping[str, str], dims: int, measured: Measured) -> Mapping[str, Mapping[str, Any]]:
    """Run turns in front of an upstream that keeps what it is asked; return the last one's calls, and count them."""
    with (
        ScriptedUpstream(dims=dims) as upstream,
        service_process({**env, "LLM_BASE_URL": upstream.base_url, "EMB_BASE_URL": upstream.base_url}) as service,
        httpx2.Client(timeout=_TIMEOUT_S) as client,
    ):
        upstream.say("answer", ANSWER)
        _wait_until_idle(service)
        _wait_until_searched(service)
        for number in range(_WARM_UP_TURNS):
            upstream.forget_calls()
            client.post(f"{service.base_url}/v1/chat/completions", json=_request(number)).raise_for_status()
            came = time.monotonic()
            calls = [call for call in upstream.calls if call.started < came]
            upstream.wait_for("summary", ended=True)
            time.sleep(_QUIET_S)
    answer = next(call for call in calls if call.kind == "answer")
    assert answer.ended is not None
    measured.calls_before = sum(call.started < answer.started for call in calls)
    measured.calls_after = sum(call.kind != "summary" and call.started > answer.ended for call in calls)
    return {call.kind: call.body for call in calls}


def _wait_until_idle(service: Service) -> None:
    """Wait until the service has caught up with a history it did not see: it then uses next to no processor."""
    ticks_before = -1
    while True:
        fields = Path(f"/proc/{service.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        if ticks_before >= 0 and ticks - ticks_before <= _IDLE_TICKS_MAX:
            return
        ticks_before = ticks
        time.sleep(1.0)


def _wait_until_searched(service: Service) -> None:
    """Ask until memory is searched by meaning and by words: the first question has the words of a history indexed."""
    with httpx2.Client(timeout=_TIMEOUT_S) as client:
        for number in range(_SEARCHED_TRIES_MAX):
            answer = client.post(f"{service.base_url}/v1/chat/completions", json=_request(20_000 + number))
            answer.raise_for_status()
            if answer.json()["memory_status"]["retrieval"] == "ok":
                return
            time.sleep(2.0)
    raise AssertionError("memory is not searched by words in all this time")


def _request(number: int) -> dict[str, Any]:
    question = f"Which entry of the keeper's book did we read by the {SHARED_WORD} on evening {number}?"
    return {
        "model": CHAT_MODEL,
        "user": USER,
        "messages": [{"role": "user", "content": question}],
        "metadata": {"conversation_id": CONVERSATION},
    }


async def _measure(settings: list[Setting], upstream_url: str, turns: int) -> None:
    openai = AsyncOpenAI(base_url=upstream_url, api_key="not-needed", max_retries=0)
    async with openai:
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(_connected(setting.service)) for setting in settings]
            for number in range(_WARM_UP_TURNS + turns):
                for setting, connection in zip(settings, connections, strict=True):
                    turn_ms = _timed_turn(connection, number)
                    await asyncio.sleep(_SETTLE_S)
                    bare_ms = await _timed_bare(openai, setting.bodies)
                    if number >= _WARM_UP_TURNS:
                        setting.measured.turns.append(turn_ms)
                        setting.measured.bare.append(bare_ms)


@contextlib.contextmanager
def _connected(service: Service, settle_s: float = _ACCEPTED_S) -> Iterator[http.client.HTTPConnection]:
    """Open a connection of the plainest client there is: its own time is none of the service's."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", service.port, timeout=_TIMEOUT_S)) as connection:
        connection.connect()
        time.sleep(settle_s)
        yield connection


def _timed_turn(connection: http.client.HTTPConnection, number: int) -> float:
    body = json.dumps(_request(number))
    started = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    answer = connection.getresponse()
    content = answer.read()
    took_ms = (time.perf_counter() - started) * 1000
    assert answer.status == 200, content
    status = json.loads(content)["memory_status"]
    assert status["retrieval"] == "ok", status
    assert status["gate"]["outcome"] == status["rerank"]["outcome"] == "ok", status
    return took_ms


async def _timed_bare(client: AsyncOpenAI, bodies: Mapping[str, Mapping[str, Any]]) -> float:
    """Make the four calls of a turn as the service makes them, and nothing else."""
    started = time.perf_counter()
    await client.embeddings.create(model=EMBEDDING_MODEL, input=bodies["embed"]["input"])
    for kind in _CHAT_KINDS[:-1]:
        await client.post("/chat/completions", cast_to=object, body=bodies[kind])
    stream = await client.post(
        "/chat/completions",
        cast_to=ChatCompletionChunk,
        body=bodies["answer"],
        stream=True,
        stream_cls=AsyncStream[ChatCompletionChunk],
    )
    async with stream:
        async for _ in stream:
            pass
    return (time.perf_counter() - started) * 1000


def _read_own_account(setting: Setting, turns: int) -> None:
    """Read from the ledger how long the same turns waited for upstream."""
    ledger = Ledger(setting.storage_dir / "ledger.sqlite3")
    events = ledger.reader.events_after(0, 1_000_000, [TurnRecorded.type])
    ours = [event for event in events if event.conversation_id == CONVERSATION][-turns:]
    for event in ours:
        assert event.correlation_id is not None
        waited = 0.0
        for part in ledger.reader.events_of_answer(event.correlation_id):
            match part.payload:
                case RetrievalRecorded(embed_ms=embed_ms, search_ms=search_ms):
                    waited += embed_ms
                    setting.measured.search.append(search_ms)
                case GateDecided(latency_ms=latency_ms) | RerankDecided(latency_ms=latency_ms):
                    waited += latency_ms
                case TurnRecorded(timings_ms=timings_ms):
                    waited += timings_ms["answer"]
        setting.measured.waited.append(waited)
    ledger.close()


def _measure_cold(setting: Setting) -> None:
    for number in range(_COLD_STARTS):
        setting.service.kill9()
        setting.service.start()
        with _connected(setting.service, settle_s=0) as connection:
            setting.measured.cold.append(_timed_turn(connection, 10_000 + number))
        time.sleep(_SETTLE_S)


def _print_table(results: list[Measured]) -> None:
    def row(*cells: object) -> None:
        print("  ".join(f"{cell:>14}" for cell in cells))

    names = ("turn p50", "bare p50", "waited p50", "added p50", "added p95", "over bare", "search p50", "cold - warm")
    row("memories", *names)
    for result in results:
        turn, added = np.percentile(result.turns, 50), np.percentile(result.added, (50, 95))
        row(
            result.memories,
            *(
                f"{value:.1f} ms"
                for value in (
                    turn,
                    np.percentile(result.bare, 50),
                    np.percentile(result.waited, 50),
                    *added,
                    np.percentile(result.over_bare, 50),
                    np.percentile(result.search, 50),
                    np.median(result.cold) - turn,
                )
            ),
        )
    first, last = results[0], results[-1]
    grown = float(np.median(last.added) / np.median(first.added))
    over_bare = [float(np.median(result.over_bare)) for result in (first, last)]
    cold = float(np.median(last.cold) - np.median(last.turns))
    print()
    print(f"added p50 at {first.memories}: {np.median(first.added):.1f} ms (goal: at most {ADDED_MS_MAX:g} ms)")
    print(f"added p50 at {last.memories} over that: {grown:.2f} times (goal: at most {GROWTH_MAX:g} times)")
    print(f"over the same calls made bare: {over_bare[0]:.1f} ms, and {over_bare[1] / over_bare[0]:.2f} times that")
    print(f"cold start at {last.memories}: {cold:.0f} ms over a warm turn (goal: at most {COLD_MS_MAX:g} ms)")
    print(f"upstream calls before the answer's: {last.calls_before} (goal: 3), waited for after it: {last.calls_after}")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""``python -m benchmarks.load``: the service under load, beside bare proxies that make the same upstream calls.

Each is a process of its own on this machine: an upstream without latency, a FastAPI proxy through the ``openai``
package, two through plain HTTP clients, the service, and this one, which asks. A proxy makes the seven upstream calls
of one of the service's turns with the bodies that the service sent. N users ask as fast as they are answered, or one
user asks at a steady pace. Each has some memories from the start, so that gate and rerank have something to decide. A
cell of the service is a fixed number of turns, since its work grows with what was said: a faster one does the same. One
of a proxy, all of whose turns are alike, lasts a fixed time. The cells of all servers take turns.

Processor time counts until the background work of a cell is done, and so all of a turn's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import numpy as np

from benchmarks.history import make_histories, make_history
from benchmarks.lag import PATH as LAG_PATH
from benchmarks.load_proxy import CLIENTS, TIMEOUT_S, Body
from benchmarks.load_upstream import CALLS_PER_TURN
from benchmarks.running import (
    QUIET_S,
    chat_request,
    cpu_ms,
    is_quiet,
    progress,
    rebuild,
    service_environment,
    upstream_process,
    warm,
)
from projections.embedding.endpoint import EmbeddingSpace
from tests.processes import ROOT, Service, service_process
from tests.upstream import EMBEDDING_MODEL

TURNS = {1: 40, 4: 60, 16: 160, 64: 256}
"""Turns of a cell, by its users."""
FEW = 20
"""Memories of a user who has none to speak of: enough that there are candidates outside the recent window."""
PACE_S = 0.25
RATE_MIN, PACED_MAX, GROWTH_MAX, LAG_MS_MAX, FIRST_MS_MAX, WORKERS_MIN = 0.4, 2.0, 1.3, 10.0, 5.0, 1.6
_PLAIN = ("plain", "httpx")
"""The proxies through a plain HTTP client; which of the two is used makes a difference of several times."""
_POLL_S = 0.1
_DRAIN_S_MAX = 120.0
_KEEP_ALIVE_S = 150
"""Longer than the longest wait between two turns: a connection must not end while the next question is sent on it."""
_RECORDED_TURNS = 8
_OPENING_TURNS = 2
_PROXY_S = 4.0
_QUESTIONS_PER_CELL = 100_000
"""No question is asked twice."""
_FIRST_WORD = re.compile(rb'"content": ?"(\d+\.\d{6})[ "]')


@dataclass
class Server:
    """One of the processes that are asked."""

    name: str
    service: Service
    is_proxy: bool = False

    def pids(self) -> list[int]:
        return [self.service.pid, *_descendants(self.service.pid)]


@dataclass(frozen=True)
class Cell:
    """What is measured: who asks how. ``big`` is one user with many memories, among the others or alone."""

    server: str
    users: int
    big: str | None = None
    pace_s: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.server}{f', {self.big}' if self.big else ''}{', paced' if self.pace_s else ''}"


@dataclass
class Measured:
    """One run of a cell; times in milliseconds."""

    turns: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    big: list[float] = field(default_factory=list)
    degraded: int = 0
    took_s: float = 0.0
    drain_s: float = 0.0
    cpu_ms: float = 0.0
    upstream_cpu_ms: float = 0.0
    client_cpu_ms: float = 0.0
    lag: list[float] = field(default_factory=list)
    calls: int = 0

    def figures(self) -> dict[str, float]:
        count = len(self.turns)
        return {
            "turns/s": count / self.took_s,
            "p50": float(np.percentile(self.turns, 50)),
            "p99": float(np.percentile(self.turns, 99)),
            "big p50": float(np.percentile(self.big, 50)) if self.big else np.nan,
            "first p50": float(np.percentile(self.first, 50)),
            "first p99": float(np.percentile(self.first, 99)),
            "lag p99": float(np.percentile(self.lag, 99)) if self.lag else np.nan,
            "cpu": self.cpu_ms / count,
            "upstr cpu": self.upstream_cpu_ms / count,
            "client cpu": self.client_cpu_ms / count,
            "calls": self.calls / count,
            "drain s": self.drain_s,
            "degraded": float(self.degraded),
        }


@dataclass
class Bench:
    """All that runs, and who has not asked yet."""

    servers: Mapping[str, Server]
    upstream_url: str
    upstream_pid: int
    fresh: Iterator[str]
    bigs: Sequence[str]
    turns: Mapping[int, int]
    paced_turns: int
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))


def main() -> None:
    """Run the cells, print their medians and the goals."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description="The service under load.")
    parser.add_argument("--users", type=int, nargs="*", default=list(TURNS), help="users at once, a cell each")
    parser.add_argument(
        "--only", default="openai,httpx,plain,service", help="which servers: openai, httpx, plain, service"
    )
    parser.add_argument(
        "--big", type=int, default=20_000, help="memories of one user in a second cell; 0: no such cell"
    )
    parser.add_argument(
        "--paced", type=int, nargs="*", default=[1_000, 50_000], help="memories of users that ask alone"
    )
    parser.add_argument("--workers", type=int, default=0, help="measure the service with so many workers too")
    parser.add_argument("--turns", type=float, default=1.0, help="times the usual turns of a cell")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each cell; medians are printed")
    parser.add_argument("--dims", type=int, default=1024)
    parser.add_argument("--keep", type=Path, help="folder of made histories, for the next run")
    parser.add_argument("--quick", action="store_true", help="16 users and 1,000 memories alone, each once")
    given = parser.parse_args()
    if given.quick:
        given.users, given.big, given.paced, given.repeats = [16], 0, [1_000], 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    with tempfile.TemporaryDirectory(prefix="load-") as folder, contextlib.ExitStack() as stack:
        cells = _cells(given)
        asking = sum(cell.users for cell in cells if cell.server not in CLIENTS) * given.repeats
        users = [f"user {number}" for number in range(asking + 1)]
        bigs = sorted({memories for memories in (*given.paced, given.big) if memories})
        progress("making histories")
        made = _made(given.keep or Path(folder), users, bigs, given.dims)
        upstream_url, upstream_pid = stack.enter_context(upstream_process(given.dims))
        storage_dir = Path(folder) / "storage"
        shutil.copytree(made, storage_dir)
        env = service_environment(storage_dir, upstream_url)
        service = stack.enter_context(_running(env, "service.app:app"))
        servers = {"service": Server("service", service)}
        progress("recording the calls of a turn")
        calls = _recorded_calls(service, upstream_url, {"few": users[0], **{_big(n): _big(n) for n in bigs}})
        (Path(folder) / "calls.json").write_text(json.dumps(calls))
        for name in sorted({cell.server for cell in cells} - {"service"}):
            if name in CLIENTS:
                proxy_env = {
                    "PROXY_CLIENT": name,
                    "PROXY_UPSTREAM": upstream_url,
                    "PROXY_CALLS": str(Path(folder) / "calls.json"),
                    "PYTHONPATH": str(ROOT),
                }
                proxy = stack.enter_context(_running(proxy_env, "benchmarks.load_proxy:app"))
                servers[name] = Server(name, proxy, is_proxy=True)
            else:
                many = Path(folder) / "workers"
                shutil.copytree(made, many)
                options = ("--workers", str(given.workers))
                many_env = service_environment(many, upstream_url)
                servers[name] = Server(name, stack.enter_context(_running(many_env, "service.app:app", options)))
        turns = {count: max(count, round(TURNS.get(count, 4 * count) * given.turns)) for count in given.users}
        paced_turns = max(10, round(30 * given.turns))
        bench = Bench(servers, upstream_url, upstream_pid, iter(users[1:]), [_big(n) for n in bigs], turns, paced_turns)
        results = asyncio.run(_measure(bench, cells, given.repeats))
    medians = {cell: _medians(runs) for cell, runs in results.items()}
    _print_table(medians)
    _print_goals(medians, given)


def _cells(given: argparse.Namespace) -> list[Cell]:
    only = given.only.split(",")
    cells = []
    for users in given.users:
        cells += [Cell(name, users) for name in only]
        if given.big and "service" in only:
            cells.append(Cell("service", users, _big(given.big)))
        if given.workers:
            cells.append(Cell(_workers(given.workers), users))
    if given.paced:
        cells += [Cell(name, 1, _big(min(given.paced)), PACE_S) for name in only if name != "service"]
        cells += [Cell("service", 1, _big(memories), PACE_S) for memories in given.paced if "service" in only]
    return cells


def _big(memories: int) -> str:
    """Return the id of the user with so many memories."""
    return f"{memories} memories"


def _workers(count: int) -> str:
    return f"{count} workers"


def _made(keep: Path, users: Sequence[str], bigs: Sequence[int], dims: int) -> Path:
    """Make the histories of all users in one storage, or find them made."""
    made = keep / f"made-{len(users)}-{'-'.join(map(str, bigs))}-{dims}"
    if not made.exists():
        half = made.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        space = EmbeddingSpace(EMBEDDING_MODEL, dims, "")
        make_histories(half, users, FEW, space)
        first = FEW
        for memories in bigs:
            make_history(half, _big(memories), memories, space, first=first)
            first += memories
        with upstream_process(dims) as (url, _):
            rebuild(service_environment(half, url))
        half.rename(made)
    return made


@contextlib.contextmanager
def _running(env: Mapping[str, str], app: str, options: Sequence[str] = ()) -> Iterator[Service]:
    """Run an application behind the meter, and end its workers with it."""
    options = (*options, "--timeout-keep-alive", str(_KEEP_ALIVE_S))
    with service_process({**env, "MEASURED_APP": app}, app="benchmarks.lag:app", options=options) as service:
        try:
            yield service
        finally:
            workers = _descendants(service.pid)
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.terminate()
            for pid in workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _recorded_calls(service: Service, upstream_url: str, askers: Mapping[str, str]) -> dict[str, list[Body]]:
    """Run turns of each user; return the seven calls of the last one."""
    recorded = {}
    with httpx2.Client(timeout=TIMEOUT_S) as client:
        for name, user in askers.items():
            warm(client, service.base_url, user)
            for number in range(_RECORDED_TURNS):
                asked = _asked(user, number, "recorded", name)
                client.post(f"{service.base_url}/v1/chat/completions", json=asked).raise_for_status()
                _drain(client, upstream_url, [service.pid])
            last = client.get(_calls_url(upstream_url)).json()["last"]
            recorded[name] = _seven(last)
    return recorded


def _seven(last: list[tuple[str, Body]]) -> list[Body]:
    """Return the bodies of one turn, each text of the background in an embedding call of its own."""
    kinds = [kind for kind, _ in last]
    gate, answer = kinds.index("gate"), kinds.index("answer")
    afterwards = [
        {**body, "input": [text]} for kind, body in last[answer:] if kind == "embed" for text in body["input"]
    ]
    summary = last[kinds.index("summary", answer)][1]
    seven = [*(body for _, body in last[gate - 1 : answer + 1]), summary, *afterwards]
    assert kinds[gate - 1 : answer + 1] == ["embed", "gate", "rerank", "answer"], kinds
    assert len(seven) == CALLS_PER_TURN, kinds
    return seven


def _asked(user: str, number: int, conversation: str, calls: str) -> dict[str, Any]:
    # In a conversation of its own for each purpose: what a user has said in others are candidates.
    request = chat_request(user, number, conversation)
    return {**request, "stream": True, "metadata": {**request["metadata"], "calls": calls}}


async def _measure(bench: Bench, cells: Sequence[Cell], repeats: int) -> dict[Cell, list[Measured]]:
    results: dict[Cell, list[Measured]] = {cell: [] for cell in cells}
    with httpx2.Client(timeout=TIMEOUT_S) as client:
        # Whoever else has memories is in the same indices: all services hold the same, whichever cells they run.
        for server, user in itertools.product(bench.servers.values(), bench.bigs):
            if not server.is_proxy:
                warm(client, server.service.base_url, user)
        for repeat, cell in itertools.product(range(repeats), cells):
            result = await _measure_cell(bench, cell, client)
            results[cell].append(result)
            shown = {name: round(value, 1) for name, value in result.figures().items()}
            progress(f"{repeat + 1}/{repeats} {cell.users:>3} {cell.label}: {shown}")
    return results


async def _measure_cell(bench: Bench, cell: Cell, client: httpx2.Client) -> Measured:
    server = bench.servers[cell.server]
    url = f"{server.service.base_url}/v1/chat/completions"
    users = ["anybody"] * cell.users if server.is_proxy else list(itertools.islice(bench.fresh, cell.users))
    if cell.big is not None:
        users[0] = cell.big
    if not server.is_proxy:
        for user in users:
            warm(client, server.service.base_url, user)
    pids = server.pids()
    measured = Measured()
    turns = bench.paced_turns if cell.pace_s else bench.turns[cell.users]
    start = next(bench.numbers) * _QUESTIONS_PER_CELL
    conversation = f"measured {start}"
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
    ) as session:

        async def ask(numbers: Iterable[int], into: Measured) -> None:
            left = iter(numbers)
            asking = (_ask_on(session, url, user, conversation, cell, server, left, into) for user in users)
            await asyncio.gather(*asking)

        # Unmeasured: every connection is opened, here and to the upstream, and what is imported late is imported.
        await ask(range(start, start + _OPENING_TURNS * cell.users), Measured())
        await asyncio.to_thread(_drain, client, bench.upstream_url, pids)
        client.get(server.service.base_url + LAG_PATH)
        calls_before = _calls(client, bench.upstream_url)
        before = cpu_ms(pids), cpu_ms([bench.upstream_pid]), time.process_time() * 1000
        started = time.perf_counter()
        numbers: Iterable[int] = itertools.count(start + _QUESTIONS_PER_CELL // 2)
        if server.is_proxy and not cell.pace_s:
            numbers = itertools.takewhile(lambda _: time.perf_counter() < started + _PROXY_S, numbers)
        else:
            numbers = itertools.islice(numbers, turns)
        await ask(numbers, measured)
        measured.took_s = time.perf_counter() - started
        measured.client_cpu_ms = time.process_time() * 1000 - before[2]
    measured.lag = client.get(server.service.base_url + LAG_PATH).json()
    measured.drain_s = _drain(client, bench.upstream_url, pids)
    measured.cpu_ms = cpu_ms(pids) - before[0]
    measured.upstream_cpu_ms = cpu_ms([bench.upstream_pid]) - before[1]
    measured.calls = _calls(client, bench.upstream_url) - calls_before
    return measured


async def _ask_on(
    session: aiohttp.ClientSession,
    url: str,
    user: str,
    conversation: str,
    cell: Cell,
    server: Server,
    left: Iterator[int],
    measured: Measured,
) -> None:
    """Ask, as one user, until all turns of the cell are taken."""
    calls = cell.big if cell.pace_s and cell.big else "few"
    due = time.perf_counter()
    for number in left:
        asked = json.dumps(_asked(user, number, conversation, calls)).encode()
        started = time.perf_counter()
        async with session.post(url, data=asked, headers={"content-type": "application/json"}) as answer:
            came_first, said = 0.0, b""
            async for data in answer.content.iter_any():
                said += data
                if not came_first and (first := _FIRST_WORD.search(said)):
                    came_first = (time.monotonic() - float(first[1])) * 1000
        took_ms = (time.perf_counter() - started) * 1000
        assert answer.status == 200, said
        assert came_first, said
        assert said.rstrip().endswith(b"[DONE]"), said[-500:]
        measured.turns.append(took_ms)
        measured.first.append(came_first)
        if user == cell.big:
            measured.big.append(took_ms)
        measured.degraded += not (server.is_proxy or _is_whole(said))
        if cell.pace_s:
            due = max(due + cell.pace_s, time.perf_counter())
            await asyncio.sleep(due - time.perf_counter())


def _is_whole(said: bytes) -> bool:
    """Tell whether memory was searched in full, and judged by gate and rerank."""
    status = json.loads(said[len("data: ") : said.index(b"\n\n")])["memory_status"]
    return bool(status["retrieval"] == status["gate"]["outcome"] == status["rerank"]["outcome"] == "ok")


def _drain(client: httpx2.Client, upstream_url: str, pids: Sequence[int]) -> float:
    """Wait until the background work is done; return the seconds until the last upstream call that was seen."""
    started = last = time.perf_counter()
    calls = _calls(client, upstream_url)
    while time.perf_counter() - last < QUIET_S or not is_quiet(pids):
        time.sleep(_POLL_S)
        if (now := _calls(client, upstream_url)) != calls:
            calls, last = now, time.perf_counter()
        assert time.perf_counter() - started < _DRAIN_S_MAX, "the background work does not end"
    return last - started


def _calls(client: httpx2.Client, upstream_url: str) -> int:
    return int(client.get(_calls_url(upstream_url)).json()["count"])


def _calls_url(upstream_url: str) -> str:
    return upstream_url.removesuffix("/v1") + "/_calls"


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(path.parent.name))
    found = parents.get(pid, [])
    return found + [deeper for child in found for deeper in _descendants(child)]


def _medians(runs: Sequence[Measured]) -> dict[str, float]:
    figures = [run.figures() for run in runs]
    return {name: float(np.median([each[name] for each in figures])) for name in figures[0]}


def _print_table(medians: Mapping[Cell, Mapping[str, float]]) -> None:
    names = list(next(iter(medians.values())))
    print(f"{'users':>5} {'server':36}" + "".join(f"{name:>11}" for name in names))
    for cell, figures in medians.items():
        row = "".join(f"{'-' if np.isnan(value) else f'{value:.1f}':>11}" for value in figures.values())
        print(f"{cell.users:>5} {cell.label:36}{row}")
    print(
        "\nTimes in ms but for the drain's. cpu: of the server until drained, a turn. lag: of the server's event loop."
    )
    print("first: from the upstream's first word until it came here. big: turns of the user with many memories alone.")


def _print_goals(medians: Mapping[Cell, Mapping[str, float]], given: argparse.Namespace) -> None:
    def figure(cell: Cell, name: str) -> float:
        return medians[cell][name] if cell in medians else np.nan

    def goal(text: str, value: float, bound: float, *, at_least: bool = False) -> None:
        if not np.isnan(value):
            met = value >= bound if at_least else value <= bound
            sign = "at least" if at_least else "at most"
            print(f"{text}: {value:.2f} (goal: {sign} {bound:g}) {'met' if met else 'MISSED'}")

    print()
    for users in given.users:
        ours = Cell("service", users)
        for name in _PLAIN:
            rate = figure(ours, "turns/s") / figure(Cell(name, users), "turns/s")
            goal(f"{users} users: turns/s over the {name} proxy's", rate, RATE_MIN, at_least=True)
        goal(f"{users} users: p99 of the event loop's lag, ms", figure(ours, "lag p99"), LAG_MS_MAX)
        goal(f"{users} users: p50 from the upstream's first word, ms", figure(ours, "first p50"), FIRST_MS_MAX)
        if given.workers:
            many = figure(Cell(_workers(given.workers), users), "turns/s") / figure(ours, "turns/s")
            goal(
                f"{users} users: {_workers(given.workers)} over one, all on this machine",
                many,
                WORKERS_MIN,
                at_least=True,
            )
    if given.paced:
        least, most = min(given.paced), max(given.paced)
        small, large = (figure(Cell("service", 1, _big(n), PACE_S), "p50") for n in (least, most))
        ours = Cell("service", 1, _big(least), PACE_S)
        goal(
            f"paced, {least} memories: p50 from the upstream's first word, ms", figure(ours, "first p50"), FIRST_MS_MAX
        )
        for name in _PLAIN:
            ratio = small / figure(Cell(name, 1, _big(least), PACE_S), "p50")
            goal(f"paced, {least} memories: p50 over the {name} proxy's", ratio, PACED_MAX)
        if most > least:
            goal(f"paced: p50 with {most} memories over that with {least}", large / small, GROWTH_MAX)


if __name__ == "__main__":
    main()

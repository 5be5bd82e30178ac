"""``python -m benchmarks.steady``: the service for half an hour at 80 % of its maximum; what grows, and what stays.

Upstream, service and this process are processes of their own on this machine. First everybody asks as fast as they are
answered: until each has as many memories as a question has candidates, and then for the maximum. From then on
questions come at a steady pace, whether or not the ones before them are answered, so that a service that falls behind
shows it. Every ten seconds the service's memory, open handles, write-ahead log, and the lag behind the ledger are read
from outside: of the mirror by its lines, of the vectors by their checkpoint, and of the summaries as the service says.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks.running import TIMEOUT_S, chat_request, progress, service_environment, upstream_process
from projections.embedding.cache import VectorCache
from projections.mirror.mirror import mirror_files
from tests.processes import Service, service_process

_MEMORIES = 60
"""As many as a question has candidates: from then on a turn costs the same."""
_MAXIMUM_S = 60.0
_SAMPLE_S = 10.0
_SLICES = 6
_COLUMNS = (
    *("minutes", "turns/s", "p50 ms", "p99 ms", "late s"),
    *("memory MiB", "handles", "WAL MiB", "mirror", "vectors", "summaries"),
)
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """What was seen at a moment. Lags are in events and in turns; ``late_s`` is how late questions are sent."""

    at_s: float
    rss_mib: float
    handles: int
    wal_mib: float
    mirror_lag: int
    vectors_lag: int
    summaries_waiting: int
    turns: int
    late_s: float


@dataclass
class Asked:
    """The turns of a phase; ``took_ms`` counts from when a question was due."""

    took_ms: list[float] = field(default_factory=list)
    failed: int = 0
    late_s: float = 0.0


class Mirrored:
    """Counts the lines of all mirror files, reading each byte once."""

    def __init__(self, storage_dir: Path) -> None:
        self._storage_dir = storage_dir
        self._read: dict[Path, int] = {}
        self._lines = 0

    def lines(self) -> int:
        for path in mirror_files(self._storage_dir):
            if path.suffix != ".jsonl":
                continue
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                content = file.read()
            self._read[path] = self._read.get(path, 0) + len(content)
            self._lines += content.count(b"\n")
        return self._lines


@dataclass
class Asker:
    """People who ask in turn, each in a conversation of their own."""

    session: aiohttp.ClientSession
    base_url: str
    users: int
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def ask(self, due_s: float, into: Asked) -> None:
        number = next(self.numbers)
        user = f"user-{number % self.users}"
        body = chat_request(user, number, "steady")
        into.late_s = max(into.late_s, time.monotonic() - due_s)
        async with self.session.post(f"{self.base_url}/v1/chat/completions", json=body) as answer:
            await answer.read()
            into.failed += answer.status != 200
        into.took_ms.append((time.monotonic() - due_s) * 1000)

    async def at_full_speed(self, turns: int | None = None, seconds: float | None = None) -> float:
        """Ask for so many turns, or so long; return the turns per second."""
        begun, asked = time.monotonic(), Asked()

        async def on_and_on() -> None:
            while (turns is None or len(asked.took_ms) < turns) and (
                seconds is None or time.monotonic() - begun < seconds
            ):
                await self.ask(time.monotonic(), asked)

        await asyncio.gather(*(on_and_on() for _ in range(self.users)))
        assert not asked.failed, f"{asked.failed} turns failed at full speed"
        return len(asked.took_ms) / (time.monotonic() - begun)

    async def at_pace(self, rate: float, seconds: float, asked: Asked) -> None:
        """Ask ``rate`` questions a second. Of those that wait for an answer there are at most ten for each person."""
        begun = time.monotonic()
        waiting: set[asyncio.Task[None]] = set()
        for number in range(int(rate * seconds)):
            due_s = begun + number / rate
            await asyncio.sleep(due_s - time.monotonic())
            if len(waiting) >= 10 * self.users:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            task = asyncio.create_task(self.ask(due_s, asked))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)


async def _sampled(
    service: Service, storage_dir: Path, session: aiohttp.ClientSession, asked: Asked, into: list[Sample]
) -> None:
    mirrored, begun = Mirrored(storage_dir), time.monotonic()
    vectors = VectorCache(storage_dir / "vectors.sqlite3", half=True)
    for number in itertools.count(1):
        await asyncio.sleep(begun + number * _SAMPLE_S - time.monotonic())
        # Before the head of the ledger, or who follows it quickly would seem to be ahead.
        lines = await asyncio.to_thread(mirrored.lines)
        [(space_id, _)] = await asyncio.to_thread(vectors.spaces)
        embedded = await asyncio.to_thread(vectors.position, space_id)
        async with session.get(f"{service.base_url}/health/ready") as answer:
            checks = (await answer.json())["checks"]
        rss_mib, handles, wal_mib = _used(service.pid, storage_dir)
        sample = Sample(
            at_s=time.monotonic() - begun,
            rss_mib=rss_mib,
            handles=handles,
            wal_mib=wal_mib,
            mirror_lag=max(checks["ledger"]["position"] - lines, 0),
            vectors_lag=max(checks["ledger"]["position"] - embedded, 0),
            summaries_waiting=checks["summaries"].get("waiting", 0),
            turns=len(asked.took_ms),
            late_s=asked.late_s,
        )
        asked.late_s = 0.0
        into.append(sample)
        progress(str(sample))


def _used(pid: int, storage_dir: Path) -> tuple[float, int, float]:
    """Return a process's memory, its open handles, and the size of the write-ahead log; sizes in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    wal = storage_dir / "ledger.sqlite3-wal"
    handles = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return rss_kib / 1024, handles, wal.stat().st_size / _MIB if wal.exists() else 0.0


@asynccontextmanager
async def _session(users: int) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=10 * users)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session:
        yield session


async def _run(service: Service, storage_dir: Path, given: argparse.Namespace) -> None:
    async with _session(given.users) as session:
        asker = Asker(session, service.base_url, given.users)
        progress("everybody says as much as a question has candidates")
        await asker.at_full_speed(turns=_MEMORIES * given.users)
        maximum = await asker.at_full_speed(seconds=_MAXIMUM_S)
        rate = given.share * maximum
        print(f"maximum {maximum:.1f} turns/s; asked at {rate:.1f} turns/s by {given.users} people\n", flush=True)
        asked, samples = Asked(), list[Sample]()
        sampling = asyncio.create_task(_sampled(service, storage_dir, session, asked, samples))
        await asker.at_pace(rate, given.minutes * 60, asked)
        sampling.cancel()
    _print_table(samples, asked)


def _print_table(samples: Sequence[Sample], asked: Asked) -> None:
    print(f"| {' | '.join(_COLUMNS)} |\n|{' --- |' * len(_COLUMNS)}")
    before = (0.0, 0)
    for part in np.array_split(np.arange(len(samples)), min(_SLICES, len(samples))):
        seen = [samples[at] for at in part]
        last = seen[-1]
        took = asked.took_ms[before[1] : last.turns] or [np.nan]
        print(
            f"| {before[0] / 60:.0f} to {last.at_s / 60:.0f} "
            f"| {(last.turns - before[1]) / (last.at_s - before[0]):.1f} "
            f"| {np.percentile(took, 50):.0f} | {np.percentile(took, 99):.0f} "
            f"| {max(each.late_s for each in seen):.2f} "
            f"| {_typical(each.rss_mib for each in seen)} "
            f"| {max(each.handles for each in seen)} | {max(each.wal_mib for each in seen):.1f} "
            f"| {_typical(each.mirror_lag for each in seen)} | {_typical(each.vectors_lag for each in seen)} "
            f"| {_typical(each.summaries_waiting for each in seen)} |"
        )
        before = (last.at_s, last.turns)
    print(f"\n{len(asked.took_ms)} turns, {asked.failed} failed. Late: how long after it was due a question was sent.")
    print("Mirror, vectors: events of the ledger that they lack. Summaries: turns that wait for theirs.")


def _typical(values: Iterable[float]) -> str:
    seen = list(values)
    return f"{np.median(seen):.0f} (at most {max(seen):.0f})"


def main() -> None:
    """Run the service, and print a table with a line for each sixth of the time."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.steady", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--share", type=float, default=0.8, help="of the maximum")
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--dims", type=int, default=1024)
    given = parser.parse_args()
    if not Path("/proc/self/fd").exists():
        sys.exit("this takes Linux: it reads a process's memory and handles in /proc")
    with tempfile.TemporaryDirectory(prefix="steady-") as folder, upstream_process(given.dims) as (upstream_url, _):
        storage_dir = Path(folder) / "storage"
        storage_dir.mkdir()
        env = service_environment(storage_dir, upstream_url)
        with service_process(env, app=None) as service:
            asyncio.run(_run(service, storage_dir, given))


if __name__ == "__main__":
    main()

"""``python -m benchmarks.rebuild``: how fast a rebuild is, from cached vectors and from an endpoint, and its memory.

From cached vectors, the baseline is a loop that only looks up the same vectors and writes them, one file per user. From
an endpoint, it is a loop that only sends the same texts in batches of the same size, as many at once. Baseline and
rebuild alternate in one run, so that other work on the machine affects both alike. Processor time is printed too: on a
shared machine it says more than the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from openai import AsyncOpenAI

from benchmarks.history import make_history
from domain.ledger import Ledger
from domain.sqlite import DRIVER
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.endpoint import EmbeddingSpace
from tests.processes import ROOT
from tests.upstream import EMBEDDING_MODEL

CACHED_PER_S_MIN = 20_000
ENDPOINT_RATIO_MIN = 0.9
RSS_MB_MAX = 2048
_BATCH = 64
_CONCURRENCY = 4
_LOOKUP = 500
_READ = 8192
_SAMPLE_S = 0.1


@dataclass(frozen=True)
class Run:
    """One rebuild: its own report, the processor seconds of all its processes, and their peak total RSS."""

    memories: int
    embedded: int
    seconds: float
    cpu_s: float
    rss_mb: float


def main() -> None:
    """Measure and print; exit with status 1 if a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rebuild", description=__doc__)
    parser.add_argument("--memories", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--embed-memories", type=int, default=8000, help="memories of the run from an endpoint")
    parser.add_argument("--embed-ms", type=float, default=50.0, help="what the endpoint takes for a request")
    parser.add_argument("--storage", type=Path, help="make the histories here once and keep them")
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = given.storage or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        endpoint = stack.enter_context(serving(given.dims, given.embed_ms))
        cached = from_cache(folder / f"cached-{given.memories}-{given.users}-{given.dims}", endpoint, given)
        embedded = from_endpoint(folder / f"embedded-{given.embed_memories}-{given.dims}", endpoint, given)
    sys.exit(0 if cached and embedded else 1)


def from_cache(storage: Path, endpoint: str, given: argparse.Namespace) -> bool:
    """Compare rebuilds that find every vector in the cache with a loop that reads and writes the same vectors."""
    space = EmbeddingSpace(EMBEDDING_MODEL, given.dims, "")
    each = given.memories // given.users
    if not storage.exists():
        for user in range(given.users):
            make_history(storage, f"user {user:05}", each, space, first=user * each)
        followed(storage, space)
    hashes = hashes_of(storage)
    bare: list[float] = []
    runs: list[Run] = []
    for _ in range(given.rounds):
        bare.append(read_and_write(storage, space, hashes))
        runs.append(rebuilt(storage, endpoint))
    best = min(runs, key=lambda run: run.seconds)
    rate, rss_mb = best.memories / best.seconds, max(run.rss_mb for run in runs)
    print(f"from the cache, {best.memories} memories of {given.users} users, {given.dims} dimensions:")
    print(
        f"  {rate:,.0f} memories/s at best (at least {CACHED_PER_S_MIN:,} wanted), median of {given.rounds} rounds ",
        end="",
    )
    print(f"{best.memories / median(run.seconds for run in runs):,.0f}")
    print(
        f"  {best.memories / min(run.cpu_s for run in runs):,.0f} memories per second of processor time, start included"
    )
    print(f"  {min(bare) / best.seconds:.2f} of the rate of only reading and writing the vectors ({min(bare):.2f} s)")
    print(f"  {rss_mb:,.0f} MB of memory at most (less than {RSS_MB_MAX:,} wanted)\n")
    return rate >= CACHED_PER_S_MIN and rss_mb < RSS_MB_MAX


def from_endpoint(storage: Path, endpoint: str, given: argparse.Namespace) -> bool:
    """Compare rebuilds that find no vector in the cache with a loop that only requests them."""
    if not storage.exists():
        make_history(storage, "user", given.embed_memories, EmbeddingSpace(EMBEDDING_MODEL, given.dims, ""))
    texts = texts_of(storage)
    ratios: list[float] = []
    for _ in range(given.rounds):
        bare_s = asyncio.run(bare_loop(endpoint, texts))
        for name in ("vectors.sqlite3", "vectors.sqlite3-wal", "vectors.sqlite3-shm"):
            (storage / name).unlink(missing_ok=True)
        run = rebuilt(storage, endpoint)
        assert run.embedded == len(texts)
        ratios.append(bare_s / run.seconds)
        print(f"  bare {len(texts) / bare_s:,.0f} texts/s, rebuild {len(texts) / run.seconds:,.0f} texts/s")
    print(
        f"from the endpoint, {len(texts)} texts, {given.embed_ms:g} ms a request of {_BATCH}, {_CONCURRENCY} at once:"
    )
    print(f"  {max(ratios):.2f} of the bare loop's rate at best, median {median(ratios):.2f} ", end="")
    print(f"(at least {ENDPOINT_RATIO_MIN} wanted)")
    return max(ratios) >= ENDPOINT_RATIO_MIN


def rebuilt(storage: Path, endpoint: str) -> Run:
    """Run the command and watch its memory."""
    env = os.environ | {
        "STORAGE_DIR": str(storage),
        "EMB_BASE_URL": endpoint,
        "EMB_MODEL": EMBEDDING_MODEL,
        "EMB_BATCH": str(_BATCH),
        "EMB_CONCURRENCY": str(_CONCURRENCY),
    }
    command = [sys.executable, "-m", "projections.rebuild", "--json"]
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as process:
        peak = [0.0]
        watching = threading.Thread(target=watch, args=(process.pid, peak))
        watching.start()
        assert process.stdout is not None
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        watching.join()
    assert process.returncode == 0, out
    done = json.loads(out)
    return Run(done["memories"], done["embedded"], done["seconds"], usage.ru_utime + usage.ru_stime, peak[0])


def watch(pid: int, peak: list[float]) -> None:
    """Keep the peak total RSS of a process and its children, in MB; shared mapped pages count twice."""
    while True:
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            resident = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in (pid, *children)]
        except (OSError, IndexError):
            if not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return
            continue
        if not resident[0]:
            return  # it has ended and waits for its parent
        peak[0] = max(peak[0], sum(resident) * os.sysconf("SC_PAGE_SIZE") / 1e6)
        time.sleep(_SAMPLE_S)


def followed(storage: Path, space: EmbeddingSpace) -> None:
    """Move the position of the cache to the head of the ledger, as a service does that has embedded everything."""
    ledger = Ledger(storage / "ledger.sqlite3")
    cache = VectorCache(storage / "vectors.sqlite3", half=True)
    cache.put(cache.space_id(space), {}, position=ledger.reader.head_position())
    cache.close()
    ledger.close()


def texts_of(storage: Path) -> list[str]:
    """Return all texts, in the order of the ledger."""
    return [text for _, text in changes_of(storage)]


def hashes_of(storage: Path) -> dict[str, list[bytes]]:
    """Return the hashes of each user's texts."""
    hashes: dict[str, list[bytes]] = {}
    for user, text in changes_of(storage):
        hashes.setdefault(user, []).append(text_hash(text))
    return hashes


def changes_of(storage: Path) -> Iterator[tuple[str, str]]:
    """Yield the user and the text of everything that is embedded."""
    ledger = Ledger(storage / "ledger.sqlite3")
    position = -1
    while True:
        after = max(position, 0)
        changes, position = ledger.reader.facet_texts(None, after, _READ)
        if position == after:
            break
        yield from ((change.user_id, change.text) for change in changes if change.text is not None)
    ledger.close()


def read_and_write(storage: Path, space: EmbeddingSpace, hashes: dict[str, list[bytes]]) -> float:
    """Look up every vector and write it to a file of its user; return the seconds it took."""
    cache = VectorCache(storage / "vectors.sqlite3", half=True)
    space_id = cache.space_id(space)
    cache.close()
    started = time.perf_counter()
    with (
        contextlib.closing(DRIVER.connect(storage / "vectors.sqlite3")) as connection,
        tempfile.TemporaryDirectory(dir=storage) as folder,
    ):
        for user, wanted in hashes.items():
            blobs: dict[bytes, bytes] = {}
            for first in range(0, len(wanted), _LOOKUP):
                part = wanted[first : first + _LOOKUP]
                marks = ",".join("?" * len(part))
                query = f"SELECT text_hash, vector FROM vectors WHERE space_id = ? AND text_hash IN ({marks})"  # noqa: S608
                blobs.update(connection.execute(query, (space_id, *part)).fetchall())
            with (Path(folder) / user).open("wb") as file:
                file.write(b"".join(blobs[key] for key in wanted))
                file.flush()
                os.fsync(file.fileno())
    return time.perf_counter() - started


async def bare_loop(endpoint: str, texts: list[str]) -> float:
    """Send all texts in full batches, several at once, and ignore the vectors; return the seconds it took."""
    batches = iter([texts[first : first + _BATCH] for first in range(0, len(texts), _BATCH)])
    async with AsyncOpenAI(base_url=endpoint, api_key="none", max_retries=0) as client:

        async def sender() -> None:
            for batch in batches:
                await client.embeddings.create(model=EMBEDDING_MODEL, input=batch)

        started = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(_CONCURRENCY)))
        return time.perf_counter() - started


@contextlib.contextmanager
def serving(dims: int, embed_ms: float) -> Iterator[str]:
    """Run the scripted endpoint as a process; yield its base URL."""
    command = [sys.executable, "-m", "tests.upstream", "--dims", str(dims), "--embed-ms", str(embed_ms)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


if __name__ == "__main__":
    main()

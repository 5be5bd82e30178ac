"""``python -m benchmarks.many_users``: how many users fit into memory, and what a search costs each of them.

Every user is searched twice: first in turn, which is the first search since the start, then in random order, when most
have been evicted. The memory counted is that of this process, which holds all that a service holds for its index:
ledger readers, the vector cache, and open indices. Another process makes the histories.

With ``--service`` the whole service is measured, as a process of its own: every user asks it one question, searched by
meaning and by words, and it answers and records the turn.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import resource
import tempfile
import time
from collections.abc import Iterable
from multiprocessing import get_context
from pathlib import Path

import httpx2
import numpy as np

from benchmarks.history import SHARED_WORD, make_histories
from benchmarks.running import TIMEOUT_S, progress, rebuild, service_environment, upstream_process
from domain.ledger import Ledger
from projections.dense.dense_index import DenseIndex
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient, EmbeddingSpace
from projections.settings import ProjectionSettings
from tests.processes import service_process
from tests.upstream import CHAT_MODEL, EMBEDDING_MODEL

RSS_MB_MAX = 1024
_WANTED = 66
_WARM_MAX = 2000


def main() -> None:
    """Print times and memory, and whether the goal is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_users", description="Memory of many users.")
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--memories", type=int, default=100)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--cache-mb", type=int, default=512, help="INDEX_CACHE_MB")
    parser.add_argument("--rebuild", action="store_true", help="write every user's snapshot first")
    parser.add_argument("--service", action="store_true", help="ask a whole service")
    given = parser.parse_args()
    users = [f"user {number}" for number in range(given.users)]
    with tempfile.TemporaryDirectory(prefix="users-") as folder, upstream_process(given.dims) as (upstream_url, _):
        progress(f"making {given.memories} memories for each of {given.users} users")
        space = EmbeddingSpace(EMBEDDING_MODEL, given.dims, "")
        making = get_context("spawn").Process(target=make_histories, args=(Path(folder), users, given.memories, space))
        making.start()
        making.join()
        assert making.exitcode == 0
        settings = ProjectionSettings.model_validate(
            {
                "storage_dir": folder,
                "emb_base_url": upstream_url,
                "emb_model": EMBEDDING_MODEL,
                "index_cache_mb": given.cache_mb,
            }
        )
        if given.rebuild:
            rebuild(service_environment(Path(folder), upstream_url))
        if given.service:
            _ask_service(settings, upstream_url, users)
        else:
            asyncio.run(_measure(settings, users))


def _ask_service(settings: ProjectionSettings, upstream_url: str, users: list[str]) -> None:
    env = service_environment(settings.storage_dir, upstream_url) | {"INDEX_CACHE_MB": str(settings.index_cache_mb)}
    request = {
        "model": CHAT_MODEL,
        "messages": [{"role": "user", "content": f"What did we read by the {SHARED_WORD}?"}],
        "metadata": {"use_gate": False, "use_rerank": False},
    }
    times: list[float] = []
    degraded = 0
    with service_process(env) as service, httpx2.Client(timeout=TIMEOUT_S) as client:
        before = _resident_mb(service.pid)
        for user in users:
            started = time.perf_counter()
            answer = client.post(f"{service.base_url}/v1/chat/completions", json={**request, "user": user})
            times.append((time.perf_counter() - started) * 1000)
            answer.raise_for_status()
            degraded += answer.json()["memory_status"]["retrieval"] != "ok"
        held, peak_mb = _resident_mb(service.pid), _status_mb("VmHWM", service.pid)
    print(f"turns of {len(users)} users p50 {np.percentile(times, 50):.0f} ms   p95 {np.percentile(times, 95):.0f} ms")
    print(f"answered without all of memory: {degraded}")
    for name, resident in (("before", before), ("after every user", held)):
        print(f"resident memory {name}: {resident[0]:.0f} MB own and {resident[1]:.0f} MB of mapped files")
    _print_goal(peak_mb)


async def _measure(settings: ProjectionSettings, users: list[str]) -> None:
    ledger = Ledger(settings.ledger_path)
    cache = VectorCache(settings.vector_cache_path, half=settings.index_storage == "fp16")
    client = EmbeddingClient(settings)
    index = DenseIndex(ledger, client, cache, settings)
    await index.search("nobody", SHARED_WORD, _WANTED)
    before = _resident_mb()
    first = await _searched(index, users)
    held = _resident_mb()
    warm = await _searched(index, (users[-1] for _ in range(100)))
    order = random.Random(3).choices(users, k=_WARM_MAX)  # noqa: S311 - an order, not a secret
    again = await _searched(index, order)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    descriptors = _descriptors()
    await index.close()
    await client.close()
    cache.close()
    ledger.close()
    for name, times in (("first search", first), ("warm search", warm), ("in random order", again)):
        print(f"{name:16} p50 {np.percentile(times, 50):7.2f} ms   p95 {np.percentile(times, 95):7.2f} ms")
    for name, resident in (("before", before), ("after every user", held)):
        print(f"resident memory {name}: {resident[0]:.0f} MB own and {resident[1]:.0f} MB of mapped files")
    print(f"open indices: {len(index.store.held)} of {len(users)}, counted as {index.store.held.nbytes / 2**20:.0f} MB")
    print(f"file descriptors: {descriptors}")
    _print_goal(peak_mb)


async def _searched(index: DenseIndex, users: Iterable[str]) -> list[float]:
    """Search for each user; return the milliseconds without the embedding call."""
    times: list[float] = []
    for user in users:
        started = time.perf_counter()
        found = await index.search(user, f"What did we read by the {SHARED_WORD}?", _WANTED)
        times.append((time.perf_counter() - started) * 1000 - found.embed_ms)
        assert user == "nobody" or len(found.hits) == _WANTED, user
    return times


def _resident_mb(pid: int | str = "self") -> tuple[float, float]:
    """Return the MB that a process has allocated, and those of mapped files, which the kernel may reclaim."""
    return _status_mb("RssAnon", pid), _status_mb("RssFile", pid)


def _status_mb(name: str, pid: int | str) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


def _print_goal(peak_mb: float) -> None:
    print(f"at most {peak_mb:.0f} MB (goal: {RSS_MB_MAX} MB): {'met' if peak_mb <= RSS_MB_MAX else 'MISSED'}")


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


if __name__ == "__main__":
    main()

"""Start what the benchmarks measure: a cheap upstream, and a service that uses it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.history import SHARED_WORD
from tests.processes import ROOT
from tests.upstream import CHAT_MODEL, EMBEDDING_MODEL

TIMEOUT_S = 120.0
QUIET_S = 0.6
_QUIET_TICKS_MAX = 4
"""Of a hundredth of a second each, within ``QUIET_S``: what an idle process and its meter use."""
_TICK_MS = 10.0
_WARM_TRIES_MAX = 300
_WARM_QUESTION = 50_000


def progress(text: str) -> None:
    """Tell what happens, beside the figures on standard output."""
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def upstream_process(dims: int) -> Iterator[tuple[str, int]]:
    """Run :mod:`benchmarks.load_upstream`; yield its base URL and its process id."""
    command = [sys.executable, "-m", "benchmarks.load_upstream", "--dims", str(dims)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


def service_environment(storage_dir: Path, upstream_url: str) -> dict[str, str]:
    """Return the environment of a service on a storage folder."""
    return {
        "STORAGE_DIR": str(storage_dir),
        "LLM_BASE_URL": upstream_url,
        "LLM_MODEL": CHAT_MODEL,
        "EMB_BASE_URL": upstream_url,
        "EMB_MODEL": EMBEDDING_MODEL,
        "PYTHONPATH": str(ROOT),
    }


def rebuild(env: Mapping[str, str]) -> None:
    """Write the projections of a made history."""
    subprocess.run(
        [sys.executable, "-m", "projections.rebuild"],
        cwd=ROOT,
        env=dict(env),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def chat_request(user: str, number: int, conversation: str) -> dict[str, Any]:
    """Return a request for memories of a made history; each number is another question."""
    question = f"Which entry of the keeper's book did we read by the {SHARED_WORD} on evening {number}?"
    return {
        "model": CHAT_MODEL,
        "user": user,
        "messages": [{"role": "user", "content": question}],
        "metadata": {"conversation_id": conversation, "use_rerank": "true"},
    }


def warm(client: httpx2.Client, base_url: str, user: str) -> None:
    """Ask until the user's memory is searched in full: the first questions start the indexing of the history."""
    for number in range(_WARM_QUESTION, _WARM_QUESTION + _WARM_TRIES_MAX):
        answer = client.post(f"{base_url}/v1/chat/completions", json=chat_request(user, number, "warm"))
        answer.raise_for_status()
        if answer.json()["memory_status"]["retrieval"] == "ok":
            return
        time.sleep(1.0)
    raise AssertionError(f"after {_WARM_TRIES_MAX} questions the memory of {user} is still not searched in full")


def is_quiet(pids: Sequence[int]) -> bool:
    """Watch processes for ``QUIET_S``; return whether they use next to no processor time."""
    before = cpu_ms(pids)
    time.sleep(QUIET_S)
    return cpu_ms(pids) - before <= _QUIET_TICKS_MAX * _TICK_MS * len(pids)


def cpu_ms(pids: Sequence[int]) -> float:
    """Return the processor time of processes with all their threads, to a hundredth of a second."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * _TICK_MS

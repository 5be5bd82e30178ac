"""Processes that build users' indices in parallel, one core each.

Each runs this module as a program. It reads what to build from standard input and answers on standard output, one line
of JSON each. When its parent is gone, its input ends, and so does the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from domain.errors import IndexCorrupt, OpmError
from domain.ledger_reader import LedgerReader
from domain.sqlite import open_engine
from projections.dense.user_build import Target, VectorsMissing, build_user
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingSpace

ALLOCATIONS_PER_COLLECTION = 50_000
"""Raised because a build keeps many rows for a moment: frequent collections would scan them again and again."""
Build = Callable[[str, int], Awaitable[int]]
"""Builds a user's index up to a position and returns its number of vectors. Raises what ``build_user`` raises."""


@contextlib.asynccontextmanager
async def build_processes(
    count: int, ledger_path: Path, cache_path: Path, target: Target
) -> AsyncIterator[list[Build]]:
    """Start ``count`` processes and end them; each builds one user at a time."""
    first = {
        "ledger": str(ledger_path),
        "cache": str(cache_path),
        "users_dir": str(target.users_dir),
        "storage": target.storage,
        "space": [target.space.model, target.space.dimensions, target.space.passage_prefix],
    }
    async with contextlib.AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(_started(first))) for _ in range(count)]


@contextlib.asynccontextmanager
async def _started(first: dict[str, Any]) -> AsyncIterator[Build]:
    # The same code as this process, whatever the working directory.
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    requests, answers = process.stdin, process.stdout

    async def build(user_id: str, upto: int) -> int:
        with contextlib.suppress(ConnectionError):
            requests.write(json.dumps([user_id, upto]).encode() + b"\n")
            await requests.drain()
        line = await answers.readline()
        if not line:
            raise IndexCorrupt(f"a process that builds indices ended with status {await process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise IndexCorrupt(answer["error"])
        if answer["vectors"] is None:
            raise VectorsMissing
        return int(answer["vectors"])

    try:
        requests.write(json.dumps(first).encode() + b"\n")
        yield build
    finally:
        requests.close()
        if process.returncode is None and sys.exc_info()[0] is not None:
            process.kill()
        await process.wait()


def main() -> None:
    """Build what standard input asks for, until it ends."""
    gc.freeze()
    gc.set_threshold(ALLOCATIONS_PER_COLLECTION)
    first = json.loads(sys.stdin.readline())
    target = Target(Path(first["users_dir"]), EmbeddingSpace(*first["space"]), first["storage"])
    engine = open_engine(Path(first["ledger"]), writer=False)
    cache = VectorCache(Path(first["cache"]), half=target.storage == "fp16")
    reader = LedgerReader(engine)
    for line in sys.stdin:
        user_id, upto = json.loads(line)
        answer: dict[str, object]
        try:
            answer = {"vectors": build_user(reader, cache, target, user_id, upto)}
        except VectorsMissing:
            answer = {"vectors": None}
        except OpmError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    cache.close()
    engine.dispose()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # its parent was interrupted too and reports it
        main()

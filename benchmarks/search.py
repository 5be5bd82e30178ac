"""``python -m benchmarks.search``: what a user's index adds to FAISS, as the number of vectors grows.

Each index is built, written and mapped as in the service, with a tail after its snapshot. Searches alternate with those
of a bare flat float32 FAISS index of the same vectors, asked for as many rows, so that other work on the machine
affects both alike. The results are compared too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import faiss
import numpy as np

from projections.dense.index_files import IndexFiles
from projections.dense.snapshot import Storage
from projections.dense.user_index import UserIndex
from projections.embedding.endpoint import EmbeddingSpace, Vectors
from projections.keys import FACETS, key_of

TIMES_MAX = 1.5
ADDED_MS_MAX = 1.0
_MEMORIES_WANTED = 66
"""What a turn without knobs asks for: 60 candidates, and as many more as the window may exclude."""
_TAIL_ROWS = 40
_TOPICS = 400
_OFFSET = np.float32(1.5)
_WARM_UP = 5


def main() -> None:
    """Print a row for each size, length and storage, and whether the goal is met."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description="UserIndex against a bare flat FAISS index."
    )
    parser.add_argument("--vectors", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1024])
    parser.add_argument("--storage", nargs="+", choices=get_args(Storage), default=list(get_args(Storage)))
    parser.add_argument("--searches", type=int, default=60)
    given = parser.parse_args()
    titles = ("vectors", "dims", "storage", "bare p50", "ours p50", "ours p95", "ratio")
    print("".join(f"{title:>{width}}" for title, width in zip(titles, (9, 6, 9, 12, 12, 12, 7), strict=True)), " goal")
    missed = 0
    for dims in given.dims:
        for vectors in given.vectors:
            rows, queries = _unit_rows(vectors, dims), _unit_rows(given.searches + _WARM_UP, dims)
            for storage in given.storage:
                missed += not _measured(rows, queries, storage)
    print(f"\ngoal: at most {TIMES_MAX:g} times bare flat FAISS and {ADDED_MS_MAX:g} ms; {missed} rows miss it")


def _measured(rows: Vectors, queries: Vectors, storage: Storage) -> bool:
    """Print one row; return whether it meets the goal."""
    vectors, dims = rows.shape
    print(f"building {vectors} vectors of {dims} numbers", file=sys.stderr, flush=True)
    bare: Any = faiss.IndexFlatIP(dims)
    bare.add(rows)
    with tempfile.TemporaryDirectory(prefix="search-") as folder:
        index = _index(rows, storage, Path(folder))
        depth = min(_MEMORIES_WANTED * len(FACETS), vectors)
        bare_ms, ours_ms = [], []
        for query in queries:
            took, (_, found) = _timed(lambda query=query: bare.search(query[np.newaxis], depth))  # type: ignore[misc]
            bare_ms.append(took)
            took, hits = _timed(lambda query=query: index.search(query, _MEMORIES_WANTED))  # type: ignore[misc]
            ours_ms.append(took)
            _check(found[0], [hit.turn_position for hit in hits])
    bare_p50 = float(np.median(bare_ms[_WARM_UP:]))
    ours_p50, ours_p95 = np.percentile(ours_ms[_WARM_UP:], (50, 95))
    met = bool(ours_p50 <= TIMES_MAX * bare_p50 + ADDED_MS_MAX)
    print(
        f"{vectors:>9}{dims:>6}{storage:>9}{bare_p50:>9.2f} ms{ours_p50:>9.2f} ms{ours_p95:>9.2f} ms"
        f"{ours_p50 / bare_p50:>7.2f}  {'met' if met else 'MISSED'}",
        flush=True,
    )
    return met


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return (time.perf_counter() - started) * 1000, result


def _check(rows: Any, positions: list[int]) -> None:
    """Check that the nearest rows, two for each memory, name the nearest memories; equal scores may differ in order."""
    nearest = list(dict.fromkeys((rows // len(FACETS) + 1).tolist()))[: len(positions)]
    assert len(set(nearest) - set(positions)) <= 1, "the index finds other memories than FAISS"


def _unit_rows(count: int, dims: int) -> Vectors:
    """Return vectors of some topics, off the middle, as embeddings of texts are."""
    topics = np.random.default_rng(dims).standard_normal((_TOPICS, dims), np.float32)
    random = np.random.default_rng(count + dims)
    rows = topics[random.integers(0, _TOPICS, count)] + random.standard_normal((count, dims), np.float32) + _OFFSET
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def _index(rows: Vectors, storage: Storage, folder: Path) -> UserIndex:
    """Grow an index as the service does: a snapshot mapped from disk, and the newest memories in the tail."""
    if storage == "fp16":
        rows = rows.astype(np.float16).astype(np.float32)
    dims = rows.shape[1]
    keys = [key_of(at // len(FACETS) + 1, FACETS[at % len(FACETS)]) for at in range(len(rows))]
    snapshot_rows = len(rows) - _TAIL_ROWS
    built = UserIndex(dims, storage)
    positions = list(range(1, len(rows) + 1))
    built.extend(0, positions[:snapshot_rows], keys[:snapshot_rows], rows[:snapshot_rows], snapshot_rows)
    files = IndexFiles(folder, "ann", EmbeddingSpace("model", dims, ""))
    snapshot, position = built.snapshot()
    index = files.load(files.save(snapshot, storage, position, "anchor"))
    index.make_binary_codes()
    index.extend(position, positions[snapshot_rows:], keys[snapshot_rows:], rows[snapshot_rows:], len(rows))
    return index


if __name__ == "__main__":
    main()

"""Runs eight threads on one index: added vectors are found, withdrawn ones never are, and nothing crashes.

``python -m tests.projections.index_hammer 60`` runs for a minute; a test runs it for two seconds.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from projections.dense.index_files import IndexFiles
from projections.dense.user_index import UserIndex
from projections.embedding.endpoint import EmbeddingSpace
from projections.keys import key_of

DIMENSIONS = 32
_SEARCHERS = 6
_STEP_ROWS = 20
_FORGET_EVERY = 3
_KNOWN_MAX = 4000


class Hammer:
    """One thread adds and withdraws, one takes snapshots, and six search for what they know."""

    def __init__(self, folder: Path) -> None:
        self.index = UserIndex(DIMENSIONS, "fp16")
        self.files = IndexFiles(folder, "ann", EmbeddingSpace("m", DIMENSIONS, ""))
        self.random = np.random.default_rng(11)
        self.rows: dict[int, np.ndarray] = {}
        self.withdrawn: set[int] = set()
        self.done = threading.Event()
        self.searches = self.snapshots = 0

    def run(self, seconds: float) -> None:
        """Raise the error of any thread."""
        with ThreadPoolExecutor(_SEARCHERS + 2) as pool:
            threads = [pool.submit(self._search, seed) for seed in range(_SEARCHERS)]
            threads += [pool.submit(self._write), pool.submit(self._take_snapshots)]
            stop_at = time.monotonic() + seconds
            while time.monotonic() < stop_at and not any(thread.done() for thread in threads):
                time.sleep(0.01)
            self.done.set()
            for thread in threads:
                thread.result()

    def _write(self) -> None:
        while not self.done.is_set():
            after = self.index.position
            rows = self.random.standard_normal((_STEP_ROWS, DIMENSIONS)).astype(np.float32)
            rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
            positions = list(range(after + 1, after + _STEP_ROWS + 1))
            gone = self._to_forget()
            last = positions[-1] + len(gone)
            withdrawn = [(positions[-1] + at, key_of(position, "exchange")) for at, position in enumerate(gone, 1)]
            keys = [key_of(position, "exchange") for position in positions]
            assert self.index.extend(after, positions, keys, rows, last, withdrawn=withdrawn)
            # From here on no search may find them, whatever a snapshot in progress contains.
            self.withdrawn |= set(gone)
            self.rows |= dict(zip(positions, rows, strict=True))

    def _to_forget(self) -> list[int]:
        known = [position for position in tuple(self.rows) if position not in self.withdrawn]
        if len(known) > _KNOWN_MAX:
            return known[: _STEP_ROWS * 2]
        return self.random.choice(known, _STEP_ROWS // _FORGET_EVERY, replace=False).tolist() if known else []

    def _take_snapshots(self) -> None:
        while not self.done.is_set():
            snapshot, position = self.index.snapshot()
            fresh = self.files.load(self.files.save(snapshot, self.index.storage, position, "anchor"))
            self.index.adopt(fresh)
            self.snapshots += 1

    def _search(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        while not self.done.is_set():
            known = tuple(self.rows)
            if not known:
                continue
            wanted = int(random.choice(known))
            gone_before = set(self.withdrawn)
            hits = self.index.search(self.rows[wanted], 10)
            found = {hit.turn_position for hit in hits}
            assert not found & gone_before, "what had been withdrawn was found"
            # The vector is unique: it is the best hit, unless it was withdrawn meanwhile.
            assert hits[0].turn_position == wanted or wanted in self.withdrawn or wanted in self._going(), "one is lost"
            self.searches += 1

    def _going(self) -> set[int]:
        """Wait until the writer has announced what it withdraws."""
        position = self.index.position
        while self.index.position == position and not self.done.is_set():
            time.sleep(0.001)
        return self.withdrawn


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    with tempfile.TemporaryDirectory() as folder:
        hammer = Hammer(Path(folder))
        hammer.run(seconds)
    print(  # noqa: T201 - this is a program
        f"{hammer.searches} searches, {len(hammer.rows)} vectors added, {len(hammer.withdrawn)} withdrawn, "
        f"{hammer.snapshots} snapshots in {seconds:g} s: nothing lost, nothing withdrawn found"
    )


if __name__ == "__main__":
    main()

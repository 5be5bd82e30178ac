"""One user's vectors: an immutable FAISS snapshot mapped from disk, and a small tail of what came after it.

FAISS must not be searched while it is changed, so nothing here changes a FAISS index. New vectors go into the tail, a
plain array whose filled part never changes. Once the tail has grown, a new snapshot is built beside the old one and
switched in. A search reads one immutable state, so searches need no lock.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from domain.events import Facet
from projections.dense.snapshot import (
    Codes,
    Keys,
    Storage,
    binary_codes_of,
    codes_of,
    empty_snapshot,
    keys_of,
    likely_rows,
    nearest_rows,
    read_rows,
)
from projections.embedding.endpoint import Vectors
from projections.keys import FACETS, FACETS_MAX

_TAIL_ROWS_FIRST = 8
_CHANGES_MIN = 256
_CHANGES_MAX = 1024
_LIKELY_ROWS = 4
"""So many times the wanted rows are read and scored where only their binary codes were searched."""
_ROUNDING = 1e-5
"""Two sums of the same float32 products of unit vectors, added in another order, differ by less."""


class DenseHit(NamedTuple):
    """A memory found: the position of its turn, its best facet's cosine similarity, and which facet that was."""

    turn_position: int
    score: float
    matched: Facet


@dataclass(frozen=True)
class _State:
    """All that a search needs.

    ``row_keys`` are the keys of the snapshot's rows; ``sorted_keys`` are the same keys in ascending order, each in the
    row that ``sorted_rows`` gives. ``binary`` holds the binary codes of a large snapshot, once they have been made.
    ``replaced`` are the keys of the snapshot that the tail supersedes or that were withdrawn; ``withdrawn`` are all
    keys withdrawn since the snapshot, each with the position at which that happened.

    The tail's arrays have room for more rows than ``tail_rows``. Rows before it never change, and rows are in the order
    of the ledger.
    """

    position: int
    snapshot: Any | None
    binary: Any | None
    row_keys: Keys
    sorted_keys: Keys
    sorted_rows: Keys
    replaced: frozenset[int]
    withdrawn: tuple[tuple[int, int], ...]
    tail_positions: Keys
    tail_keys: Keys
    tail_vectors: Vectors
    tail_rows: int


class _Scored(NamedTuple):
    """Vectors that were scored: float32 scores and their keys, both of shape (vectors,)."""

    scores: Vectors
    keys: Keys

    def and_more(self, other: _Scored) -> _Scored:
        """Return these and others."""
        return _Scored(np.concatenate((self.scores, other.scores)), np.concatenate((self.keys, other.keys)))


class UserIndex:
    """Search and extend one user's vectors of one space. Safe to call from any thread.

    ``position`` is the ledger position up to which every text of this user is in.
    """

    def __init__(self, dimensions: int, storage: Storage, *, snapshot: Any | None = None, position: int = 0) -> None:
        self.dimensions = dimensions
        self.storage = storage
        self._mutation = threading.Lock()
        row_keys = keys_of(snapshot) if snapshot is not None else np.empty(0, np.int64)
        sorted_rows = np.argsort(row_keys)
        self._state = _State(
            position=position,
            snapshot=snapshot,
            binary=None,
            row_keys=row_keys,
            sorted_keys=row_keys[sorted_rows],
            sorted_rows=sorted_rows,
            replaced=frozenset(),
            withdrawn=(),
            tail_positions=np.empty(_TAIL_ROWS_FIRST, np.int64),
            tail_keys=np.empty(_TAIL_ROWS_FIRST, np.int64),
            tail_vectors=np.empty((_TAIL_ROWS_FIRST, dimensions), np.float32),
            tail_rows=0,
        )

    @property
    def position(self) -> int:
        return self._state.position

    @property
    def snapshot_keys(self) -> Keys:
        """The keys of the snapshot's rows, in their order."""
        return self._state.row_keys

    @property
    def snapshot_codes(self) -> Codes:
        """The snapshot's rows as they are stored: uint8 of shape (rows, bytes of a vector)."""
        snapshot = self._state.snapshot
        return codes_of(snapshot) if snapshot is not None else np.empty((0, 0), np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, a mapped snapshot counted as if all of it were resident."""
        state = self._state
        width = 2 if self.storage == "fp16" else 4
        codes = state.binary.ntotal * state.binary.code_size if state.binary is not None else 0
        return len(state.row_keys) * (self.dimensions * width + 24) + state.tail_vectors.nbytes + codes

    def __len__(self) -> int:
        state = self._state
        return len(state.sorted_keys) - len(state.replaced) + state.tail_rows

    def extend(
        self,
        after: int,
        positions: Sequence[int],
        keys: Sequence[int],
        vectors: Vectors,
        position: int,
        *,
        withdrawn: Sequence[tuple[int, int]] = (),
    ) -> bool:
        """Add the vectors of the events in (``after``, ``position``]: float32 of shape (len(keys), dimensions).

        ``positions`` are those events' own, ascending. ``withdrawn`` are (position, key) of what is no longer to be
        found; such a key is not among ``keys``. Returns False and changes nothing when the index no longer stands at
        ``after``: somebody else was quicker. A key that is already in gets its new vector.
        """
        with self._mutation:
            state = self._state
            if state.position != after:
                return False
            added = len(keys)
            state = _without(state, np.asarray([*keys, *(key for _, key in withdrawn)], np.int64))
            rows = state.tail_rows + added
            if rows > len(state.tail_keys):
                state = _with_room(state, rows + rows // 2 if state.tail_rows else rows)
            state.tail_positions[state.tail_rows : rows] = positions
            state.tail_keys[state.tail_rows : rows] = keys
            state.tail_vectors[state.tail_rows : rows] = vectors
            # A key that comes back is in the tail; what lies in the snapshot under it stays replaced.
            gone = state.withdrawn + tuple(withdrawn)
            self._state = replace(state, position=position, tail_rows=rows, withdrawn=gone)
            return True

    def search(self, query: Vectors, count: int) -> list[DenseHit]:
        """Return the ``count`` memories nearest to ``query`` (float32, shape (dimensions,), length 1), best first.

        Scores are exact, and memories of equal score come in the order of their age, oldest first. No memory is missed,
        except in a large index with binary codes: there, one far down the list may be, rarely.
        """
        if count <= 0:
            return []
        state = self._state
        tail = _Scored(_scores(state.tail_vectors[: state.tail_rows], query), state.tail_keys[: state.tail_rows])
        depth = count * len(FACETS)
        if state.binary is not None:
            likely = min(_LIKELY_ROWS * depth + len(state.replaced), len(state.row_keys))
            return _best(tail.and_more(_scored(state, query, likely_rows(state.binary, query, likely))), count)
        while True:
            wanted = min(depth + len(state.replaced), len(state.row_keys))
            if not wanted:
                return _best(tail, count)
            products, rows = nearest_rows(state.snapshot, query, wanted)
            hits = _best(tail.and_more(_scored(state, query, rows)), count)
            # What lies just below the last row may be as good as the last hit, and older.
            enough = len(hits) == count and hits[-1].score > float(products[-1]) + _ROUNDING
            if enough or wanted == len(state.row_keys):
                return hits
            depth *= 4

    def cosines(self, query: Vectors, turn_positions: Sequence[int]) -> dict[int, float]:
        """Return the best similarity to ``query`` of each of the given memories; those without vectors are missing."""
        state = self._state
        first = np.asarray(turn_positions, np.int64)[:, np.newaxis] * FACETS_MAX
        wanted = np.sort((first + np.arange(len(FACETS))).ravel())
        in_tail = np.flatnonzero(_is_among(state.tail_keys[: state.tail_rows], wanted))
        scored = _Scored(_scores(state.tail_vectors[in_tail], query), state.tail_keys[in_tail])
        if len(state.row_keys):
            scored = scored.and_more(_scored(state, query, _in_snapshot(state, wanted)[1]))
        return {hit.turn_position: hit.score for hit in _best(scored, len(turn_positions))}

    def make_binary_codes(self) -> None:
        """Make the binary codes of a large snapshot, if they are missing. May take seconds."""
        snapshot = self._state.snapshot
        if self._state.binary is not None or (binary := binary_codes_of(snapshot)) is None:
            return
        with self._mutation:
            if self._state.snapshot is snapshot:
                self._state = replace(self._state, binary=binary)

    def wants_snapshot(self) -> bool:
        """Tell whether the tail has grown enough to be worth a new snapshot."""
        state = self._state
        changed = state.tail_rows + len(state.withdrawn)
        return changed >= min(max(_CHANGES_MIN, len(state.sorted_keys) // 4), _CHANGES_MAX)

    def snapshot(self) -> tuple[Any, int]:
        """Build a snapshot of all vectors; return it and the position it stands for. Nothing is switched yet.

        Rows are in the order of the ledger, so a snapshot grown step by step equals one built at once.
        """
        state = self._state
        grown = empty_snapshot(self.dimensions, self.storage)
        if len(state.row_keys):
            # Codes are copied as they are: cheaper than decoding, and nothing is rounded twice.
            grown.add_sa_codes(codes_of(state.snapshot), state.row_keys)
            if state.replaced:
                grown.remove_ids(np.fromiter(state.replaced, np.int64))
        if state.tail_rows:
            grown.add_with_ids(state.tail_vectors[: state.tail_rows], state.tail_keys[: state.tail_rows])
        return grown, state.position

    def adopt(self, other: UserIndex) -> None:
        """Switch to another index's snapshot; the tail keeps only what came after it."""
        with self._mutation:
            old, fresh = self._state, other._state
            later = int(np.searchsorted(old.tail_positions[: old.tail_rows], fresh.position, side="right"))
            rows = old.tail_rows - later
            keys = old.tail_keys[later : old.tail_rows]
            gone = tuple(item for item in old.withdrawn if item[0] > fresh.position)
            fresh = _without(fresh, np.concatenate((keys, np.array([key for _, key in gone], np.int64))))
            fresh = _with_room(fresh, rows)
            fresh.tail_positions[:rows] = old.tail_positions[later : old.tail_rows]
            fresh.tail_keys[:rows] = keys
            fresh.tail_vectors[:rows] = old.tail_vectors[later : old.tail_rows]
            self._state = replace(fresh, position=old.position, tail_rows=rows, withdrawn=gone)


def _in_snapshot(state: _State, keys: Keys) -> tuple[Keys, Keys]:
    """Return those of ``keys`` that the snapshot holds, and the rows they lie in."""
    at = np.searchsorted(state.sorted_keys, keys)
    inside = at < len(state.sorted_keys)
    keys, at = keys[inside], at[inside]
    known = state.sorted_keys[at] == keys
    return keys[known], state.sorted_rows[at[known]]


def _is_among(keys: Keys, others: Keys) -> npt.NDArray[np.bool_]:
    """Tell for each key whether it is among ``others``, which are sorted: ``numpy.isin`` would sort them again."""
    if not len(others):
        return np.zeros(len(keys), np.bool_)
    at = np.minimum(np.searchsorted(others, keys), len(others) - 1)
    among: npt.NDArray[np.bool_] = others[at] == keys
    return among


def _without(state: _State, keys: Keys) -> _State:
    """Return a state in which none of ``keys`` can be found any more."""
    known, _ = _in_snapshot(state, keys)
    if len(known):
        state = replace(state, replaced=state.replaced | frozenset(known.tolist()))
    in_tail = _is_among(state.tail_keys[: state.tail_rows], np.sort(keys))
    if in_tail.any():
        kept = np.flatnonzero(~in_tail)
        state = replace(
            state,
            tail_positions=state.tail_positions[kept],
            tail_keys=state.tail_keys[kept],
            tail_vectors=state.tail_vectors[kept],
            tail_rows=len(kept),
        )
    return state


def _with_room(state: _State, capacity: int) -> _State:
    """Return a state whose tail has room for ``capacity`` rows; the old arrays stay as they are for their readers."""
    if len(state.tail_keys) >= capacity:
        return state
    rows = state.tail_rows
    positions, keys = np.empty(capacity, np.int64), np.empty(capacity, np.int64)
    vectors = np.empty((capacity, state.tail_vectors.shape[1]), np.float32)
    positions[:rows], keys[:rows] = state.tail_positions[:rows], state.tail_keys[:rows]
    vectors[:rows] = state.tail_vectors[:rows]
    return replace(state, tail_positions=positions, tail_keys=keys, tail_vectors=vectors)


def _scored(state: _State, query: Vectors, rows: Keys) -> _Scored:
    """Return the scores of those of the snapshot's rows that still stand."""
    keys = state.row_keys[rows]
    if state.replaced:
        valid = ~_is_among(keys, np.sort(np.fromiter(state.replaced, np.int64)))
        rows, keys = rows[valid], keys[valid]
    return _Scored(_scores(read_rows(state.snapshot, rows), query), keys)


def _best(scored: _Scored, count: int) -> list[DenseHit]:
    """Return the best facet of each of the ``count`` best memories, of equals the older memory first."""
    order = np.lexsort((scored.keys, -scored.scores))
    positions, facets = np.divmod(scored.keys[order], FACETS_MAX)
    # Of each memory the place at which it comes first.
    best = np.sort(np.unique(positions, return_index=True)[1])[:count]
    found = zip(positions[best].tolist(), scored.scores[order[best]].tolist(), facets[best].tolist(), strict=True)
    return [DenseHit(position, score, FACETS[facet]) for position, score, facet in found]


def _scores(vectors: Vectors, query: Vectors) -> Vectors:
    """Return the products of rows with a query, each to the last bit the same wherever its row stands.

    FAISS and BLAS add up in orders of their own, so that equal vectors in snapshot and tail could score differently and
    come out in an order that changes with each snapshot.
    """
    scores: Vectors = np.einsum("ij,j->i", vectors, query)
    return scores

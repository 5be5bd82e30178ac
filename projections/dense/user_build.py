"""Builds one user's index of a generation from the ledger and the vector cache, writes it and reads it back.

Vectors are copied from the cache into the file as they are stored, so nothing is rounded twice and the same ledger
gives the same bytes. Only positions, keys and hashes are held for all texts at once; texts and vectors come in parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from domain.errors import IndexCorrupt
from domain.ledger_reader import LedgerReader
from domain.memory import FacetText
from domain.statements import LATEST
from projections.dense.index_files import IndexFiles
from projections.dense.index_store import epoch_of
from projections.dense.snapshot import Storage, empty_snapshot
from projections.dense.vector_changes import hash_of
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingSpace
from projections.keys import key_of

_EVENTS_PER_READ = 8192
_ROWS_PER_PART = 4096


class Row(NamedTuple):
    """A text by which a memory is found: the key in the index, its hash, and the event that said it."""

    position: int
    key: int
    text_hash: bytes


@dataclass(frozen=True, slots=True)
class Target:
    """Which generation is built, where it lies, and how its numbers are stored."""

    users_dir: Path
    space: EmbeddingSpace
    storage: Storage


class VectorsMissing(Exception):
    """The cache lacks vectors of this user: embed the texts first."""


def rows_of(reader: LedgerReader, user_id: str, upto: int, *, as_of: int = LATEST) -> tuple[list[Row], int]:
    """Return what a user's memories are found by after the event at ``upto``, in the order of the ledger.

    With it comes the position of the last event that was taken in, 0 when there is none. What was withdrawn since is
    left out too, unless ``as_of`` asks for what was known at that position.
    """
    newest: dict[int, Row | None] = {}
    reached = 0
    for changes, position in _pages(reader, user_id, as_of):
        for change in changes:
            if change.position <= upto:
                key = key_of(change.turn_position, change.facet)
                digest = hash_of(change)
                newest[key] = Row(change.position, key, digest) if digest is not None else None
                reached = change.position
        if position > upto:
            break
        reached = position
    rows = [row for row in newest.values() if row is not None]
    rows.sort(key=lambda row: (row.position, row.key))
    return rows, reached


def build_user(
    reader: LedgerReader,
    cache: VectorCache,
    target: Target,
    user_id: str,
    upto: int,
) -> int:
    """Write a user's index as of ``upto`` beside the live one, and check it; return how many vectors it has.

    Raises :class:`VectorsMissing`, and :class:`IndexCorrupt` when what was written is not what should have been.
    """
    epoch = epoch_of(reader.memory_state(user_id).erasures)
    rows, position = rows_of(reader, user_id, upto)
    if not position:
        return 0  # nothing was said before, or the user was erased meanwhile
    space, storage = target.space, target.storage
    space_id = cache.space_id(space)
    snapshot = empty_snapshot(space.dimensions, storage)
    keys: list[int] = []
    for start in range(0, len(rows), _ROWS_PER_PART):
        part = rows[start : start + _ROWS_PER_PART]
        blobs = cache.blobs(space_id, [row.text_hash for row in part])
        if not all(row.text_hash in blobs for row in part):
            raise VectorsMissing
        found = [(row.key, blob) for row in part if (blob := blobs[row.text_hash]) is not None]
        keys += [key for key, _ in found]
        _add(snapshot, space, storage, [key for key, _ in found], [blob for _, blob in found])
    files = IndexFiles(target.users_dir, user_id, space)
    written = files.load(files.save(snapshot, storage, position, reader.hash_at(position)))
    if epoch_of(reader.memory_state(user_id).erasures) != epoch or not reader.belongs(user_id, position):
        files.remove()  # erased while it was written: the folder may be there again after the erasure removed it
        return 0
    if not np.array_equal(written.snapshot_keys, np.array(keys, np.int64)):
        raise IndexCorrupt(f"the index of {user_id!r} does not hold the memories that it was built from")
    return len(keys)


def stored_rows(space: EmbeddingSpace, storage: Storage, blobs: list[bytes]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return cached vectors as an index stores them: uint8 of shape (len(blobs), bytes of a vector)."""
    width = (2 if storage == "fp16" else 4) * space.dimensions
    if all(len(blob) == width for blob in blobs):
        return np.frombuffer(b"".join(blobs), np.uint8).reshape(len(blobs), width)
    kept = np.float16 if storage == "fp16" else np.float32
    decoded = [
        np.frombuffer(blob, np.float16 if len(blob) == 2 * space.dimensions else np.float32).astype(kept)
        for blob in blobs
    ]
    return np.array(decoded, kept).view(np.uint8).reshape(len(blobs), width)


def _add(snapshot: Any, space: EmbeddingSpace, storage: Storage, keys: list[int], blobs: list[bytes]) -> None:
    if keys:
        snapshot.add_sa_codes(stored_rows(space, storage, blobs), np.array(keys, np.int64))


def _pages(reader: LedgerReader, user_id: str, as_of: int) -> Iterator[tuple[list[FacetText], int]]:
    position = 0
    while True:
        after = position
        changes, position = reader.facet_texts(user_id, after, _EVENTS_PER_READ, as_of=as_of)
        if position == after:
            return
        yield changes, position

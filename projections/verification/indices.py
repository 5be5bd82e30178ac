"""Compares the live vector indices of users with the ledger and the vector cache, for ``rebuild --verify``.

A snapshot stands for a position of the ledger; later events are added when it is opened. So it is compared with the
ledger as of that position. A user with a small memory may have no snapshot: their index is then built from the cache.
Texts that are in neither, and too many to embed along with a question, cannot be found by meaning. A running service
may be about to embed them, so they are counted again a little later before they are reported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from domain.errors import IndexCorrupt
from domain.identity import SYSTEM_ID
from domain.ledger import Ledger
from domain.ledger_reader import LedgerReader
from domain.statements import LATEST
from projections.dense.index_files import IndexFiles, Manifest
from projections.dense.query_embedding import TEXTS_WITH_QUERY_MAX
from projections.dense.snapshot import Storage
from projections.dense.user_build import Row, rows_of, stored_rows
from projections.dense.user_index import UserIndex
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingSpace
from projections.embedding.model_router import space_of
from projections.settings import ProjectionSettings
from projections.verification.later_texts import keys_said_after
from projections.verification.lexical import lexical_fault

Kind = Literal["broken", "missing", "surplus", "changed", "ahead", "words"]
_EMBEDDED_WITHIN_S = 3.0
_ROWS_PER_PART = 4096
_SMALL = 4096
"""A service writes a snapshot long before a memory has so many events."""

Codes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between the ledger and a user's index; ``user_id`` is empty when it concerns all users.

    ``broken``: a file is damaged, missing, or of another user or ledger. ``missing``: texts have no vector in it.
    ``surplus``: vectors belong to no text. ``changed``: a vector is not that of its text. ``ahead``: the vector cache
    has read further than the ledger goes. ``words``: the lexical index differs from the ledger.
    """

    user_id: str
    kind: Kind
    detail: str


def verify_indices(
    ledger: Ledger, cache: VectorCache, settings: ProjectionSettings, user_id: str | None = None
) -> Iterator[Difference]:
    """Yield the differences between the ledger and the live index of one user, or of all."""
    if user_id is None:
        yield from _ahead(ledger, cache)
    waiting: dict[str, EmbeddingSpace] = {}
    for user in ledger.reader.all_users() if user_id is None else [user_id]:
        active = ledger.reader.active_embedding_model(user)
        if active is not None:
            space = space_of(active)
            yield from _of_user(ledger, cache, settings, user, space)
            if _unknown(ledger, cache, settings, user, space) > TEXTS_WITH_QUERY_MAX:
                waiting[user] = space
        what = lexical_fault(ledger.reader, settings.users_dir, user)
        if what is not None:
            yield Difference(user, "words", what)
    if waiting:
        time.sleep(_EMBEDDED_WITHIN_S)
    for user, space in waiting.items():
        unknown = _unknown(ledger, cache, settings, user, space)
        if unknown > TEXTS_WITH_QUERY_MAX:
            yield Difference(user, "missing", f"{unknown} texts have no vector: they cannot be found by meaning")


def _ahead(ledger: Ledger, cache: VectorCache) -> Iterator[Difference]:
    active = ledger.reader.active_embedding_model(SYSTEM_ID)
    if active is None:
        return
    head, position = ledger.reader.head_position(), cache.position(cache.space_id(space_of(active)))
    if position > head:
        yield Difference("", "ahead", f"the vector cache is at position {position}, the ledger ends at {head}")


def _unknown(ledger: Ledger, cache: VectorCache, settings: ProjectionSettings, user: str, space: EmbeddingSpace) -> int:
    """Count the texts of a user that are newer than the snapshot, if there is one, and not in the cache."""
    try:
        manifest = IndexFiles(settings.users_dir, user, space).manifest()
    except IndexCorrupt:
        manifest = None
    after = manifest.position if manifest is not None else 0
    newer = [row.text_hash for row in rows_of(ledger.reader, user, LATEST)[0] if row.position > after]
    known = cache.known(cache.space_id(space), newer)
    return sum(text_hash not in known for text_hash in newer)


def _of_user(
    ledger: Ledger, cache: VectorCache, settings: ProjectionSettings, user: str, space: EmbeddingSpace
) -> Iterator[Difference]:
    files = IndexFiles(settings.users_dir, user, space)
    try:
        manifest = files.manifest()
        if manifest is None:
            texts = ledger.reader.count_facets(user)
            if texts > _SMALL:
                yield Difference(user, "missing", f"there is no index on disk for {texts} events")
            return
        files.check_anchor(manifest, ledger.reader)
        index = files.load(manifest)
    except IndexCorrupt as error:
        yield Difference(user, "broken", str(error))
        return
    yield from snapshot_differences(ledger.reader, cache, user, manifest, index)


def snapshot_differences(
    reader: LedgerReader, cache: VectorCache | None, user: str, manifest: Manifest, index: UserIndex
) -> Iterator[Difference]:
    """Yield the differences between a snapshot and the ledger's memories of its user.

    Only the cache knows which texts the model refused and what the vectors should be. Without it, only vectors that
    belong to no text are reported.
    """
    space = EmbeddingSpace(manifest.model, manifest.dimensions, manifest.passage_prefix)
    rows, _ = rows_of(reader, user, manifest.position, as_of=manifest.position)
    found = dict(zip(index.snapshot_keys.tolist(), index.snapshot_codes, strict=True))
    wanted = {row.key: row for row in rows}
    refused, changed = _refused_and_changed(cache, space, manifest.storage, rows, found)
    missing = wanted.keys() - found.keys() - refused if cache is not None else set()
    surplus = found.keys() - (wanted.keys() - refused)
    if missing or surplus or changed:
        later = keys_said_after(reader, user, manifest.position)
        missing, surplus, changed = missing - later, surplus - later, changed - later
    if missing:
        yield Difference(user, "missing", f"{len(missing)} texts of {len(wanted)} are not in the index")
    if surplus:
        yield Difference(user, "surplus", f"{len(surplus)} vectors of {len(found)} belong to no text of a memory")
    if changed:
        yield Difference(user, "changed", f"{len(changed)} vectors of {len(found)} are not those of their texts")


def _refused_and_changed(
    cache: VectorCache | None, space: EmbeddingSpace, storage: Storage, rows: Sequence[Row], found: Mapping[int, Codes]
) -> tuple[set[int], set[int]]:
    """Return the keys of texts that the model refuses, and of those whose vector differs from the cached one.

    Texts that the cache does not know are not compared.
    """
    refused: set[int] = set()
    changed: set[int] = set()
    if cache is None:
        return refused, changed
    space_id = cache.space_id(space)
    for start in range(0, len(rows), _ROWS_PER_PART):
        part = rows[start : start + _ROWS_PER_PART]
        blobs = cache.blobs(space_id, [row.text_hash for row in part])
        for row in part:
            blob = blobs.get(row.text_hash, b"")
            if blob is None:
                refused.add(row.key)
            elif (
                blob and row.key in found and stored_rows(space, storage, [blob]).tobytes() != found[row.key].tobytes()
            ):
                changed.add(row.key)
    return refused, changed

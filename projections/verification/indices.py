"""Compares the live indices with what the ledger says, and names what differs.

A snapshot stands for a position of the ledger; what came later is added when it is opened, so it is compared with the
ledger as of that position. A user with a small memory may have no snapshot: all of it is read from the cache then.
Texts that are neither in a snapshot nor in the cache, and more than a question takes along, are not found by meaning; a
service may be about to embed them, so they are looked for once more before they are told.
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
from projections.verification.lexical import wrong_words

Kind = Literal["broken", "missing", "surplus", "changed", "ahead", "words"]
_EMBEDDED_WITHIN_S = 3.0
_ROWS_PER_PART = 4096
_SMALL = 4096
"""A service writes the index of a larger memory long before it gets there."""

Codes = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Difference:
    """What is not as the ledger says it is, in one user's index; the user is empty where it concerns everybody.

    ``broken``: a file is damaged, gone, or of another user or ledger. ``missing`` and ``surplus``: texts that should be
    found are not, or the other way round. ``changed``: a vector is not the one of its text. ``ahead``: the vector cache
    speaks of a later event than the ledger has. ``words``: the lexical index is not what it should be.
    """

    user_id: str
    kind: Kind
    detail: str


def verify_indices(
    ledger: Ledger, cache: VectorCache, settings: ProjectionSettings, user_id: str | None = None
) -> Iterator[Difference]:
    """Yield what differs between the ledger and the live index of one user, or of all."""
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
        what = wrong_words(ledger.reader, settings.users_dir, user)
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
    """Count the texts of a user that are behind the snapshot, if there is one, and not in the cache."""
    try:
        manifest = IndexFiles(settings.users_dir, user, space).manifest()
    except IndexCorrupt:
        manifest = None
    after = manifest.position if manifest is not None else 0
    behind = [row.text_hash for row in rows_of(ledger.reader, user, LATEST)[0] if row.position > after]
    known = cache.known(cache.space_id(space), behind)
    return sum(text_hash not in known for text_hash in behind)


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
    yield from compared(ledger.reader, cache, user, manifest, index)


def compared(
    reader: LedgerReader, cache: VectorCache | None, user: str, manifest: Manifest, index: UserIndex
) -> Iterator[Difference]:
    """Yield what differs between a snapshot and what the ledger says of its user's memories.

    Without the cache it is not known which texts a model has refused, nor what vectors should be: then only those that
    stand for nothing are told.
    """
    space = EmbeddingSpace(manifest.model, manifest.dimensions, manifest.passage_prefix)
    rows, _ = rows_of(reader, user, manifest.position)
    found = dict(zip(index.snapshot_keys.tolist(), index.snapshot_codes, strict=True))
    wanted = {row.key: row for row in rows}
    refused, differing = _looked_at(cache, space, manifest.storage, rows, found)
    missing = wanted.keys() - found.keys() - refused if cache is not None else set()
    surplus = found.keys() - (wanted.keys() - refused)
    if surplus or differing:
        # Withdrawn or corrected since: until the index is opened and reads on, it rightly holds what was true then.
        then, _ = rows_of(reader, user, manifest.position, as_of=manifest.position)
        refused, differing_then = _looked_at(cache, space, manifest.storage, then, found)
        surplus -= {row.key for row in then} - refused
        differing &= differing_then | (found.keys() - {row.key for row in then})
    if missing:
        yield Difference(user, "missing", f"{len(missing)} texts of {len(wanted)} are not in the index")
    if surplus:
        yield Difference(user, "surplus", f"{len(surplus)} vectors of {len(found)} stand for no text of a memory")
    if differing:
        yield Difference(user, "changed", f"{len(differing)} vectors of {len(found)} are not those of their texts")


def _looked_at(
    cache: VectorCache | None, space: EmbeddingSpace, storage: Storage, rows: Sequence[Row], found: Mapping[int, Codes]
) -> tuple[set[int], set[int]]:
    """Return the keys of texts that the model refuses, and of those whose vector is not the cached one.

    A text that the cache does not know cannot be compared.
    """
    refused: set[int] = set()
    differing: set[int] = set()
    if cache is None:
        return refused, differing
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
                differing.add(row.key)
    return refused, differing

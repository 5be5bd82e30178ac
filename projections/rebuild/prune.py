"""Drops what no search uses any more: old generations of indices, and vectors without a memory.

The indices and vectors of a model are kept while it is active for any user, and so are those of the configured model,
which the next rebuild would use. A vector is dropped when its text belongs to no memory any more, because it was
corrected, withdrawn or erased.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from domain.identity import SYSTEM_ID, file_name
from domain.ledger import Ledger
from projections.dense.index_files import IndexFiles
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.endpoint import EmbeddingSpace
from projections.embedding.model_router import PROBE_TEXT, space_of
from projections.settings import ProjectionSettings

_EVENTS_PER_READ = 2048
_HASHES_PER_READ = 10_000


@dataclass
class Pruned:
    """What was or would be dropped: index folders, vectors of unused models, and vectors without a memory."""

    folders: list[str] = field(default_factory=list)
    folder_bytes: int = 0
    models: list[str] = field(default_factory=list)
    vectors: int = 0
    vector_bytes: int = 0
    orphans: int = 0
    orphan_bytes: int = 0

    @property
    def freed_bytes(self) -> int:
        return self.folder_bytes + self.vector_bytes + self.orphan_bytes


def prune(ledger: Ledger, cache: VectorCache, settings: ProjectionSettings, *, dry_run: bool) -> Pruned:
    """Drop what is out of use, or only report it. No rebuild may run meanwhile (``generation.only_one``)."""
    pruned = Pruned()
    used = {user: _active(ledger, user) for user in ledger.reader.all_users()}
    configured = {space for _, space in cache.spaces() if _is_configured(space, settings)}
    kept_spaces = {space for space in (*used.values(), _active(ledger, SYSTEM_ID)) if space is not None} | configured
    _prune_folders(pruned, settings, used, configured, dry_run=dry_run)
    for number, space in cache.spaces():
        if space not in kept_spaces:
            _prune_space(pruned, cache, number, space, dry_run=dry_run)
    _prune_orphans(pruned, ledger, cache, kept_spaces, dry_run=dry_run)
    if not dry_run:
        cache.release()
    return pruned


def _active(ledger: Ledger, user_id: str) -> EmbeddingSpace | None:
    active = ledger.reader.active_embedding_model(user_id)
    return space_of(active) if active is not None else None


def _is_configured(space: EmbeddingSpace, settings: ProjectionSettings) -> bool:
    return (space.model, space.passage_prefix) == (settings.emb_model, settings.passage_prefix) and (
        settings.embedding_dims in (0, space.dimensions)
    )


def _prune_folders(
    pruned: Pruned,
    settings: ProjectionSettings,
    used: dict[str, EmbeddingSpace | None],
    configured: set[EmbeddingSpace],
    *,
    dry_run: bool,
) -> None:
    kept: dict[str, set[Path]] = {}
    for user, space in used.items():
        spaces = configured | ({space} if space is not None else set())
        kept[file_name(user)] = {IndexFiles(settings.users_dir, user, one).folder for one in spaces}
    for folder in sorted(settings.users_dir.glob("*/index/*")):
        # Nothing is kept of users who are not in the ledger: they were erased.
        if folder.is_dir() and folder not in kept.get(folder.parent.parent.name, set()):
            pruned.folders.append(str(folder.relative_to(settings.users_dir)))
            pruned.folder_bytes += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            if not dry_run:
                shutil.rmtree(folder)


def _prune_space(pruned: Pruned, cache: VectorCache, number: int, space: EmbeddingSpace, *, dry_run: bool) -> None:
    vectors, size = cache.size(number)
    if vectors:
        pruned.models.append(space.model)
        pruned.vectors += vectors
        pruned.vector_bytes += size
    if not dry_run:
        cache.begin_again(number)
        for page in _pages(cache, number):
            cache.forget(number, [key for key, _ in page])


def _prune_orphans(
    pruned: Pruned, ledger: Ledger, cache: VectorCache, spaces: set[EmbeddingSpace], *, dry_run: bool
) -> None:
    # The cache is read first: the ledger, read after it, then knows every text whose vector was listed.
    numbers = [number for number, space in cache.spaces() if space in spaces]
    without = {number: {key: size for page in _pages(cache, number) for key, size in page} for number in numbers}
    position = 0
    probe = text_hash(PROBE_TEXT)
    while True:
        after = position
        changes, position = ledger.reader.facet_texts(None, after, _EVENTS_PER_READ)
        if position == after:
            break
        hashes = {text_hash(change.text) for change in changes if change.text is not None}
        for candidates in without.values():
            for key in hashes & candidates.keys():
                del candidates[key]
    for number, candidates in without.items():
        candidates.pop(probe, None)
        pruned.orphans += len(candidates)
        pruned.orphan_bytes += sum(candidates.values())
        if not dry_run:
            cache.forget(number, list(candidates))


def _pages(cache: VectorCache, number: int) -> Iterator[list[tuple[bytes, int]]]:
    last = b""
    while page := cache.hashes_after(number, last, _HASHES_PER_READ):
        yield page
        last = page[-1][0]

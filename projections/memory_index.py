"""The one door through which the service searches memory.

A user's index follows the ledger by itself: whoever opens or searches it first reads the few events that are not in yet
and takes their vectors from the cache. What the cache lacks (a turn of a moment ago) is embedded together with the
query, in the same request, so that a new memory can be found at once. Everything that takes longer is left to
:meth:`MemoryIndex.maintain`, which runs in the background.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.exc import DatabaseError

from domain.errors import (
    EmbeddingMisfit,
    EmbeddingRejected,
    IndexCatchingUp,
    IndexCorrupt,
    IndexUnavailable,
)
from domain.ledger import Ledger
from domain.memory import FacetText, Memory
from projections.activation import REBUILD_COMMAND, ActiveModel
from projections.embedder import Embedder
from projections.embedding_client import EmbeddingClient, EmbeddingSpace, Vectors
from projections.follower import safe_message
from projections.index_files import IndexFiles
from projections.index_rows import hash_of, index_rows, ready_count
from projections.open_indices import OpenIndices
from projections.settings import ProjectionSettings
from projections.user_index import Hit, UserIndex
from projections.vector_cache import VectorCache

log = logging.getLogger(__name__)

_EVENTS_PER_READ = 512
_EVENTS_PER_SEARCH_MAX = 2048
_TEXTS_WITH_QUERY_MAX = 8
_CHARS_WITH_QUERY_MAX = 6000
_MAINTENANCE_TIMEOUT_S = 60.0
_AFTER_A_TURN_S = 2.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a search gave: hits best first, their memories by position, and how it went. Times in milliseconds."""

    hits: list[Hit]
    memories: dict[int, Memory]
    space: EmbeddingSpace
    position: int
    embed_ms: float
    search_ms: float


_Prepared = tuple[EmbeddingSpace, UserIndex, list[FacetText]]
T = TypeVar("T")


class MemoryIndex:
    """Searches every user's index of the configured embedding model. To be used from one event loop."""

    def __init__(
        self, ledger: Ledger, client: EmbeddingClient, cache: VectorCache, settings: ProjectionSettings
    ) -> None:
        self._ledger = ledger
        self._client = client
        self._cache = cache
        self._settings = settings
        self.held: OpenIndices[tuple[str, EmbeddingSpace], UserIndex] = OpenIndices(settings.index_cache_mb << 20)
        self._embedders: dict[EmbeddingSpace, Embedder] = {}
        self._active = ActiveModel(ledger, client, settings)
        self.failing = False
        """Whether the last index that had fallen behind could not be brought up to date."""
        self._maintaining: dict[str, asyncio.Task[None]] = {}

    async def search(self, user_id: str, query: str, count: int) -> Found:
        """Return the ``count`` memories of a user nearest to ``query``.

        Raises an :class:`EmbeddingError` when the query cannot be embedded, :class:`EmbeddingModelMismatch` when a
        rebuild is needed, :class:`IndexCatchingUp` when the index has fallen too far behind to wait for it.
        """
        try:
            prepared = await _in_thread(self._prepared, user_id)
            if prepared is None:
                await self._active.space_of(user_id)
                prepared = await _in_thread(self._prepared, user_id)
                assert prepared is not None
        except IndexCatchingUp:
            self._maintain_later(user_id)
            raise
        space, _, pending = prepared
        started = time.perf_counter()
        vectors = await self._embed_query(space, query, pending)
        embedded = time.perf_counter()
        hits, memories, position = await _in_thread(self._searched, user_id, prepared, vectors, count)
        searched = time.perf_counter()
        if prepared[1].wants_coarse_look():
            # Not beside the rest of this turn, which would have to share the processor with it.
            self._maintain_later(user_id, after_s=_AFTER_A_TURN_S)
        return Found(hits, memories, space, position, (embedded - started) * 1000, (searched - embedded) * 1000)

    def _prepared(self, user_id: str) -> _Prepared | None:
        """Return what a search needs, the texts to embed with its query last; None before any model was activated."""
        space = self._active.known_space(user_id)
        return (space, *self._caught_up(user_id, space)) if space is not None else None

    def _searched(
        self, user_id: str, prepared: _Prepared, vectors: Vectors, count: int
    ) -> tuple[list[Hit], dict[int, Memory], int]:
        """Take in the vectors that came with the query's, search, and read what was found."""
        # The index itself is carried along: by now it may have been closed to make room for others.
        space, index, pending = prepared
        if len(vectors) > 1:
            self.embedder(space).keep(_distinct(pending), vectors[1:])
            index, _ = self._caught_up(user_id, space)
        hits = index.search(vectors[0], count)
        return hits, self._ledger.reader.memories(user_id, [hit.turn_position for hit in hits]), index.position

    def _maintain_later(self, user_id: str, after_s: float = 0.0) -> None:
        """Start :meth:`maintain` in the background, once per user at a time."""
        if user_id not in self._maintaining:
            task = asyncio.get_running_loop().create_task(self._maintain_logged(user_id, after_s))
            self._maintaining[user_id] = task
            task.add_done_callback(lambda _task: self._maintaining.pop(user_id, None))

    async def _maintain_logged(self, user_id: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        try:
            await self.maintain(user_id)
            self.failing = False
        except Exception as error:  # noqa: BLE001 - the outermost loop of a background task: logged and counted
            self.failing = True
            log.warning("an index could not be brought up to date: %s", safe_message(error))

    async def close(self) -> None:
        """Stop what runs in the background."""
        tasks = list(self._maintaining.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._active.close()

    async def space_of(self, user_id: str) -> EmbeddingSpace:
        """Return the space in which a user's memory is searched; raises as :meth:`ActiveModel.space_of`."""
        return await self._active.space_of(user_id)

    async def maintain(self, user_id: str) -> None:
        """Bring a user's index up to the ledger, however far behind it is, and take a snapshot where it is due.

        Raises as :meth:`search` does, except that it waits for what is missing.
        """
        space = await self.space_of(user_id)
        while True:
            index, behind = await asyncio.to_thread(self._catch_up_once, user_id, space)
            if behind is None:
                break
            await self.embedder(space).embed_missing(_distinct(behind))
        if index.wants_snapshot():
            await asyncio.to_thread(self._take_snapshot, user_id, space, index)
        elif index.wants_coarse_look():
            await asyncio.to_thread(index.make_coarse_look)

    def embedder(self, space: EmbeddingSpace) -> Embedder:
        """Return the embedder of a space for work in the background."""
        if space not in self._embedders:
            self._embedders[space] = Embedder(
                self._client, self._cache, space, batch=self._settings.emb_batch, timeout_s=_MAINTENANCE_TIMEOUT_S
            )
        return self._embedders[space]

    async def _embed_query(self, space: EmbeddingSpace, query: str, pending: Sequence[FacetText]) -> Vectors:
        """Embed the query and, in the same request, memories that have no vector yet.

        Returns float32 of shape (1 + texts, dimensions), the query first; with one row where only it could be embedded.
        """
        texts = _distinct(pending)
        prefixed = [self._client.query_prefix + query, *(space.passage_prefix + text for text in texts)]
        try:
            vectors = await self._client.embed(prefixed, timeout_s=self._settings.emb_timeout_s)
        except EmbeddingRejected:
            # One of the memories is to blame (the background finds out which), or the query is too long.
            vectors = await self._client.embed_query(query, timeout_s=self._settings.emb_timeout_s)
        if vectors.shape[1] != space.dimensions:
            raise EmbeddingMisfit(
                f"{space.model} now gives vectors of {vectors.shape[1]} numbers, memory is indexed with "
                f"{space.dimensions}: run `{REBUILD_COMMAND}`"
            )
        return vectors

    def _caught_up(self, user_id: str, space: EmbeddingSpace) -> tuple[UserIndex, list[FacetText]]:
        """Return the user's index, and the few texts it still lacks because they have no vector."""
        for _ in range(_EVENTS_PER_SEARCH_MAX // _EVENTS_PER_READ + 1):
            index, missing = self._catch_up_once(user_id, space)
            if missing is None:
                return index, []
            if missing:
                # More than a query can take along is the background's to embed; meanwhile the older memories serve.
                return index, _taken_along(missing)
        raise IndexCatchingUp("the index of this user is being built in the background: try again in a moment")

    def _catch_up_once(self, user_id: str, space: EmbeddingSpace) -> tuple[UserIndex, list[FacetText] | None]:
        """Take in a bounded batch. Returns the texts that lack a vector, [] for "go on", None for "all is in"."""
        index = self._opened(user_id, space)
        after = index.position
        changes, read_to = self._ledger.reader.facet_texts(user_id, after, _EVENTS_PER_READ)
        if read_to == after:
            return index, None
        hashes = [key for change in changes if (key := hash_of(change)) is not None]
        known = self._cache.get(self.embedder(space).space_id, hashes)
        ready = ready_count(changes, known)
        if ready or not changes:
            rows = index_rows(changes[:ready], known, space.dimensions)
            extended = index.extend(
                after,
                rows.positions,
                rows.keys,
                rows.vectors,
                read_to if ready == len(changes) else changes[ready - 1].position,
                withdrawn=rows.withdrawn,
            )
            if not extended:
                return index, []  # somebody else was quicker: look again from where that left the index
        return index, [
            change for change in changes[ready:] if (key := hash_of(change)) is not None and key not in known
        ]

    def _opened(self, user_id: str, space: EmbeddingSpace) -> UserIndex:
        return self.held.get((user_id, space), lambda: self._load(user_id, space))

    def _load(self, user_id: str, space: EmbeddingSpace) -> UserIndex:
        empty = UserIndex(space.dimensions, self._settings.index_storage)
        files = self._files(user_id, space)
        try:
            manifest = files.manifest()
            if manifest is None or manifest.storage != empty.storage:
                return empty
            if self._ledger.reader.is_anchor(user_id, manifest.position, manifest.anchor):
                return files.load(manifest)
        except IndexCorrupt as error:
            log.warning("an index is built again from the ledger: %s", error)
        else:
            log.warning("an index is built again from the ledger: it is not of this ledger and user")
        return empty

    def _take_snapshot(self, user_id: str, space: EmbeddingSpace, index: UserIndex) -> None:
        snapshot, position = index.snapshot()
        files = self._files(user_id, space)
        anchor = self._ledger.reader.hash_at(position)
        fresh = files.load(files.save(snapshot, index.storage, position, anchor))
        if fresh.wants_coarse_look():
            fresh.make_coarse_look()
        index.adopt(fresh)

    def _files(self, user_id: str, space: EmbeddingSpace) -> IndexFiles:
        return IndexFiles(self._settings.users_dir, user_id, space)


async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run reads in a thread; what is wrong with the vector cache's file is memory's trouble, not the turn's."""
    try:
        return await asyncio.to_thread(work, *arguments)
    except DatabaseError as error:
        raise IndexUnavailable(f"the vector cache cannot be read or written ({error.orig})") from None


def _distinct(texts: Sequence[FacetText]) -> list[str]:
    return list(dict.fromkeys(text.text for text in texts if text.text is not None))


def _taken_along(missing: Sequence[FacetText]) -> list[FacetText]:
    """Return the first texts that are short enough together not to hold up the query they are embedded with."""
    taken: list[FacetText] = []
    chars = 0
    for text in missing[:_TEXTS_WITH_QUERY_MAX]:
        chars += len(text.text or "")
        if chars > _CHARS_WITH_QUERY_MAX:
            break
        taken.append(text)
    return taken

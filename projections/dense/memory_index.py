"""Searches memory by meaning: every user's index of the configured embedding model.

A user's index follows the ledger by itself: whoever opens or searches it first reads the few events that are not in yet
and takes their vectors from the cache. What the cache lacks (a turn of a moment ago) is embedded together with the
query, in the same request, so that a new memory can be found at once. Everything that takes longer is left to
:meth:`MemoryIndex.maintain`, which runs in the background.

Which model a user's memory is searched with is read from the ledger at the beginning of each search, and the query goes
to the client of that very model: a rebuild may activate another at any moment, and what has begun ends with the old.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.exc import DatabaseError

from domain.errors import EmbeddingRejected, IndexCatchingUp, IndexCorrupt, IndexUnavailable
from domain.identity import SYSTEM_ID, file_name
from domain.ledger import Ledger
from domain.ledger_reader import Erasures
from domain.memory import FacetText
from projections.dense.index_files import IndexFiles
from projections.dense.index_rows import hash_of, index_rows, ready_count
from projections.dense.open_indices import OpenIndices
from projections.dense.user_index import DenseHit, UserIndex
from projections.embedding.active_model import ActiveModel
from projections.embedding.batcher import Embedder
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient, EmbeddingSpace, Vectors
from projections.embedding.model_router import SpaceClient
from projections.follower import safe_message
from projections.settings import ProjectionSettings

log = logging.getLogger(__name__)

_EVENTS_PER_READ = 512
_EVENTS_PER_SEARCH_MAX = 2048
TEXTS_WITH_QUERY_MAX = 8
_CHARS_WITH_QUERY_MAX = 6000
_MAINTENANCE_TIMEOUT_S = 60.0
_AFTER_A_TURN_S = 2.0


@dataclass(frozen=True, slots=True)
class DenseResult:
    """What a search gave: hits best first, and how it went. Times in milliseconds."""

    hits: list[DenseHit]
    space: EmbeddingSpace
    position: int
    embed_ms: float
    search_ms: float
    index: UserIndex
    query: Vectors

    def cosines(self, turn_positions: Sequence[int]) -> dict[int, float]:
        """Return the similarity to the question of further memories, as far as they have vectors."""
        return self.index.cosines(self.query, turn_positions)


_Prepared = tuple[SpaceClient, UserIndex, list[FacetText]]
T = TypeVar("T")


class MemoryIndex:
    """Searches every user's index of the embedding model that is active for them. To be used from one event loop."""

    def __init__(
        self, ledger: Ledger, client: EmbeddingClient, cache: VectorCache, settings: ProjectionSettings
    ) -> None:
        self._ledger = ledger
        self._cache = cache
        self._settings = settings
        self.held: OpenIndices[tuple[str, EmbeddingSpace], UserIndex] = OpenIndices(settings.index_cache_mb << 20)
        self._embedders: dict[SpaceClient, Embedder] = {}
        self._active = ActiveModel(ledger, client, cache, settings)
        self.notice: str | None = None
        """What the operator is told where memory in general is searched with another model than the configured one."""
        self.failing = False
        """Whether the last index that had fallen behind could not be brought up to date."""
        self._maintaining: dict[str, asyncio.Task[None]] = {}
        self._erasures: Erasures | None = None

    async def search(self, user_id: str, query: str, count: int) -> DenseResult:
        """Return the ``count`` memories of a user nearest to ``query``.

        Raises an :class:`EmbeddingError` when the query cannot be embedded, :class:`EmbeddingModelMismatch` when nobody
        serves the index's model any more, :class:`IndexCatchingUp` when it has fallen too far behind to wait for it.
        """
        return await self.search_then(user_id, query, count, lambda found: found)

    async def search_then(self, user_id: str, query: str, count: int, then: Callable[[DenseResult], T]) -> T:
        """Do in the thread of a search what is to be done with its result; raises as :meth:`search`, and as it does."""
        try:
            prepared = await _in_thread(self._prepared, user_id)
            if prepared is None:
                await self._active.of(user_id)
                prepared = await _in_thread(self._prepared, user_id)
                assert prepared is not None
        except IndexCatchingUp:
            self._maintain_later(user_id)
            raise
        client, _, pending = prepared
        started = time.perf_counter()
        vectors = await self._embed_query(client, query, pending)
        embedded = time.perf_counter()

        def searched() -> T:
            index, position, hits = self._searched(user_id, prepared, vectors, count)
            embed_ms, search_ms = (embedded - started) * 1000, (time.perf_counter() - embedded) * 1000
            return then(DenseResult(hits, client.space, position, embed_ms, search_ms, index, vectors[0]))

        return await _in_thread(searched)

    def _prepared(self, user_id: str) -> _Prepared | None:
        """Return what a search needs, the texts to embed with its query last; None before any model was activated."""
        standing = self._ledger.reader.memory_state(user_id)
        self._let_go_of_erased(standing.erasures)
        client = self._active.activated_at(standing.activated_at)
        if client is None:
            return None
        # An index of somebody erased is gone by now, so a held one that has read the newest event is whole.
        index = self.held.get_held((user_id, client.space))
        if index is not None and 0 < standing.facets_at <= index.position:
            return client, index, []
        return client, *self._caught_up(user_id, client.space)

    def _searched(
        self, user_id: str, prepared: _Prepared, vectors: Vectors, count: int
    ) -> tuple[UserIndex, int, list[DenseHit]]:
        """Take in the vectors that came with the query's, and search."""
        # The index itself is carried along: by now it may have been closed to make room for others.
        client, index, pending = prepared
        if len(vectors) > 1:
            self.embedder(client.space).keep(_distinct(pending), vectors[1:])
            index, _ = self._caught_up(user_id, client.space)
        return index, index.position, index.search(vectors[0], count)

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
        """Return the space in which a user's memory is searched; raises as :meth:`ActiveModel.of`."""
        space = (await self._active.of(user_id)).space
        if user_id == SYSTEM_ID:
            self.notice = self._active.notice(space)
        return space

    def notice_of(self, space: EmbeddingSpace) -> str | None:
        """Return what a person should be told of a search in this space, None where it is the configured model's."""
        return self._active.notice(space)

    async def check_endpoint(self) -> None:
        """See at the start whether the active model answers and is still the one memory was indexed with.

        Raises as :meth:`search` does; then no question is embedded there until it is that model again.
        """
        space = await self.space_of(SYSTEM_ID)
        await self._active.clients.of_space(space).check(timeout_s=self._settings.emb_timeout_s)

    def trouble(self, space: EmbeddingSpace) -> str | None:
        """Return why the last call to the endpoints of a space failed, None when it did not."""
        return self._active.clients.of_space(space).trouble

    async def maintain(self, user_id: str) -> None:
        """Bring a user's index up to the ledger, however far behind it is, and take a snapshot where it is due.

        Raises as :meth:`search` does, except that it waits for what is missing.
        """
        space = await self.space_of(user_id)
        index = await asyncio.to_thread(self._opened, user_id, space)
        while True:
            index, behind = await asyncio.to_thread(self._catch_up_once, user_id, space, index)
            if behind is None:
                break
            await self.embedder(space).embed_missing(_distinct(behind))
        index = await asyncio.to_thread(self._keep, user_id, space, index)
        if index.wants_snapshot():
            await asyncio.to_thread(self._take_snapshot, user_id, space, index)

    def embedder(self, space: EmbeddingSpace) -> Embedder:
        """Return the embedder of a space for work in the background."""
        client = self._active.clients.of_space(space)
        if client not in self._embedders:
            self._embedders[client] = Embedder(
                client,
                self._cache,
                space,
                batch=self._settings.emb_batch,
                timeout_s=_MAINTENANCE_TIMEOUT_S,
                concurrency=self._settings.emb_concurrency,
            )
        return self._embedders[client]

    async def _embed_query(self, client: SpaceClient, query: str, pending: Sequence[FacetText]) -> Vectors:
        """Embed the query and, in the same request, memories that have no vector yet.

        Returns float32 of shape (1 + texts, dimensions), the query first; with one row where only it could be embedded.
        """
        texts = _distinct(pending)
        prefixed = [client.query_prefix + query, *(client.space.passage_prefix + text for text in texts)]
        try:
            return await client.embed(prefixed, timeout_s=self._settings.emb_timeout_s)
        except EmbeddingRejected:
            # One of the memories is to blame (the background finds out which), or the query is too long.
            return await client.embed_query(query, timeout_s=self._settings.emb_timeout_s)

    def _caught_up(self, user_id: str, space: EmbeddingSpace) -> tuple[UserIndex, list[FacetText]]:
        """Return the user's index, and the few texts it still lacks because they have no vector."""
        for _ in range(2):
            # Kept hold of: opened anew in each round, it might each time have made room for another user's meanwhile,
            # and begin again at its snapshot.
            index = self._opened(user_id, space)
            for _ in range(_EVENTS_PER_SEARCH_MAX // _EVENTS_PER_READ + 1):
                index, missing = self._catch_up_once(user_id, space, index)
                if missing is None:
                    return self._keep(user_id, space, index), []
                if missing:
                    # More than a query can take along is the background's to embed; meanwhile the older memories serve.
                    return index, _taken_along(missing)
            if not self._opened_again(user_id, space, index):
                break
        raise IndexCatchingUp("the index of this user is being built in the background: try again in a moment")

    def _catch_up_once(
        self, user_id: str, space: EmbeddingSpace, index: UserIndex
    ) -> tuple[UserIndex, list[FacetText] | None]:
        """Take in a bounded batch. Returns the texts that lack a vector, [] for "go on", None for "all is in".

        The index is another one where its user was erased since it was made: whoever writes under that id again is to
        be found by nothing of before.
        """
        after = index.position
        changes, read_to = self._ledger.reader.facet_texts(user_id, after, _EVENTS_PER_READ)
        # Asked after the events were read: what is erased never comes back, so that they too were read before it.
        if not self._stands(user_id, after):
            self.held.drop((user_id, space), index)
            return self._opened(user_id, space), []
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
        key = (user_id, space)
        index = self.held.get(key, lambda: self._load(user_id, space))
        if not self._stands(user_id, index.position):
            self.held.drop(key, index)  # what it was made of was erased
            index = self.held.get(key, lambda: self._load(user_id, space))
        return index

    def _keep(self, user_id: str, space: EmbeddingSpace, index: UserIndex) -> UserIndex:
        """Hold an index that may have made room meanwhile and has grown; return the one that is held from now on."""
        key = (user_id, space)
        held = self.held.get(key, lambda: index)
        if held.position < index.position:
            self.held.drop(key, held)
            held = self.held.get(key, lambda: index)
        if not self._stands(user_id, held.position):
            self.held.drop(key, held)
        return held

    def _let_go_of_erased(self, erasures: Erasures) -> None:
        """Drop indices of users who were erased: they ask no more, and a mapped file keeps its bytes on the disk."""
        if erasures != self._erasures:
            self.held.drop_unless(lambda key, index: self._stands(key[0], index.position))
            self._erasures = erasures

    def _opened_again(self, user_id: str, space: EmbeddingSpace, index: UserIndex) -> bool:
        """Close an index that lags behind its own file; False where the file is no further.

        One that was open before another model was active knows nothing of what a rebuild has written meanwhile.
        """
        try:
            manifest = self._files(user_id, space).manifest()
        except IndexCorrupt:
            return False
        if manifest is None or manifest.position <= index.position:
            return False
        self.held.drop((user_id, space), index)
        return True

    def _stands(self, user_id: str, position: int) -> bool:
        """Tell whether an index that goes up to ``position`` is still one of this user's events."""
        return not position or self._ledger.reader.belongs(user_id, position)

    def _load(self, user_id: str, space: EmbeddingSpace) -> UserIndex:
        empty = UserIndex(space.dimensions, self._settings.index_storage)
        try:
            index = self._files(user_id, space).open(self._ledger.reader, empty.storage)
        except IndexCorrupt as error:
            folder = file_name(user_id)
            log.warning("an index is built again from the ledger: users/%s: %s", folder, error)
            return empty
        return index or empty

    def _take_snapshot(self, user_id: str, space: EmbeddingSpace, index: UserIndex) -> None:
        snapshot, position = index.snapshot()
        if not self._stands(user_id, position):
            return
        files = self._files(user_id, space)
        anchor = self._ledger.reader.hash_at(position)
        fresh = files.load(files.save(snapshot, index.storage, position, anchor))
        if not self._stands(user_id, position):
            files.remove()  # erased while it was written: the folder may be there again after the erasure removed it
            return
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
    for text in missing[:TEXTS_WITH_QUERY_MAX]:
        chars += len(text.text or "")
        if chars > _CHARS_WITH_QUERY_MAX:
            break
        taken.append(text)
    return taken

"""Dense search: every user's memory by meaning, in the embedding model that is active for them.

An index follows the ledger by itself. Whoever searches it first takes in the few events that are not in yet, with their
vectors from the cache; what the cache lacks is embedded together with the question. More than that is left to
:meth:`DenseIndex.maintain`, which runs in the background.

The active model is read from the ledger when a search begins, and the question goes to the client of that very model: a
rebuild may activate another one at any moment, and a search that has begun ends with the old one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import DatabaseError

from domain.errors import EmbeddingModelMismatch, IndexCatchingUp, IndexUnavailable
from domain.identity import SYSTEM_ID
from domain.ledger import Ledger
from domain.memory import FacetText
from projections.background_tasks import BackgroundTasks
from projections.dense.catch_up import CatchUp, EpochEnded
from projections.dense.index_store import IndexKey, IndexStore, epoch_of
from projections.dense.query_embedding import embed_with_query, texts_with_query
from projections.dense.user_index import DenseHit, UserIndex
from projections.embedding.active_model import ActiveModel
from projections.embedding.cache import VectorCache
from projections.embedding.caching_embedder import CachingEmbedder
from projections.embedding.endpoint import BACKGROUND_TIMEOUT_S, EmbeddingClient, EmbeddingSpace, Vectors
from projections.embedding.model_router import ModelClient
from projections.settings import ProjectionSettings
from projections.threads import in_background

_SEARCH_THREADS = 2
"""More contend for the interpreter: see docs/decisions/0021-search-threads.md."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EmbeddedQuery:
    """A question ready to be searched for in one user's index.

    ``vectors`` is float32 of shape (1 + texts, dimensions): the question's vector, then those of ``texts``, memories
    that had no vector yet.
    """

    user_id: str
    client: ModelClient
    index: UserIndex
    texts: list[str]
    vectors: Vectors
    embed_ms: float


@dataclass(frozen=True, slots=True)
class DenseResult:
    """Hits, best first, the space they were searched in, and the ledger position up to which the index had read."""

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


@contextmanager
def _vector_cache_trouble() -> Iterator[None]:
    """Report a vector cache that cannot be used as memory's trouble: a turn goes on without it."""
    try:
        yield
    except DatabaseError as error:
        raise IndexUnavailable(f"the vector cache cannot be read or written ({error.orig})") from None


class DenseIndex:
    """Searches and maintains every user's index. To be used from one event loop, but for :meth:`search_embedded`."""

    def __init__(
        self, ledger: Ledger, client: EmbeddingClient, cache: VectorCache, settings: ProjectionSettings
    ) -> None:
        self._reader = ledger.reader
        self._cache = cache
        self._settings = settings
        self.store = IndexStore(
            ledger.reader, settings.users_dir, settings.index_storage, settings.index_cache_mb << 20
        )
        self._catch_up = CatchUp(ledger.reader, cache)
        self._active = ActiveModel(ledger, client, cache, settings)
        self._embedders: dict[ModelClient, CachingEmbedder] = {}
        self._maintenance = BackgroundTasks()
        self._threads = ThreadPoolExecutor(_SEARCH_THREADS, thread_name_prefix="search")
        self.notice: str | None = None
        """What the operator is told where memory in general is searched with another model than the configured one."""

    @property
    def failing(self) -> bool:
        """Whether the last index that had fallen behind could not be brought up to date."""
        return self._maintenance.failing

    async def search(self, user_id: str, query: str, count: int) -> DenseResult:
        """Return the ``count`` memories of a user nearest to ``query``; raises as :meth:`embed` does."""
        embedded = await self.embed(user_id, query)
        return await self.in_search_thread(self.search_embedded, embedded, count)

    async def in_search_thread(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Do what a search has to do in one of the few threads that searches have, so that the background delays none.

        Raises :class:`IndexUnavailable` once this index is closed.
        """
        try:
            future = self._threads.submit(work, *arguments, **named)
        except RuntimeError:
            raise IndexUnavailable("the service is stopping") from None
        return await asyncio.wrap_future(future)

    async def embed(self, user_id: str, query: str) -> EmbeddedQuery:
        """Bring a user's index up to the ledger, and embed a question for it.

        Raises an :class:`EmbeddingError` when the question cannot be embedded, :class:`EmbeddingModelMismatch` when
        nobody serves the index's model any more, and :class:`IndexCatchingUp` when the index has fallen too far behind
        to wait for it.
        """
        try:
            opened = await self.in_search_thread(self._open_for_search, user_id)
            if opened is None:
                await self._active.of(user_id)
                opened = await self.in_search_thread(self._open_for_search, user_id)
                assert opened is not None, "a model was activated just now"
        except IndexCatchingUp:
            self._maintenance.start(user_id, "bringing an index up to date", lambda: self.maintain(user_id))
            raise
        client, index, texts = opened
        started = time.perf_counter()
        vectors = await embed_with_query(client, query, texts, timeout_s=self._settings.emb_timeout_s)
        return EmbeddedQuery(user_id, client, index, texts, vectors, (time.perf_counter() - started) * 1000)

    @_vector_cache_trouble()
    def search_embedded(self, embedded: EmbeddedQuery, count: int) -> DenseResult:
        """Keep the vectors that came with the question's, and return the ``count`` memories nearest to it.

        Blocks: to be called by :meth:`in_search_thread`. Raises :class:`IndexUnavailable`.
        """
        started = time.perf_counter()
        # The index comes with the question: it may have made room for others by now.
        index, space, vectors = embedded.index, embedded.client.space, embedded.vectors
        if len(vectors) > 1:
            self.embedder(space).keep(embedded.texts, vectors[1:])
            index, _ = self._caught_up(embedded.user_id, space)
        position = index.position
        hits = index.search(vectors[0], count)
        search_ms = (time.perf_counter() - started) * 1000
        return DenseResult(hits, space, position, embedded.embed_ms, search_ms, index, vectors[0])

    async def maintain(self, user_id: str) -> None:
        """Bring a user's index up to the ledger, however far behind it is, and take a snapshot where it is due.

        Raises as :meth:`embed` does, except that it waits for what is missing.
        """
        space = await self.space_of(user_id)
        key, index = await in_background(self._open, user_id, space)
        while True:
            try:
                step = await in_background(self._catch_up.step, key, index)
            except EpochEnded:
                key, index = await in_background(self._open, user_id, space)
                continue
            if step.whole:
                break
            await self.embedder(space).embed_missing(_texts(step.missing))
        await in_background(self._hold, key, index)

    async def follow(self, user_ids: Sequence[str]) -> None:
        """Bring the indices of users up to what was embedded just now; raises as :meth:`maintain` does.

        A user whose model nobody serves any more is left out: the rebuild that they wait for embeds what is missing.
        """
        for user_id in await in_background(self._follow, user_ids):
            with suppress(EmbeddingModelMismatch):
                await self.maintain(user_id)

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._maintenance.close()
        await self._active.close()
        await asyncio.to_thread(self._threads.shutdown)

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

        Raises as :meth:`embed` does; from then on no question is embedded there until it is that model again.
        """
        space = await self.space_of(SYSTEM_ID)
        await self._active.clients.of_space(space).check(timeout_s=self._settings.emb_timeout_s)

    def trouble(self, space: EmbeddingSpace) -> str | None:
        """Return why the last call to the endpoints of a space failed, None when it did not."""
        return self._active.clients.of_space(space).trouble

    def embedder(self, space: EmbeddingSpace) -> CachingEmbedder:
        """Return what embeds the memories of a space in the background."""
        client = self._active.clients.of_space(space)
        if client not in self._embedders:
            self._embedders[client] = CachingEmbedder(
                client,
                self._cache,
                space,
                batch=self._settings.emb_batch,
                timeout_s=BACKGROUND_TIMEOUT_S,
                concurrency=self._settings.emb_concurrency,
            )
        return self._embedders[client]

    @_vector_cache_trouble()
    def _open_for_search(self, user_id: str) -> tuple[ModelClient, UserIndex, list[str]] | None:
        """Return who embeds, the index to search, and texts to embed with the question; None without any model."""
        state = self._reader.memory_state(user_id)
        client = self._active.activated_at(state.activated_at)
        if client is None:
            return None
        index = self.store.held.get_held(IndexKey(user_id, client.space, epoch_of(state.erasures)))
        if index is not None and state.facets_at <= index.position:
            return client, index, []
        index, missing = self._caught_up(user_id, client.space)
        return client, index, texts_with_query(missing)

    def _caught_up(self, user_id: str, space: EmbeddingSpace) -> tuple[UserIndex, Sequence[FacetText]]:
        """Return a user's index with what may be taken in while a question waits, and texts that lack a vector."""
        while True:
            key, index = self._open(user_id, space)
            try:
                missing = self._catch_up.for_search(key, index)
            except EpochEnded:
                continue
            except IndexCatchingUp:
                if not self.store.drop_if_file_is_ahead(key, index):
                    raise
            else:
                self.store.hold(key, index)
                return index, missing

    def _open(self, user_id: str, space: EmbeddingSpace) -> tuple[IndexKey, UserIndex]:
        key = IndexKey(user_id, space, epoch_of(self._reader.memory_state(user_id).erasures))
        return key, self.store.open(key)

    def _hold(self, key: IndexKey, index: UserIndex) -> None:
        self.store.hold(key, index)
        if index.wants_snapshot():
            self.store.save(key, index)
        index.make_binary_codes()

    def _follow(self, user_ids: Sequence[str]) -> list[str]:
        """Take in one batch of each user's events; return the users who need more than that."""
        behind = []
        for user_id in user_ids:
            client = self._active.activated_at(self._reader.memory_state(user_id).activated_at)
            if client is None:
                behind.append(user_id)
                continue
            key, index = self._open(user_id, client.space)
            with suppress(EpochEnded):
                if self._catch_up.step(key, index).whole:
                    self._hold(key, index)
                    continue
            behind.append(user_id)
        return behind


def _texts(missing: Sequence[FacetText]) -> list[str]:
    return [change.text for change in missing if change.text is not None]

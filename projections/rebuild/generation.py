"""Builds a new generation of indices beside the live one and activates it by one event.

First, every text that the vector cache does not know for the model is embedded. Then the index of each user is written
to the folder of its model, where no search looks yet, and read back. Texts recorded meanwhile are embedded and built in
a few more rounds; the service adds the rest when it opens an index. Last, one event activates the model. A service
reads it at the start of its next search.

So memory is never half old and half new, and an interruption at any point leaves the old generation active. The next
run finds all embedded texts in the cache and writes the indices again.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from domain.errors import EmbeddingMisfit, IndexCorrupt, RebuildRunning
from domain.events import NewEvent
from domain.identity import SYSTEM_STREAM, user_stream
from domain.ledger import Ledger
from domain.origin import command_origin
from projections.dense.user_build import Target, VectorsMissing, build_user
from projections.embedding.active_model import activation, keep_probe, probed
from projections.embedding.backfill import Embedded, embed_texts, retried
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.caching_embedder import CachingEmbedder
from projections.embedding.endpoint import EmbeddingClient, EmbeddingSpace, Vectors
from projections.embedding.model_router import PROBE_TEXT, same_direction
from projections.progress import Progress
from projections.rebuild.processes import Build, build_processes
from projections.settings import ProjectionSettings

_TIMEOUT_S = 120.0
_THREADS = 2
"""One reads while the other waits for the disk. More only wait for each other."""
_PROCESSES_MAX = 2
"""Each maps much of the ledger and the cache into memory, which bounds their number."""
_EVENTS_FOR_PROCESSES = 100_000
"""With fewer events, starting processes takes longer than it saves."""
_ROUNDS_MAX = 5


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did. ``position`` is the ledger position up to which the generation was built."""

    space: EmbeddingSpace
    users: int
    memories: int
    vectors: int
    embedded: int
    position: int


async def rebuild(
    ledger: Ledger, client: EmbeddingClient, cache: VectorCache, settings: ProjectionSettings, *, user_id: str | None
) -> Rebuilt:
    """Build the index of one user or of all with a client's model, then activate that model for them.

    Raises :class:`EmbeddingError` when the endpoint cannot be reached or gives other vectors than before under this
    name, and :class:`IndexCorrupt` when a written index is wrong. Vectors embedded until then are kept.
    """
    space, probe = await retried(lambda: probed(client, timeout_s=_TIMEOUT_S))
    _check_same_model(cache, space, probe)
    keep_probe(cache, space, probe)
    generation = _Generation(ledger, client, cache, settings, space, user_id)
    await generation.build()
    memories = ledger.reader.count_memories(user_id)
    vectors = sum(generation.vectors.values())
    position = generation.embedded.position
    payload = activation(client, space, memories=memories, vectors=vectors, ledger_position=position)
    event = NewEvent(ledger.clock.new_id(), payload, origin=command_origin("projections.rebuild"))
    stream = SYSTEM_STREAM if user_id is None else user_stream(user_id)
    await asyncio.wrap_future(ledger.append(stream, lambda _head: [event]))
    return Rebuilt(space, len(generation.vectors), memories, vectors, generation.embedded.texts, position)


@contextlib.contextmanager
def only_one(settings: ProjectionSettings) -> Iterator[None]:
    """Hold the lock for rebuilding and pruning; the end of the process frees it. Raises :class:`RebuildRunning`."""
    settings.storage_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(settings.storage_dir / "rebuild.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RebuildRunning("another rebuild is at work on this storage: wait until it has ended") from None
        yield
    finally:
        os.close(descriptor)


def _check_same_model(cache: VectorCache, space: EmbeddingSpace, probe: Vectors) -> None:
    """Raise :class:`EmbeddingMisfit` when the model now gives another vector for the probe than the cached one.

    Vectors of two models would be mixed, in the cache and in the live index of the same name.
    """
    known = cache.get(cache.space_id(space), [text_hash(PROBE_TEXT)]).get(text_hash(PROBE_TEXT))
    if known is not None and not same_direction(probe, known):
        raise EmbeddingMisfit(
            f"{space.model!r} now gives other vectors than those in the cache: another model answers under that "
            "name. Give it a name of its own (--model, and the server's own setting), or start the old one"
        )


class _Generation:
    def __init__(
        self,
        ledger: Ledger,
        client: EmbeddingClient,
        cache: VectorCache,
        settings: ProjectionSettings,
        space: EmbeddingSpace,
        user_id: str | None,
    ) -> None:
        self._ledger = ledger
        self._cache = cache
        self._settings = settings
        self._space = space
        self._user_id = user_id
        self._embedder = CachingEmbedder(
            client,
            cache,
            space,
            batch=settings.emb_batch,
            timeout_s=_TIMEOUT_S,
            concurrency=settings.emb_concurrency,
        )
        self.embedded = Embedded(0, 0)
        self.vectors: dict[str, int] = {}
        """How many vectors each user's index has."""

    async def build(self) -> None:
        """Build all indices, and again those of users with new texts meanwhile."""
        after = self._cache.position(self._embedder.space_id) if self._user_id is None else 0
        await self._embed(self._user_id, after)
        users = list(self._ledger.reader.all_users()) if self._user_id is None else [self._user_id]
        await self._build(users)
        for _ in range(_ROUNDS_MAX):
            changed = await self._embed(self._user_id, self.embedded.position)
            if not changed:
                break
            await self._build(sorted(changed))

    async def _embed(self, user_id: str | None, after: int) -> set[str]:
        done = await embed_texts(
            self._ledger,
            self._cache,
            self._embedder,
            user_id=user_id,
            after=after,
            batch=self._settings.emb_batch,
        )
        self.embedded.texts += done.texts
        self.embedded.position = max(self.embedded.position, done.position)
        return done.users

    async def _build(self, users: Sequence[str]) -> None:
        waiting = iter(users)
        with Progress("indices", "user", len(users)) as progress:

            async def work(build: Build) -> None:
                for user in waiting:
                    await self._build_one(build, user)
                    progress.advance(1)

            async with self._builders(len(users)) as builders:
                await asyncio.gather(*(work(build) for build in builders))

    @contextlib.asynccontextmanager
    async def _builders(self, users: int) -> AsyncIterator[list[Build]]:
        """Start builders: processes where there is enough to do, else threads of this process."""
        target = Target(self._settings.users_dir, self._space, self._settings.index_storage)
        processes = min(os.cpu_count() or 1, _PROCESSES_MAX, users)
        if processes > 1 and self._ledger.reader.count_facets(self._user_id) >= _EVENTS_FOR_PROCESSES:
            paths = (self._settings.ledger_path, self._settings.vector_cache_path)
            async with build_processes(processes, *paths, target) as builders:
                yield builders
            return
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(_THREADS, "builder") as pool:

            async def in_thread(user: str, upto: int) -> int:
                return await loop.run_in_executor(
                    pool, build_user, self._ledger.reader, self._cache, target, user, upto
                )

            yield [in_thread] * _THREADS

    async def _build_one(self, build: Build, user: str) -> None:
        try:
            self.vectors[user] = await build(user, self.embedded.position)
        except VectorsMissing:
            # The cache was deleted, or pruned of texts that came back: it holds less than its position says.
            await self._embed(user, 0)
            try:
                self.vectors[user] = await build(user, self.embedded.position)
            except VectorsMissing:
                raise IndexCorrupt("the vector cache loses what is put into it: does somebody prune it?") from None

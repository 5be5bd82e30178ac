"""A new generation of indices, built beside the live one and switched in by one event.

First every text that the vector cache does not know for the model is embedded. Then each user's index is written to a
folder of its own model, where nobody looks for it yet, and read back. What was said meanwhile is embedded and built in
rounds, until nothing is left or somebody never stops talking; the service adds the rest when it opens an index. Last
one event is appended that activates the model. A service reads it at the beginning of its next search.

So there is no moment at which memory is half old and half new, and an interruption at any point leaves the old
generation in force. The next run finds all that was embedded in the cache; indices are written anew, which takes
seconds.
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
"""While one waits for the disk, the other reads. More only wait for each other."""
_PROCESSES_MAX = 2
"""Each maps half a gigabyte of the ledger and the cache, and a rebuild is to stay below two."""
_EVENTS_FOR_PROCESSES = 100_000
"""A process needs a second to start, in which this many are built."""
_ROUNDS_MAX = 5


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did. ``position`` is that of the ledger up to which the generation was built."""

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

    Raises :class:`EmbeddingError` when the endpoint stays away or gives other vectors than it once did under this name,
    :class:`IndexCorrupt` when what was written does not hold what it should. What was embedded until then is kept.
    """
    space, probe = await retried(lambda: probed(client, timeout_s=_TIMEOUT_S))
    _recognise(cache, space, probe)
    keep_probe(cache, space, probe)
    generation = _Generation(ledger, client, cache, settings, space, user_id)
    await generation.build()
    memories = ledger.reader.count_turns(user_id)
    vectors = sum(generation.vectors.values())
    position = generation.embedded.position
    payload = activation(client, space, memories=memories, vectors=vectors, ledger_position=position)
    event = NewEvent(ledger.clock.new_id(), payload)
    stream = SYSTEM_STREAM if user_id is None else user_stream(user_id)
    await asyncio.wrap_future(ledger.append(stream, lambda _head: [event]))
    return Rebuilt(space, len(generation.vectors), memories, vectors, generation.embedded.texts, position)


@contextlib.contextmanager
def only_one(settings: ProjectionSettings) -> Iterator[None]:
    """Hold the right to rebuild or prune; it ends with the process at the latest. Raises :class:`RebuildRunning`."""
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


def _recognise(cache: VectorCache, space: EmbeddingSpace, probe: Vectors) -> None:
    """Raise :class:`EmbeddingMisfit` when the cache knows the model by another vector than it now gives.

    Its vectors would be mixed with those of another model, in the cache and in the live index of the same name.
    """
    known = cache.get(cache.space_id(space), [text_hash(PROBE_TEXT)]).get(text_hash(PROBE_TEXT))
    if known is not None and not same_direction(probe, known):
        raise EmbeddingMisfit(
            f"{space.model!r} gives other vectors now than those that are kept of it: another model answers under that "
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
        """How many each user's index has."""

    async def build(self) -> None:
        """Build all indices, and again those of users who said something meanwhile."""
        after = self._cache.position(self._embedder.space_id) if self._user_id is None else 0
        await self._embed(self._user_id, after)
        users = list(self._ledger.reader.all_users()) if self._user_id is None else [self._user_id]
        await self._build(users)
        for _ in range(_ROUNDS_MAX):
            spoken = await self._embed(self._user_id, self.embedded.position)
            if not spoken:
                break
            await self._build(sorted(spoken))

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
        """Start what builds: processes where there is enough to do for them, else threads of this one."""
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
            # The cache was thrown away, or pruned of texts that came back: its position says more than it holds.
            await self._embed(user, 0)
            try:
                self.vectors[user] = await build(user, self.embedded.position)
            except VectorsMissing:
                raise IndexCorrupt("the vector cache loses what is put into it: does somebody prune it?") from None

"""What memory returns for a question, now or at a position of the past.

Both are one thing: memory is a function of the ledger up to a position. What is asked about the past is searched with
the embedding model that was active then, as long as that still answers, and else with the one configured now; where
none answers, or none is to be asked, the words of the question have to do.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from domain.audit_reader import AuditReader, Change
from domain.clock import Clock
from domain.errors import EmbeddingError
from domain.events import EmbeddingModelActivated, RetrievalMode
from domain.retrieval import Candidate
from domain.temporal.time_range import TimeRange, time_range
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient, EmbeddingSpace
from projections.search.as_of import SearchAsOf
from projections.search.dense_as_of import DenseAsOf
from projections.settings import ProjectionSettings

_QUERY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Recalled:
    """A memory found, as it stood then and with what it was found by, and what a person has done to it since."""

    candidate: Candidate
    since: Change | None


@dataclass(frozen=True, slots=True)
class Recollection:
    """What was asked, of which state of memory (``position``, recorded at ``moment``), and how; what came of it.

    ``space`` is None where words alone were searched; ``notes`` say what was done otherwise than one would expect.
    """

    user_id: str
    query: str
    position: int
    head: int
    moment: datetime | None
    mode: RetrievalMode
    space: EmbeddingSpace | None
    notes: tuple[str, ...]
    found: tuple[Recalled, ...]


@dataclass(frozen=True, slots=True)
class _Searched:
    found: list[Candidate]
    mode: RetrievalMode
    space: EmbeddingSpace | None


async def recall(
    reader: AuditReader,
    settings: ProjectionSettings | None,
    user_id: str,
    query: str,
    *,
    count: int,
    at: int | None,
    on_embedded: Callable[[int], object] = lambda _texts: None,
) -> Recollection:
    """Ask a user's memory as of position ``at``, or as it is now; without ``settings`` by its words alone.

    ``on_embedded`` is told how many more texts had to be embedded first.
    """
    head = reader.head_position()
    position = head if at is None else at
    # "Last week" is said today, or on the day that is gone back to.
    wanted = time_range(query, (reader.recorded_at(position) if at is not None else None) or Clock().now())
    notes: list[str] = []
    searched: _Searched | None = None
    if settings is not None:
        try:
            searched = await _by_vectors(reader, settings, user_id, query, count, position, wanted, notes, on_embedded)
        except EmbeddingError as error:
            notes.append(f"searched by words alone: {error}")
    if searched is None:
        searched = await _searched(reader, user_id, None, query, count, position, wanted)
    since = reader.changes_since(user_id, [item.memory.memory_id for item in searched.found], position)
    return Recollection(
        user_id=user_id,
        query=query,
        position=position,
        head=head,
        moment=reader.recorded_at(position),
        mode=searched.mode,
        space=searched.space,
        notes=tuple(notes),
        found=tuple(Recalled(item, since.get(item.memory.memory_id)) for item in searched.found),
    )


@asynccontextmanager
async def opened_cache(settings: ProjectionSettings) -> AsyncIterator[VectorCache]:
    """Open the vector cache until the block ends."""
    with contextlib.closing(VectorCache(settings.vector_cache_path, half=settings.index_storage == "fp16")) as cache:
        yield cache


@asynccontextmanager
async def opened_client(settings: ProjectionSettings) -> AsyncIterator[EmbeddingClient]:
    """Open a client of the embedding endpoint until the block ends."""
    client = EmbeddingClient(settings)
    try:
        yield client
    finally:
        await client.close()


async def _by_vectors(
    reader: AuditReader,
    settings: ProjectionSettings,
    user_id: str,
    query: str,
    count: int,
    position: int,
    wanted: TimeRange | None,
    notes: list[str],
    on_embedded: Callable[[int], object],
) -> _Searched:
    """Search with the model that was active then, else with the one configured now; add to ``notes`` which one."""
    active = reader.model_active_at(user_id, position)
    async with opened_cache(settings) as cache:

        async def search(client: EmbeddingClient, dimensions: int) -> _Searched:
            if not dimensions:
                dimensions = (await client.embed_query(query, timeout_s=_QUERY_TIMEOUT_S)).shape[1]
            vectors = DenseAsOf(
                reader,
                client,
                cache,
                client.space(dimensions),
                user_id,
                batch=settings.emb_batch,
                on_embedded=on_embedded,
            )
            return await _searched(reader, user_id, vectors, query, count, position, wanted)

        if active is not None and (active.model, active.passage_prefix) != (
            settings.emb_model,
            settings.passage_prefix,
        ):
            async with opened_client(_settings_of(active, settings)) as client:
                try:
                    searched = await search(client, active.dimensions)
                except EmbeddingError as error:
                    notes.append(
                        f"{active.model}, the embedding model active then, does not answer ({error}): "
                        f"{settings.emb_model} is asked instead"
                    )
                else:
                    notes.append(f"searched with {active.model}, the embedding model active then")
                    return searched
        async with opened_client(settings) as client:
            return await search(client, settings.embedding_dims)


async def _searched(
    reader: AuditReader,
    user_id: str,
    vectors: DenseAsOf | None,
    query: str,
    count: int,
    position: int,
    wanted: TimeRange | None,
) -> _Searched:
    mode: RetrievalMode = "hybrid" if vectors is not None else "lexical"
    with contextlib.closing(SearchAsOf(reader, user_id, vectors)) as memory:
        found = await memory.search(
            query, count, position=position, mode=mode, timeout_s=_QUERY_TIMEOUT_S, wanted=wanted
        )
        return _Searched(found, mode, memory.space)


def _settings_of(active: EmbeddingModelActivated, settings: ProjectionSettings) -> ProjectionSettings:
    return settings.model_copy(
        update={
            "emb_base_url": active.base_url or settings.emb_base_url,
            "emb_model": active.model,
            "embedding_dims": active.dimensions,
            "emb_passage_prefix": active.passage_prefix,
            "emb_query_prefix": active.query_prefix,
        }
    )

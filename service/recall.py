"""What memory returns for a question, now or at a position of the past.

Both are one thing: memory is a function of the ledger up to a position. What is asked about the past is searched with
the embedding model that was active then, as long as that still answers, and else with the one configured now.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from domain.errors import EmbeddingError, EmbeddingMisfit
from domain.events import EmbeddingModelActivated, Facet
from domain.memory import Memory, Scores
from domain.past import Change, PastReader
from projections.embedding_client import EmbeddingClient, EmbeddingSpace, Vectors
from projections.past_memory import PastMemory
from projections.settings import ProjectionSettings
from projections.vector_cache import VectorCache

_QUERY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Recalled:
    """A memory found: as it stood then, how well it fitted, and what a person has done to it since.

    ``matched`` is None where its words, or a turn beside it, brought it in.
    """

    rank: int
    memory: Memory
    scores: Scores
    matched: Facet | None
    since: Change | None


@dataclass(frozen=True, slots=True)
class Recollection:
    """What was asked, of which state of memory (``position``, recorded at ``moment``), with which model; what came."""

    user_id: str
    query: str
    position: int
    head: int
    moment: datetime | None
    space: EmbeddingSpace
    notes: tuple[str, ...]
    found: tuple[Recalled, ...]


async def recall(
    reader: PastReader, settings: ProjectionSettings, user_id: str, query: str, *, count: int, at: int | None
) -> Recollection:
    """Ask a user's memory as of position ``at``, or as it is now.

    Raises an :class:`EmbeddingError` when the question cannot be embedded.
    """
    head = reader.head_position()
    position = head if at is None else at
    async with opened_cache(settings) as cache, _asked(reader, settings, user_id, query, position) as asked:
        client, vector, notes = asked
        space = client.space(vector.shape[0])
        past = PastMemory(reader, client, cache, space, user_id, batch=settings.emb_batch)
        await past.advance(position)
        found = past.search(query, vector, count)
    since = reader.changes_since(user_id, [candidate.memory.memory_id for candidate in found], position)
    return Recollection(
        user_id=user_id,
        query=query,
        position=position,
        head=head,
        moment=reader.recorded_at(position),
        space=space,
        notes=notes,
        found=tuple(
            Recalled(
                candidate.rank,
                candidate.memory,
                candidate.scores,
                candidate.matched,
                since.get(candidate.memory.memory_id),
            )
            for candidate in found
        ),
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


@asynccontextmanager
async def _asked(
    reader: PastReader, settings: ProjectionSettings, user_id: str, query: str, position: int
) -> AsyncIterator[tuple[EmbeddingClient, Vectors, tuple[str, ...]]]:
    """Embed the question with the model that was active then, else with the one configured now."""
    active = reader.model_active_at(user_id, position)
    notes: tuple[str, ...] = ()
    if active is not None and (active.model, active.passage_prefix) != (settings.emb_model, settings.passage_prefix):
        async with opened_client(_settings_of(active, settings)) as client:
            try:
                vector = await _embedded(client, query, active.dimensions)
            except EmbeddingError as error:
                notes = (
                    f"{active.model}, the embedding model active then, does not answer ({error}): "
                    f"searched with {settings.emb_model} instead",
                )
            else:
                yield client, vector, (f"searched with {active.model}, the embedding model active then",)
                return
    async with opened_client(settings) as client:
        yield client, await _embedded(client, query, settings.embedding_dims), notes


async def _embedded(client: EmbeddingClient, query: str, dimensions: int) -> Vectors:
    vectors = await client.embed([client.query_prefix + query], timeout_s=_QUERY_TIMEOUT_S)
    vector: Vectors = vectors[0]
    if dimensions and len(vector) != dimensions:
        raise EmbeddingMisfit(f"{client.model} gives vectors of {len(vector)} numbers now, and gave {dimensions}")
    return vector


def _settings_of(active: EmbeddingModelActivated, settings: ProjectionSettings) -> ProjectionSettings:
    return settings.model_copy(
        update={
            "emb_model": active.model,
            "embedding_dims": active.dimensions,
            "emb_passage_prefix": active.passage_prefix,
            "emb_query_prefix": None,
        }
    )

"""What memory returns for a question, now or as of an earlier position of the ledger.

Memory is a function of the ledger up to a position, so both are the same search. An earlier state is searched with the
embedding model that was active then, if it still answers, otherwise with the one configured now. Without either, the
search uses words alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from domain.audit_reader import AuditReader, Change
from domain.clock import Clock
from domain.errors import EmbeddingError
from domain.events import EmbeddingModelActivated, RetrievalMode
from domain.retrieval import Candidate
from domain.temporal.time_range import TimeRange, time_range
from domain.temporal.zones import in_zone
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient, EmbeddingSpace
from projections.embedding.known_addresses import is_known_address
from projections.embedding.model_router import not_configured
from projections.search.as_of import SearchAsOf
from projections.search.dense_as_of import DenseAsOf
from projections.settings import ProjectionSettings

_QUERY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class RecalledMemory:
    """A memory as it stood at the position, how it was found, and what a person has changed ``since``."""

    candidate: Candidate
    since: Change | None


@dataclass(frozen=True, slots=True)
class RecallResult:
    """The answer of a user's memory as of ``position``, whose event was ``recorded_at``.

    ``space`` is None where only words were searched. ``notes`` tell the operator what differed from the usual search.
    """

    user_id: str
    query: str
    position: int
    head: int
    recorded_at: datetime | None
    space: EmbeddingSpace | None
    notes: tuple[str, ...]
    found: tuple[RecalledMemory, ...]

    @property
    def mode(self) -> RetrievalMode:
        return _mode(self.space)


@dataclass(frozen=True, slots=True)
class _Question:
    user_id: str
    query: str
    count: int
    position: int
    wanted: TimeRange | None


async def recall_memories(
    reader: AuditReader,
    settings: ProjectionSettings | None,
    user_id: str,
    query: str,
    *,
    count: int,
    at: int | None,
    zone: tzinfo = UTC,
    on_embedded: Callable[[int], object] = lambda _texts: None,
) -> RecallResult:
    """Search a user's memory as of position ``at`` (None: now); without ``settings``, by words alone.

    ``zone`` is the person's, whose days count. ``on_embedded`` is called with the number of memory texts that were just
    embedded because the cache lacked them.
    """
    head = reader.head_position()
    position = head if at is None else at
    recorded_at = reader.recorded_at(position)
    # "Last week" is relative to now, or to the moment of the earlier state.
    asked_at = Clock().now() if at is None or recorded_at is None else recorded_at
    question = _Question(user_id, query, count, position, time_range(query, in_zone(asked_at, zone)))
    notes: list[str] = []
    space: EmbeddingSpace | None = None
    found: list[Candidate] | None = None
    if settings is not None:
        try:
            found, space = await _search_vectors_and_words(reader, settings, question, notes, on_embedded)
        except EmbeddingError as error:
            notes.append(f"searched by words alone: {error}")
    if found is None:
        found = await _search(reader, question, None)
    since = reader.changes_since(user_id, [item.memory.memory_id for item in found], position)
    return RecallResult(
        user_id=user_id,
        query=query,
        position=position,
        head=head,
        recorded_at=recorded_at,
        space=space,
        notes=tuple(notes),
        found=tuple(RecalledMemory(item, since.get(item.memory.memory_id)) for item in found),
    )


def open_cache(settings: ProjectionSettings) -> closing[VectorCache]:
    """Open the vector cache until the end of the block."""
    return closing(VectorCache(settings.vector_cache_path, half=settings.index_storage == "fp16"))


@asynccontextmanager
async def open_client(settings: ProjectionSettings) -> AsyncIterator[EmbeddingClient]:
    """Open a client of the embedding endpoint until the end of the block."""
    client = EmbeddingClient(settings)
    try:
        yield client
    finally:
        await client.close()


async def _search_vectors_and_words(
    reader: AuditReader,
    settings: ProjectionSettings,
    question: _Question,
    notes: list[str],
    on_embedded: Callable[[int], object],
) -> tuple[list[Candidate], EmbeddingSpace]:
    """Search with the model active at the position, otherwise with the configured one; say in ``notes`` which."""

    async def search(with_settings: ProjectionSettings) -> tuple[list[Candidate], EmbeddingSpace]:
        async with open_client(with_settings) as client:
            dimensions = with_settings.embedding_dims
            if not dimensions:
                dimensions = (await client.embed_query(question.query, timeout_s=_QUERY_TIMEOUT_S)).shape[1]
            vectors = DenseAsOf(
                reader,
                client,
                cache,
                client.space(dimensions),
                question.user_id,
                batch=settings.emb_batch,
                on_embedded=on_embedded,
            )
            return await _search(reader, question, vectors), vectors.space

    active = reader.model_active_at(question.user_id, question.position)
    configured = (settings.emb_model, settings.passage_prefix)
    with open_cache(settings) as cache:
        if active is not None and (active.model, active.passage_prefix) != configured:
            if active.base_url is not None and not is_known_address(settings, active.base_url):
                notes.append(f"{not_configured(active)}; {settings.emb_model} is asked instead")
                return await search(settings)
            try:
                found = await search(_settings_of(active, settings))
            except EmbeddingError as error:
                notes.append(
                    f"{active.model}, the embedding model active then, does not answer ({error}): "
                    f"{settings.emb_model} is asked instead"
                )
            else:
                notes.append(f"searched with {active.model}, the embedding model active then")
                return found
        return await search(settings)


async def _search(reader: AuditReader, question: _Question, vectors: DenseAsOf | None) -> list[Candidate]:
    with closing(SearchAsOf(reader, question.user_id, vectors)) as memory:
        return await memory.search(
            question.query,
            question.count,
            position=question.position,
            mode=_mode(memory.space),
            timeout_s=_QUERY_TIMEOUT_S,
            wanted=question.wanted,
        )


def _mode(space: EmbeddingSpace | None) -> RetrievalMode:
    return "hybrid" if space is not None else "lexical"


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

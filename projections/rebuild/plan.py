"""What a rebuild would do, found without calling the endpoint or writing anything."""

from __future__ import annotations

import math
from dataclasses import dataclass

from domain.ledger import Ledger
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.endpoint import EmbeddingSpace
from projections.settings import ProjectionSettings

_EVENTS_PER_READ = 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rebuild would read and embed.

    ``events`` change the texts by which memories are found; ``texts`` counts equal texts once. ``calls`` are requests
    to the endpoint, including the probe, if it refuses no text. ``cache_vectors`` and ``cache_bytes`` count what the
    cache keeps of all models.
    """

    model: str
    events: int
    texts: int
    cached: int
    to_embed: int
    calls: int
    cache_vectors: int
    cache_bytes: int


def plan(ledger: Ledger, cache: VectorCache | None, settings: ProjectionSettings, user_id: str | None) -> Plan:
    """Plan a rebuild of one user or of all; ``cache`` is None if there is no file yet."""
    space_id = _space_id(cache, settings)
    cached: set[bytes] = set()
    missing: set[bytes] = set()
    position = -1
    while True:
        after = max(position, 0)
        changes, position = ledger.reader.facet_texts(user_id, after, _EVENTS_PER_READ)
        if position == after:
            break
        hashes = {text_hash(change.text) for change in changes if change.text is not None}
        known = cache.known(space_id, list(hashes)) if cache is not None and space_id is not None else set()
        cached |= known
        missing |= hashes - known
    sizes = [cache.size(number) for number, _ in cache.spaces()] if cache is not None else []
    return Plan(
        model=settings.emb_model,
        events=ledger.reader.count_facets(user_id),
        texts=len(cached) + len(missing),
        cached=len(cached),
        to_embed=len(missing),
        calls=1 + math.ceil(len(missing) / settings.emb_batch),
        cache_vectors=sum(vectors for vectors, _ in sizes),
        cache_bytes=sum(size for _, size in sizes),
    )


def _space_id(cache: VectorCache | None, settings: ProjectionSettings) -> int | None:
    """Return the newest space that fits the model: only the endpoint could tell the length of its vectors."""

    def fits(space: EmbeddingSpace) -> bool:
        return (space.model, space.passage_prefix) == (settings.emb_model, settings.passage_prefix) and (
            settings.embedding_dims in (0, space.dimensions)
        )

    spaces = cache.spaces() if cache is not None else []
    return next((number for number, space in reversed(spaces) if fits(space)), None)

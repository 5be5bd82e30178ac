"""Memory as a service opens it, without the service: a real ledger, cache and index over a scripted endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from domain.events import NewEvent
from domain.identity import StreamId
from domain.ledger import Ledger, StreamHead
from projections.dense.dense_index import DenseIndex
from projections.embedding.cache import VectorCache
from projections.embedding.endpoint import EmbeddingClient
from projections.embedding.known_addresses import remember_address
from projections.settings import ProjectionSettings
from tests.ledgers import summary_of, turn
from tests.upstream import ScriptedUpstream

MODEL = "emb-old"
OTHER_MODEL = "emb-new"


@dataclass(frozen=True)
class World:
    """What a process that searches memory has open."""

    settings: ProjectionSettings
    ledger: Ledger
    client: EmbeddingClient
    cache: VectorCache
    index: DenseIndex

    async def found(self, user_id: str, query: str, count: int = 5) -> list[tuple[int, float]]:
        """Search; return position and score of each hit, the score to five places."""
        found = await self.index.search(user_id, query, count)
        return [(hit.turn_position, round(hit.score, 5)) for hit in found.hits]


def settings_for(storage: Path, upstream: ScriptedUpstream, **overrides: object) -> ProjectionSettings:
    """Return settings that read no environment but for what is given here."""
    values = {"storage_dir": storage, "emb_base_url": upstream.base_url, "emb_model": MODEL, "emb_batch": 8}
    return ProjectionSettings.model_validate(values | overrides)


@asynccontextmanager
async def opened(settings: ProjectionSettings) -> AsyncIterator[World]:
    """Open a world and close it; nothing runs in its background."""
    ledger = Ledger(settings.ledger_path)
    remember_address(settings)
    cache = VectorCache(settings.vector_cache_path, half=settings.index_storage == "fp16")
    client = EmbeddingClient(settings)
    index = DenseIndex(ledger, client, cache, settings)
    try:
        yield World(settings, ledger, client, cache, index)
    finally:
        await index.close()
        await client.close()
        cache.close()
        ledger.close()


def remember(ledger: Ledger, user_id: str, said: Sequence[str], *, summarised: bool = True) -> list[int]:
    """Record a turn for each text, with a summary beside it or not; return the turns' positions."""
    ids = [str(uuid4()) for _ in said]

    def decide(head: StreamHead) -> list[NewEvent]:
        events: list[NewEvent] = []
        for turn_id, (memory_id, text) in enumerate(zip(ids, said, strict=True), start=head.turn_id + 1):
            events.append(NewEvent(memory_id, turn(turn_id, text, "Noted.")))
            if summarised:
                summary = summary_of(memory_id, turn_id, f"{user_id} noted: {text}")
                events.append(NewEvent(str(uuid4()), summary, None, memory_id))
        return events

    recorded = ledger.append(StreamId(user_id, "chat"), decide).result()
    positions = {event.event_id: event.position for event in recorded}
    return [positions[memory_id] for memory_id in ids]


FACTS = (
    "The ferry to Lisbon leaves at nine.",
    "My sister plays the violin in Vienna.",
    "The kitchen light needs a new bulb.",
    "Basil grows best beside tomatoes.",
    "The spare key hangs behind the clock.",
    "Our old dog was called Bruno.",
    "Chess club meets on Thursday evening.",
    "The blue paint is called cobalt.",
)


def many(count: int) -> list[str]:
    """Return texts that differ and share words."""
    return [f"{FACTS[number % len(FACTS)]} Entry {number} of shelf {number % 7}." for number in range(count)]

"""Which embedding model a user's memory is searched with: the one that the ledger says was activated last.

The first use of an empty ledger activates the configured model. From then on a service that is configured for another
one keeps using the active model for as long as an endpoint serves it, and tells the operator what to run, until a
rebuild has activated the configured one.
"""

from __future__ import annotations

import asyncio
import logging

from domain.errors import EmbeddingUnavailable
from domain.events import EmbeddingModelActivated
from domain.identity import SYSTEM_ID, SYSTEM_STREAM
from domain.ledger import Ledger
from domain.record_once import record_once
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.endpoint import (
    BACKGROUND_TIMEOUT_S,
    EmbeddingClient,
    EmbeddingSpace,
    Vectors,
    shown_space,
)
from projections.embedding.model_router import (
    PROBE_TEXT,
    REBUILD_COMMAND,
    ModelClient,
    ModelRouter,
    space_of,
)
from projections.http_client import recordable_url
from projections.settings import ProjectionSettings

log = logging.getLogger(__name__)


class ActiveModel:
    """Knows the client of each user's active model, and activates the configured model where none ever was."""

    def __init__(
        self, ledger: Ledger, client: EmbeddingClient, cache: VectorCache, settings: ProjectionSettings
    ) -> None:
        self.clients = ModelRouter(ledger, client, cache, settings)
        self._ledger = ledger
        self._client = client
        self._cache = cache
        self._settings = settings
        self._by_activation: dict[int, ModelClient] = {}
        self._activating: asyncio.Task[EmbeddingModelActivated] | None = None

    def known(self, user_id: str) -> ModelClient | None:
        """Return the client of a user's active model, None where none was ever activated. Reads the ledger."""
        active = self._ledger.reader.active_embedding_model(user_id)
        return self.clients.of(active) if active is not None else None

    def activated_at(self, position: int) -> ModelClient | None:
        """Return the client of the model that the event at ``position`` activated, None where it activated none."""
        client = self._by_activation.get(position)
        if client is None and (active := self._ledger.reader.activation_at(position)) is not None:
            client = self._by_activation[position] = self.clients.of(active)
        return client

    async def of(self, user_id: str) -> ModelClient:
        """Return the client of a user's active model; activate the configured one if none ever was.

        Raises an :class:`EmbeddingError` when the model to activate does not answer.
        """
        return await asyncio.to_thread(self.known, user_id) or self.clients.of(await self._activate())

    def notice(self, space: EmbeddingSpace) -> str | None:
        """Return what the operator is told where memory is searched with another model than the configured one."""
        if self.clients.is_configured(space):
            return None
        return (
            f"memory is indexed with {shown_space(space)} and searched with that model, but the service is configured "
            f"for {self.clients.wanted()}: {self.clients.of_space(space).advice}"
        )

    async def close(self) -> None:
        """Cancel a pending activation, and close the clients."""
        if self._activating is not None:
            self._activating.cancel()
            await asyncio.gather(self._activating, return_exceptions=True)
        await self.clients.close()

    async def _activate(self) -> EmbeddingModelActivated:
        """Activate the configured model, in one attempt shared by all who wait for it.

        Nobody waits longer than a turn would; the attempt goes on, or a slow endpoint would never be activated.
        """
        if self._activating is None or self._activating.done():
            self._activating = asyncio.get_running_loop().create_task(self._activate_once())
        await asyncio.wait({self._activating}, timeout=self._settings.emb_timeout_s)
        if not self._activating.done():
            raise EmbeddingUnavailable(
                f"the embedding endpoint did not answer within {self._settings.emb_timeout_s:g} s, and is still awaited"
            )
        return self._activating.result()

    async def _activate_once(self) -> EmbeddingModelActivated:
        active = await asyncio.to_thread(self._activated)
        if active is not None:
            return active
        space, probe = await probed(self._client, timeout_s=BACKGROUND_TIMEOUT_S)
        await asyncio.to_thread(keep_probe, self._cache, space, probe)
        payload = activation(self._client, space, memories=0, vectors=0, ledger_position=0)
        first = await asyncio.to_thread(
            record_once, self._ledger, SYSTEM_STREAM, lambda: payload if self._activated() is None else None
        )
        if not first:
            return await self._activate_once()
        log.info("embedding model %s activated", shown_space(space))
        return payload

    def _activated(self) -> EmbeddingModelActivated | None:
        return self._ledger.reader.active_embedding_model(SYSTEM_ID)


async def probed(client: EmbeddingClient, *, timeout_s: float) -> tuple[EmbeddingSpace, Vectors]:
    """Embed the probe; return the space of the client's vectors and the probe's own, of shape (dimensions,)."""
    vectors = await client.embed([client.passage_prefix + PROBE_TEXT], timeout_s=timeout_s)
    return client.space(vectors.shape[1]), vectors[0]


def keep_probe(cache: VectorCache, space: EmbeddingSpace, probe: Vectors) -> None:
    """Keep the vector by which the model of a space is recognised."""
    cache.put(cache.space_id(space), {text_hash(PROBE_TEXT): probe})


def activation(
    client: EmbeddingClient, space: EmbeddingSpace, *, memories: int, vectors: int, ledger_position: int
) -> EmbeddingModelActivated:
    """Return the event that makes a client's model the active one."""
    return EmbeddingModelActivated(
        model=space.model,
        dimensions=space.dimensions,
        passage_prefix=space.passage_prefix,
        query_prefix=client.query_prefix,
        base_url=recordable_url(client.base_url),
        memories=memories,
        vectors=vectors,
        ledger_position=ledger_position,
    )


__all__ = ["REBUILD_COMMAND", "ActiveModel", "activation", "keep_probe", "probed", "space_of"]

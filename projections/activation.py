"""Which embedding model a user's memory is searched with: the one that the ledger says was activated last.

The first use of an empty ledger activates the configured model. From then on a service that is configured for another
one is told so, and what to run, until a rebuild has activated that.
"""

from __future__ import annotations

import asyncio
import logging

from domain.errors import EmbeddingModelMismatch
from domain.events import EmbeddingModelActivated, NewEvent
from domain.identity import SYSTEM_ID, SYSTEM_STREAM
from domain.ledger import Ledger
from projections.embedding_client import EmbeddingClient, EmbeddingSpace
from projections.settings import ProjectionSettings

log = logging.getLogger(__name__)

REBUILD_COMMAND = "python -m projections.rebuild"


class ActiveModel:
    """Tells the space of each user, and activates the configured model where none ever was."""

    def __init__(self, ledger: Ledger, client: EmbeddingClient, settings: ProjectionSettings) -> None:
        self._ledger = ledger
        self._client = client
        self._settings = settings
        self._activating: asyncio.Task[EmbeddingModelActivated] | None = None

    def known_space(self, user_id: str) -> EmbeddingSpace | None:
        """Return the space in which a user's memory is searched, None where no model was ever activated.

        Reads the ledger; raises :class:`EmbeddingModelMismatch` when that space is not the configured model's.
        """
        active = self._ledger.reader.active_embedding_model(user_id)
        return self._space(active) if active is not None else None

    def _wanted(self) -> str:
        """Name the configured model; its dimensions are not known before it has answered, unless they were set."""
        return _shown(self._client.space(self._settings.embedding_dims))

    async def space_of(self, user_id: str) -> EmbeddingSpace:
        """Return the space in which a user's memory is searched, activating the configured model if none ever was.

        Raises as :meth:`known_space` does, and an :class:`EmbeddingError` when the model to activate does not answer.
        """
        return await asyncio.to_thread(self.known_space, user_id) or self._space(await self._activate())

    async def close(self) -> None:
        """Stop an activation that is under way."""
        if self._activating is not None:
            self._activating.cancel()
            await asyncio.gather(self._activating, return_exceptions=True)

    def _space(self, active: EmbeddingModelActivated) -> EmbeddingSpace:
        space = EmbeddingSpace(active.model, active.dimensions, active.passage_prefix)
        wanted = self._client.space(self._settings.embedding_dims or space.dimensions)
        if space != wanted:
            raise EmbeddingModelMismatch(
                f"memory is indexed with {_shown(space)}, but the service is configured for {self._wanted()}: "
                f"run `{REBUILD_COMMAND}`"
            )
        return space

    async def _activate(self) -> EmbeddingModelActivated:
        """Activate the configured model, in one attempt that all who wait for it share."""
        if self._activating is None or self._activating.done():
            self._activating = asyncio.get_running_loop().create_task(self._activate_once())
        return await asyncio.shield(self._activating)

    async def _activate_once(self) -> EmbeddingModelActivated:
        active = await asyncio.to_thread(self._ledger.reader.active_embedding_model, SYSTEM_ID)
        if active is not None:
            return active
        probe = await self._client.embed(
            [self._client.query_prefix + "dimension"], timeout_s=self._settings.emb_timeout_s
        )
        space = self._client.space(probe.shape[1])
        payload = EmbeddingModelActivated(
            model=space.model,
            dimensions=space.dimensions,
            passage_prefix=space.passage_prefix,
            memories=0,
            vectors=0,
            ledger_position=0,
        )
        event = NewEvent(self._ledger.clock.new_id(), payload)
        await asyncio.wrap_future(self._ledger.append(SYSTEM_STREAM, lambda _head: [event]))
        log.info("embedding model %s activated", _shown(space))
        return payload


def _shown(space: EmbeddingSpace) -> str:
    details = [f"{space.dimensions} dimensions"] if space.dimensions else []
    if space.passage_prefix:
        details.append(f"passage prefix {space.passage_prefix!r}")
    return f"{space.model!r} ({', '.join(details)})" if details else repr(space.model)

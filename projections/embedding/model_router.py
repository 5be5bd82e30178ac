"""Routes the texts of each embedding space to an endpoint that serves its model.

A service may be told to use another model than the one memory is indexed with, and a rebuild may activate a model that
a running service knows nothing of. In both cases a question must be embedded with the model of the index it searches.
So an activation records the address of its endpoint and the prefix of its questions, and each space has a client of its
own. Where the address is unknown or does not answer, the configured endpoint is asked for the old model by name, since
many servers serve several models.

Some servers ignore the name and answer with whatever model they have loaded, perhaps in vectors of the same length. So
each request for another model than the configured one carries a text whose vector is known: the same model gives the
same direction. The configured model is checked once, when the service starts, and with each request from then on if it
was not the one that memory was indexed with.

An address from the ledger is used, and sent OPENAI_API_KEY, only where an operator of this storage has configured it
once (:mod:`projections.embedding.known_addresses`): a ledger may have been restored from anywhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from domain.errors import (
    EmbeddingError,
    EmbeddingMisfit,
    EmbeddingModelMismatch,
    EmbeddingRejected,
    EmbeddingUnavailable,
    shown,
)
from domain.events import EmbeddingModelActivated
from domain.ledger import Ledger
from projections.embedding.cache import VectorCache, text_hash
from projections.embedding.endpoint import (
    EmbeddingClient,
    EmbeddingEndpoint,
    EmbeddingSpace,
    Vectors,
    shown_space,
)
from projections.embedding.known_addresses import is_known_address
from projections.http_client import recordable_url
from projections.settings import ProjectionSettings, family_prefixes

log = logging.getLogger(__name__)

REBUILD_COMMAND = "python -m projections.rebuild"
PROBE_TEXT = "dimension"
"""Embedded whenever a model is activated, to learn the length of its vectors and to recognise the model later."""
_SAME_COSINE = 0.99
"""Two runs of one model differ by less, even at half precision and in batches; two models differ by far more."""
_TEXTS_TRIED = 256

Reference = tuple[str, Vectors]
T = TypeVar("T")


class ModelClient:
    """Embeds texts of one space at the first of its endpoints that serves the model.

    ``watched`` endpoints get a known text with each request, and must answer it with its known vector. Where no vector
    is left to compare with, only the ``named`` ones are trusted. ``wanted`` names the configured model where that is
    another. ``distrusted`` says of an endpoint that is not asked why it is not.
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        query_prefix: str,
        clients: Sequence[EmbeddingClient],
        reference: Callable[[EmbeddingSpace], Reference | None],
        *,
        watched: bool,
        named: Sequence[EmbeddingClient],
        wanted: str | None,
        advice: str = f"run `{REBUILD_COMMAND}`",
        distrusted: str | None = None,
    ) -> None:
        self.space = space
        self.query_prefix = query_prefix
        self._clients = list(clients)
        self._watched = watched
        self._named = named
        self._find_reference = reference
        self._reference: Reference | None = None
        self._wanted = wanted
        self.advice = advice
        """What the operator is to do where another model is configured."""
        self._distrusted = distrusted
        self.trouble: str | None = None
        """Why the last call failed, None when it did not."""

    async def embed(self, texts: Sequence[str], *, timeout_s: float) -> Vectors:
        """Embed texts that carry their prefixes: float32 of shape (len(texts), dimensions), rows of length 1.

        Raises :class:`EmbeddingRejected` for what the model refuses. Where no endpoint gives vectors of this space, the
        configured one's trouble is raised as it is, and that of another model as :class:`EmbeddingModelMismatch`.
        """

        async def embedded(client: EmbeddingClient, each_s: float) -> Vectors:
            if self._watched:
                return await self._embed_watched(client, texts, each_s)
            vectors = await client.embed(texts, timeout_s=each_s)
            self._check_length(vectors)
            return vectors

        return await self._first(embedded, timeout_s)

    async def embed_query(self, query: str, *, timeout_s: float) -> Vectors:
        """Embed a question: float32 of shape (1, dimensions). Raises as :meth:`embed` does."""
        return await self.embed([self.query_prefix + query], timeout_s=timeout_s)

    async def check(self, *, timeout_s: float) -> None:
        """Check what the endpoint serves before a question is sent there; raises as :meth:`embed` does.

        One that serves another model is watched from here on.
        """

        async def looked(client: EmbeddingClient, each_s: float) -> None:
            try:
                await self._embed_watched(client, [], each_s)
            except EmbeddingRejected as error:
                raise EmbeddingUnavailable(f"the embedding endpoint refuses even a known text: {error}") from None
            except EmbeddingMisfit:
                self._watched = True
                raise

        await self._first(looked, timeout_s)

    async def _first(self, work: Callable[[EmbeddingClient, float], Awaitable[T]], timeout_s: float) -> T:
        """Return what the first endpoint gives for which ``work`` succeeds; it is asked first from then on."""
        troubles: list[EmbeddingError] = []
        for client in tuple(self._clients):
            try:
                # They share the timeout, so that a silent endpoint does not make a turn wait twice.
                done = await work(client, timeout_s / len(self._clients))
            except EmbeddingRejected:
                raise
            except (EmbeddingUnavailable, EmbeddingMisfit) as error:
                troubles.append(error)
            else:
                self.trouble = None
                self._clients.sort(key=lambda other: other is not client)
                return done
        raise self._failed(troubles)

    async def _embed_watched(self, client: EmbeddingClient, texts: Sequence[str], timeout_s: float) -> Vectors:
        """Embed texts together with a known one; raise :class:`EmbeddingMisfit` unless that gets its known vector."""
        if self._reference is None:
            self._reference = await asyncio.to_thread(self._find_reference, self.space)
        text, known = self._reference or (PROBE_TEXT, None)
        if known is None and client not in self._named:
            raise EmbeddingMisfit(
                f"no vector is left by which to tell whether {client.endpoint.named} serves {self.space.model!r}"
            )
        watched = self.space.passage_prefix + text
        try:
            vectors = await client.embed([watched, *texts], timeout_s=timeout_s)
        except EmbeddingRejected:
            if len(texts) != 1:
                raise
            # Alone, a text that is too long is embedded by its beginning.
            alone = [await client.embed([one], timeout_s=timeout_s) for one in (watched, *texts)]
            for vector in alone:
                self._check_length(vector)
            vectors = np.concatenate(alone)
        self._check_length(vectors)
        if known is not None and not same_direction(vectors[0], known):
            raise EmbeddingMisfit(
                f"{client.endpoint.named} answers to {self.space.model!r} with other vectors than memory was indexed "
                "with, so it serves another model: point it at the model's own endpoint, or give the new model a name "
                f"of its own and run `{REBUILD_COMMAND}`"
            )
        return vectors[1:]

    def _check_length(self, vectors: Vectors) -> None:
        if vectors.shape[1] != self.space.dimensions:
            raise EmbeddingMisfit(
                f"{self.space.model} now gives vectors of {vectors.shape[1]} numbers, memory is indexed with "
                f"{self.space.dimensions}: run `{REBUILD_COMMAND}`"
            )

    def _failed(self, troubles: Sequence[EmbeddingError]) -> EmbeddingError | EmbeddingModelMismatch:
        said = [self._distrusted] if self._distrusted is not None else []
        self.trouble = "; ".join(dict.fromkeys([*said, *map(str, troubles)]))
        if self._wanted is None:
            return troubles[0]
        return EmbeddingModelMismatch(
            f"memory is indexed with {shown_space(self.space)}, which no endpoint gives now ({self.trouble}), and the "
            f"service is configured for {self._wanted}: {self.advice}"
        )


class ModelRouter:
    """The clients of all activated models that a process meets. To be used from one event loop and its threads."""

    def __init__(
        self, ledger: Ledger, configured: EmbeddingClient, cache: VectorCache, settings: ProjectionSettings
    ) -> None:
        self._ledger = ledger
        self._configured = configured
        self._cache = cache
        self._settings = settings
        self._of: dict[tuple[EmbeddingSpace, str | None, str | None, bool], ModelClient] = {}
        self._newest: dict[EmbeddingSpace, ModelClient] = {}
        self._opened: list[EmbeddingClient] = []

    async def close(self) -> None:
        """Close the clients opened here; the configured one belongs to the caller."""
        for client in self._opened:
            await client.close()

    def wanted(self) -> str:
        """Name the configured model; unless set, its dimensions are unknown until it has answered."""
        return shown_space(self._configured.space(self._settings.embedding_dims))

    def is_configured(self, space: EmbeddingSpace) -> bool:
        """Tell whether a space is the one that the settings ask for."""
        wanted = self._configured.space(self._settings.embedding_dims or space.dimensions)
        # Ollama adds ":latest" to a name without a tag.
        return replace(space, model=untagged(space.model)) == replace(wanted, model=untagged(wanted.model))

    def of(self, active: EmbeddingModelActivated) -> ModelClient:
        """Return the client of an activated model; the same one for the same activation."""
        space = space_of(active)
        known = active.base_url is None or is_known_address(self._settings, active.base_url)
        key = (space, active.base_url, active.query_prefix, known)
        client = self._of.get(key)
        if client is None:
            client = self._of.setdefault(key, self._made(active, space, known=known))
        self._newest[space] = client
        return client

    def of_space(self, space: EmbeddingSpace) -> ModelClient:
        """Return the client of the activation of this space that was met last."""
        return self._newest[space]

    def _made(self, active: EmbeddingModelActivated, space: EmbeddingSpace, *, known: bool) -> ModelClient:
        if self.is_configured(space):
            own = [self._configured]
            return ModelClient(
                space, self._configured.query_prefix, own, self._known_vector, watched=False, named=own, wanted=None
            )
        query_prefix = active.query_prefix
        if query_prefix is None:
            same = untagged(space.model) == untagged(self._configured.model)
            query_prefix = self._configured.query_prefix if same else family_prefixes(space.model)[0]
        configured = self._settings.emb_base_url
        # The address in the ledger is without credentials; the same one in the settings may have some.
        named = configured if recordable_url(configured) == active.base_url else active.base_url
        distrusted = None
        if not known:
            distrusted = not_configured(active)
            log.warning("%s", distrusted)
            named = None
        clients = []
        for address in dict.fromkeys((named, configured)):
            if address is not None:
                called = "EMB_BASE_URL" if address == configured else f"the endpoint of {space.model!r}"
                endpoint = EmbeddingEndpoint(
                    address, space.model, query_prefix, space.passage_prefix, space.dimensions, called
                )
                clients.append(EmbeddingClient(self._settings, endpoint))
        self._opened += clients
        return ModelClient(
            space,
            query_prefix,
            clients,
            self._known_vector,
            watched=True,
            named=[client for client in clients if client.base_url == named],
            wanted=self.wanted(),
            advice=self._advice(active),
            distrusted=distrusted,
        )

    def _advice(self, active: EmbeddingModelActivated) -> str:
        """Say how settings and memory come together again.

        Where the configured model was activated before, somebody has left it: then the settings lag behind, and a
        rebuild with them would go back.
        """
        change = f"set {', '.join(self._settings_for(active))} and restart the service"
        if any(self.is_configured(space_of(earlier)) for earlier in self._ledger.reader.models_activated()):
            return f"memory was rebuilt for it since, so {change} (`{REBUILD_COMMAND}` would go back to the old model)"
        return f"run `{REBUILD_COMMAND}`; or, to stay with the model of the index, {change}"

    def _settings_for(self, active: EmbeddingModelActivated) -> list[str]:
        """Return the settings that have to change for an activated model to be the configured one."""
        settings, (query, passage) = self._settings, family_prefixes(active.model)
        wanted: dict[str, tuple[object, object]] = {
            "EMB_MODEL": (settings.emb_model, active.model),
            "EMB_BASE_URL": (recordable_url(settings.emb_base_url), active.base_url),
            "EMBEDDING_DIMS": (settings.embedding_dims or active.dimensions, active.dimensions),
            "EMB_QUERY_PREFIX": (_set_or(settings.emb_query_prefix, query), active.query_prefix),
            "EMB_PASSAGE_PREFIX": (_set_or(settings.emb_passage_prefix, passage), active.passage_prefix),
        }
        return [f"{name}={value!r}" for name, (now, value) in wanted.items() if value is not None and value != now]

    def _known_vector(self, space: EmbeddingSpace) -> Reference | None:
        """Return a text and its vector: the probe's, or for older ledgers that of one of the first memories."""
        space_id = self._cache.space_id(space)
        probe = self._cache.get(space_id, [text_hash(PROBE_TEXT)]).get(text_hash(PROBE_TEXT))
        if probe is not None:
            return PROBE_TEXT, probe
        changes, _ = self._ledger.reader.facet_texts(None, 0, _TEXTS_TRIED)
        texts = {text_hash(change.text): change.text for change in changes if change.text}
        known = self._cache.get(space_id, list(texts))
        return next(((texts[key], vector) for key, vector in known.items() if vector is not None), None)


def _set_or(value: str | None, default: str) -> str:
    return default if value is None else value


def space_of(active: EmbeddingModelActivated) -> EmbeddingSpace:
    """Return the space that an event activated."""
    return EmbeddingSpace(active.model, active.dimensions, active.passage_prefix)


def not_configured(active: EmbeddingModelActivated) -> str:
    """Say that the endpoint of an activation is not asked, since nobody has configured it here."""
    return (
        f"the ledger names {shown(active.base_url)} as the endpoint of {shown(active.model)}, which was never "
        "configured here and so gets neither key nor texts: if it is yours, set EMB_BASE_URL and EMB_MODEL to it"
    )


def untagged(model: str) -> str:
    """Return a model's name without the tag that says nothing."""
    return model.removesuffix(":latest")


def same_direction(one: Vectors, other: Vectors) -> bool:
    """Tell whether two vectors of one text can come from the same model."""
    return bool(float(one @ other) >= _SAME_COSINE * float(np.linalg.norm(one) * np.linalg.norm(other)))

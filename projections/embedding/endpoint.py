"""The embedding endpoint: texts in, unit vectors out, and one of three errors where that fails."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json

from domain.errors import EmbeddingMisfit, EmbeddingRejected, EmbeddingUnavailable
from domain.events import JsonObject
from projections.http_client import HttpClient, HttpFailure, Refused, TimedOut, Unreadable
from projections.settings import ProjectionSettings

log = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

_CONNECT_TIMEOUT_S = 5.0
_QUERY_CHARS = (2000, 500)
"""How much of a question is embedded when all of it is refused."""


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """What makes two vectors comparable: the same model, length and prefix of the stored side."""

    model: str
    dimensions: int
    passage_prefix: str


@dataclass(frozen=True, slots=True)
class EmbeddingEndpoint:
    """Who embeds with which model, and what is put before a question and before a memory.

    ``dimensions`` is the wanted length of a vector, 0 for whatever the model gives. ``named`` is what messages call it.
    """

    base_url: str
    model: str
    query_prefix: str
    passage_prefix: str
    dimensions: int
    named: str = "EMB_BASE_URL"

    @classmethod
    def configured(cls, settings: ProjectionSettings) -> EmbeddingEndpoint:
        """Return the one that EMB_BASE_URL and EMB_MODEL name."""
        return cls(
            settings.emb_base_url,
            settings.emb_model,
            settings.query_prefix,
            settings.passage_prefix,
            settings.embedding_dims,
        )


class EmbeddingClient:
    """Embeds queries and passages at one endpoint, the configured one unless another is given.

    One call is one request; nothing is retried here.
    """

    def __init__(self, settings: ProjectionSettings, endpoint: EmbeddingEndpoint | None = None) -> None:
        self._configured = endpoint is None
        endpoint = endpoint or EmbeddingEndpoint.configured(settings)
        self.endpoint = endpoint
        self.model = endpoint.model
        self.base_url = endpoint.base_url
        self.query_prefix = endpoint.query_prefix
        self.passage_prefix = endpoint.passage_prefix
        self._dims_wanted = endpoint.dimensions
        self._ask_dims = False
        self._http = HttpClient(
            endpoint.base_url, settings.openai_api_key.get_secret_value(), connect_timeout_s=_CONNECT_TIMEOUT_S
        )

    async def close(self) -> None:
        await self._http.close()

    def space(self, dimensions: int) -> EmbeddingSpace:
        """Return the space of this client's vectors of ``dimensions`` numbers."""
        return EmbeddingSpace(self.model, dimensions, self.passage_prefix)

    async def embed(self, texts: Sequence[str], *, timeout_s: float) -> Vectors:
        """Embed texts that already carry their prefixes.

        Returns float32 of shape (len(texts), dimensions), each row of length 1. Raises :class:`EmbeddingUnavailable`,
        :class:`EmbeddingRejected` or :class:`EmbeddingMisfit`.
        """
        vectors = await self._request(texts, timeout_s)
        if self._dims_wanted and vectors.shape[1] != self._dims_wanted and not self._ask_dims:
            # Only Matryoshka models take `dimensions`; the others answer 400, so it is asked for only where needed.
            self._ask_dims = True
            try:
                vectors = await self._request(texts, timeout_s)
            except EmbeddingRejected:
                self._ask_dims = False
                raise self._other_length(vectors, " and cannot shorten them") from None
        if self._dims_wanted and vectors.shape[1] != self._dims_wanted:
            raise self._other_length(vectors, "")
        return vectors

    async def embed_query(self, query: str, *, timeout_s: float) -> Vectors:
        """Embed a question, or as much of its beginning as the model takes: float32 of shape (1, dimensions).

        Raises as :meth:`embed` does.
        """
        return await embed_beginning(self.embed, self.query_prefix + query, timeout_s)

    def _other_length(self, vectors: Vectors, more: str) -> EmbeddingMisfit:
        given, named = vectors.shape[1], self.endpoint.named
        if self._configured:
            return EmbeddingMisfit(
                f"EMBEDDING_DIMS = {self._dims_wanted}, but {self.model} at {named} gives {given}{more}: set "
                "EMBEDDING_DIMS to that number or to 0"
            )
        return EmbeddingMisfit(f"{named} answers to {self.model!r} with vectors of {given} numbers{more}")

    async def _request(self, texts: Sequence[str], timeout_s: float) -> Vectors:
        body: JsonObject = {"model": self.model, "input": list(texts), "encoding_format": "base64"}
        if self._ask_dims:
            body["dimensions"] = self._dims_wanted
        try:
            content = await self._http.post("/embeddings", body, timeout_s=timeout_s)
        except TimedOut:
            raise EmbeddingUnavailable(f"the embedding endpoint did not answer within {timeout_s:g} s") from None
        except Refused as refusal:
            raise _from_status(refusal, self.model) from None
        except Unreadable as failure:
            raise _unreadable(failure) from None
        except HttpFailure as failure:
            why = f": {failure}" if str(failure) else ""
            raise EmbeddingUnavailable(
                f"the embedding endpoint ({self.endpoint.named}) cannot be reached{why}"
            ) from None
        try:
            return _unit_rows(_rows(content), len(texts))
        except (ValueError, TypeError, LookupError) as error:
            # What an answer raises that is no embeddings list, depending on how it is malformed.
            raise _unreadable(error) from None


class Embed(Protocol):
    """What embeds prefixed texts, as :meth:`EmbeddingClient.embed` does."""

    async def __call__(self, texts: Sequence[str], *, timeout_s: float) -> Vectors: ...


async def embed_beginning(embed: Embed, prefixed: str, timeout_s: float) -> Vectors:
    """Embed one text, or as much of its beginning as the model takes: float32 of shape (1, dimensions)."""
    for chars in (len(prefixed), *_QUERY_CHARS):
        try:
            return await embed([prefixed[:chars]], timeout_s=timeout_s)
        except EmbeddingRejected:
            if chars == _QUERY_CHARS[-1] or len(prefixed) <= _QUERY_CHARS[-1]:
                raise
    raise AssertionError("unreachable: the last attempt returns or raises")


def _unreadable(error: Exception) -> EmbeddingMisfit:
    return EmbeddingMisfit(
        f"the answer of the embedding endpoint cannot be read ({type(error).__name__}): "
        "is EMB_BASE_URL an OpenAI-compatible endpoint, ending in /v1?"
    )


def _from_status(refusal: Refused, model: str) -> EmbeddingUnavailable | EmbeddingRejected | EmbeddingMisfit:
    status, retry_after_s = refusal.status, refusal.retry_after_s
    if status in {401, 403}:
        return EmbeddingMisfit(f"the embedding endpoint refuses the key ({status}): check OPENAI_API_KEY")
    if status == 404:
        return EmbeddingMisfit(f"the embedding endpoint does not know EMB_MODEL = {model!r} (404)")
    if status == 429:
        return EmbeddingUnavailable(
            "the embedding endpoint limits the rate of requests (429)", retry_after_s=retry_after_s
        )
    if status in {400, 413, 422}:
        return EmbeddingRejected(f"the embedding endpoint refused the text ({status})")
    return EmbeddingUnavailable(f"the embedding endpoint fails ({status})", retry_after_s=retry_after_s)


def _rows(content: bytes) -> list[Vectors]:
    """Return the vectors of an answer, in the order of their texts; some servers know no base64 and give numbers."""
    data = sorted(from_json(content)["data"], key=itemgetter("index"))
    if not data:
        raise ValueError("no vectors")
    return [
        np.frombuffer(base64.b64decode(item["embedding"], validate=True), "<f4")
        if isinstance(item["embedding"], str)
        else np.array([*item["embedding"]], np.float32)
        for item in data
    ]


def _unit_rows(rows: Sequence[Vectors], expected: int) -> Vectors:
    if len(rows) != expected:
        raise EmbeddingMisfit(f"the embedding endpoint gave {len(rows)} vectors for {expected} texts")
    if len({row.shape for row in rows}) != 1 or rows[0].ndim != 1 or not rows[0].size:
        raise EmbeddingMisfit("the embedding endpoint gave vectors of different lengths for one request")
    vectors = np.stack(rows)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not (norms > 0).all():
        raise EmbeddingRejected("the embedding endpoint gave a vector that is zero or not finite")
    unit: Vectors = vectors / norms
    return unit


def shown_space(space: EmbeddingSpace) -> str:
    """Name a space for a message."""
    details = [f"{space.dimensions} dimensions"] if space.dimensions else []
    if space.passage_prefix:
        details.append(f"passage prefix {space.passage_prefix!r}")
    return f"{space.model!r} ({', '.join(details)})" if details else repr(space.model)

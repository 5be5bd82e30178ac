"""The embedding endpoint: texts in, unit vectors out, and one of three errors where that fails.

What an endpoint refuses of the API (base64, as many texts at once) is learned from its refusals and not sent again.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domain.errors import EmbeddingMisfit, EmbeddingRejected, EmbeddingTooLong, EmbeddingUnavailable
from domain.events import JsonObject
from projections.embedding.answer import Reported, rows_of
from projections.embedding.text_length import cut, next_length, perhaps_too_long
from projections.http_client import HttpClient, HttpFailure, Refused, TimedOut, Unreadable
from projections.refusal_reason import reason_in, tellable
from projections.settings import ProjectionSettings

log = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

BACKGROUND_TIMEOUT_S = 60.0
"""How long a call may take that no person waits for: a server may have to load its model first."""
_CONNECT_TIMEOUT_S = 5.0
TEXT_CHARS_MAX = 8000
"""A text is embedded by so much of its beginning: no common model reads more, and many refuse it."""
_NAMES_ENCODING = re.compile(r"encoding_format|base64|float")
_TOO_MANY = re.compile(
    r"batch size \d+ > maximum allowed batch size (?P<a>\d+)|at most (?P<b>\d+) (?:inputs|texts|items|strings)"
    r"|(?:maximum|max) (?:batch size|number of inputs|inputs)\D{0,20}(?P<c>\d+)"
    r"|too many (?:inputs|texts)|(?<!physical )batch size",
    re.IGNORECASE,
)
_TOO_LONG = re.compile(
    r"too (long|large|many tokens)|context (length|size|window)|(input|text|prompt|sequence|maximum).{0,30}"
    r"(length|tokens)|exceed|must (be|have) (less|<=|at most)|physical batch"
    r"|过长|太长|超过|超出",
    re.IGNORECASE,
)


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
        self._base64 = True
        self._base64_worked = False
        self._texts_max: int | None = None
        self._tokens_max: int | None = None
        self._key = settings.openai_api_key.get_secret_value()
        self._http = HttpClient(endpoint.base_url, self._key, connect_timeout_s=_CONNECT_TIMEOUT_S)

    @property
    def learned(self) -> dict[str, str]:
        """What the endpoint refuses of the API, and what is sent instead."""
        learned: dict[str, str] = {}
        if not self._base64:
            learned["encoding_format"] = "not sent"
        if self._texts_max is not None:
            learned["input"] = f"at most {self._texts_max} texts at once"
        if self._tokens_max is not None:
            learned["input_length"] = f"the first {self._tokens_max} tokens of a text, as estimated"
        if self._ask_dims:
            learned["dimensions"] = str(self._dims_wanted)
        return learned

    async def close(self) -> None:
        await self._http.close()

    def space(self, dimensions: int) -> EmbeddingSpace:
        """Return the space of this client's vectors of ``dimensions`` numbers."""
        return EmbeddingSpace(self.model, dimensions, self.passage_prefix)

    async def embed(self, texts: Sequence[str], *, timeout_s: float) -> Vectors:
        """Embed texts that already carry their prefixes.

        A text that is refused is embedded by its beginning: one that is too long for the model is found again by that.
        Of several long texts nobody knows which one is to blame, so that they are refused together.

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
        """Embed a question: float32 of shape (1, dimensions). Raises as :meth:`embed` does."""
        return await self.embed([self.query_prefix + query], timeout_s=timeout_s)

    def _other_length(self, vectors: Vectors, more: str) -> EmbeddingMisfit:
        given, named = vectors.shape[1], self.endpoint.named
        if self._configured:
            return EmbeddingMisfit(
                f"EMBEDDING_DIMS = {self._dims_wanted}, but {self.model} at {named} gives {given}{more}: set "
                "EMBEDDING_DIMS to that number or to 0"
            )
        return EmbeddingMisfit(f"{named} answers to {self.model!r} with vectors of {given} numbers{more}")

    async def _request(self, texts: Sequence[str], timeout_s: float) -> Vectors:
        """Embed texts, in as many requests as the endpoint needs."""
        if self._texts_max is None or len(texts) <= self._texts_max:
            return await self._as_long_as_taken(texts, timeout_s)
        parts = [texts[at : at + self._texts_max] for at in range(0, len(texts), self._texts_max)]
        vectors = [await self._as_long_as_taken(part, timeout_s) for part in parts]
        if len({part.shape[1] for part in vectors}) != 1:
            raise EmbeddingMisfit("the embedding endpoint gave vectors of different lengths for texts of one model")
        return np.concatenate(vectors)

    async def _as_long_as_taken(self, texts: Sequence[str], timeout_s: float) -> Vectors:
        """Embed texts; cut the long one among them until it is taken, and remember where, if its length was refused."""
        deadline = time.monotonic() + timeout_s
        sent = [cut(_sendable(text), self._tokens_max) for text in texts]
        tokens_max: int | None = None
        refused: EmbeddingRejected | None = None
        for_length = True
        while True:
            left_s = timeout_s if refused is None else deadline - time.monotonic()
            try:
                vectors = await self._one_request(sent, left_s)
            except EmbeddingRejected as error:
                refused = refused or error
                for_length = for_length and isinstance(error, EmbeddingTooLong)
                may_help = for_length or (len(sent) == 1 and perhaps_too_long(sent))
                tokens_max = next_length(sent) if may_help else None
                if tokens_max is None or time.monotonic() > deadline:
                    raise refused from None
                sent = [cut(text, tokens_max) for text in sent]
            else:
                if tokens_max is not None and for_length:
                    self._tokens_max = min(tokens_max, self._tokens_max or tokens_max)
                    log.warning(
                        "the embedding endpoint finds a text too long: from here on no more than about %d tokens of a "
                        "text are embedded",
                        self._tokens_max,
                    )
                return vectors

    async def _one_request(self, texts: Sequence[str], timeout_s: float) -> Vectors:
        body: JsonObject = {"model": self.model, "input": list(texts)}
        if self._base64:
            body["encoding_format"] = "base64"
        if self._ask_dims:
            body["dimensions"] = self._dims_wanted
        try:
            content = await self._http.post("/embeddings", body, timeout_s=timeout_s)
        except TimedOut:
            raise EmbeddingUnavailable(f"the embedding endpoint did not answer within {timeout_s:g} s") from None
        except Refused as refusal:
            if self._learns_from(refusal, len(texts)):
                return await self._request(texts, timeout_s)
            raise self._from_status(refusal, texts) from None
        except Unreadable as failure:
            raise _unreadable(failure) from None
        except HttpFailure as failure:
            why = f": {failure}" if str(failure) else ""
            raise EmbeddingUnavailable(
                f"the embedding endpoint ({self.endpoint.named}) cannot be reached{why}"
            ) from None
        try:
            vectors = _unit_rows(rows_of(content), len(texts))
        except Reported as reported:
            kind = EmbeddingTooLong if _TOO_LONG.search(str(reported)) else EmbeddingUnavailable
            raise kind("the embedding endpoint reported an error", reason=self._told(str(reported))) from None
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            # What an answer raises that is no embeddings list, depending on how it is malformed.
            raise _unreadable(error) from None
        self._base64_worked = self._base64
        return vectors

    def _learns_from(self, refusal: Refused, texts: int) -> bool:
        """Note what a refusal says the endpoint does not take; return whether that is news."""
        reason = reason_in(refusal.body)
        names_it = refusal.status in {400, 415, 422, 500, 501} and _NAMES_ENCODING.search(reason)
        # A refusal without a reason may be of base64, unless that has worked before.
        may_mean_it = refusal.status in {400, 422} and not reason and not self._base64_worked
        if self._base64 and (names_it or may_mean_it):
            self._base64 = False
            return True
        if refusal.status in {400, 413, 422} and texts > 1 and (found := _TOO_MANY.search(reason)):
            told = next((int(number) for number in found.groups() if number), texts // 2)
            if 0 < told < texts:
                self._texts_max = told
                return True
        return False

    def _from_status(
        self, refusal: Refused, texts: Sequence[str]
    ) -> EmbeddingUnavailable | EmbeddingRejected | EmbeddingMisfit:
        status, retry_after_s = refusal.status, refusal.retry_after_s
        reason = reason_in(refusal.body)
        told = self._told(reason)
        if status in {401, 403}:
            return EmbeddingMisfit(f"the embedding endpoint refuses the key ({status}): check OPENAI_API_KEY")
        if status == 404:
            model = f"EMB_MODEL = {self.model!r}" if self._configured else repr(self.model)
            return EmbeddingMisfit(
                f"the embedding endpoint does not know {model}, or {self.endpoint.named} is wrong (404)", reason=told
            )
        if status == 429:
            return EmbeddingUnavailable(
                "the embedding endpoint limits the rate of requests (429)", reason=told, retry_after_s=retry_after_s
            )
        # llama.cpp answers 500 to a text that is too long, and some give no reason.
        says_so = status in {400, 413, 422, 500} and _TOO_LONG.search(reason)
        means_so = status in {400, 413, 422} and not reason and perhaps_too_long(texts)
        if says_so or means_so or status == 413:
            return EmbeddingTooLong(f"the embedding endpoint refused the text ({status})", reason=told)
        if status in {400, 422}:
            return EmbeddingRejected(f"the embedding endpoint refused the text ({status})", reason=told)
        return EmbeddingUnavailable(
            f"the embedding endpoint fails ({status})", reason=told, retry_after_s=retry_after_s
        )

    def _told(self, reason: str) -> str:
        return tellable(reason, self._key)


def _unreadable(error: Exception) -> EmbeddingMisfit:
    return EmbeddingMisfit(
        f"the answer of the embedding endpoint cannot be read ({type(error).__name__}): "
        "is EMB_BASE_URL an OpenAI-compatible endpoint, ending in /v1?"
    )


def _sendable(text: str) -> str:
    """Return a text as it is sent: its beginning, and never nothing, which endpoints refuse."""
    return text[:TEXT_CHARS_MAX] if text.strip() else "-"


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

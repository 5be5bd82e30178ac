"""The client of the rerank endpoint (``/rerank`` of vLLM, Jina or Cohere)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from domain.memory import Memory
from domain.model_call import ModelCall
from domain.reasoning import storable
from domain.rerank_scores import request_hash, rerank_request
from projections.http_client import HttpClient, HttpFailure
from service.settings import ServiceSettings
from service.upstream_errors import EndpointNames


class RawScores(NamedTuple):
    """What the endpoint answered, as it came, and what it was asked."""

    text: str
    call: ModelCall


class Reranker:
    """Calls the configured rerank model. It never retries, because a turn is waiting."""

    def __init__(self, settings: ServiceSettings) -> None:
        assert settings.rerank_base_url is not None
        assert settings.rerank_model is not None
        self.model = settings.rerank_model
        self._timeout_s = settings.rerank_timeout_s
        self._names = EndpointNames(
            endpoint="the rerank endpoint",
            model=self.model,
            url_setting="RERANK_BASE_URL",
            model_setting="RERANK_MODEL",
            key_setting="RERANK_API_KEY" if settings.rerank_api_key is not None else "OPENAI_API_KEY",
            expected="the address in front of /rerank",
            key=(settings.rerank_api_key or settings.openai_api_key).get_secret_value(),
        )
        self._http = HttpClient(
            settings.rerank_base_url,
            (settings.rerank_api_key or settings.openai_api_key).get_secret_value(),
            connect_timeout_s=settings.llm_connect_timeout_s,
        )

    async def close(self) -> None:
        await self._http.close()

    async def scores(self, question: str, asked_at: datetime, memories: Sequence[Memory]) -> RawScores:
        """Return the raw answer about memories; raises :class:`UpstreamError`, and nothing else, if the call fails."""
        request = rerank_request(self.model, question, asked_at, memories)
        call = ModelCall(
            endpoint=self._http.address,
            request={name: value for name, value in request.items() if name not in {"query", "documents"}},
            messages_hash=request_hash(request),
        )
        try:
            answer = await self._http.post("/rerank", request, timeout_s=self._timeout_s)
        except HttpFailure as failure:
            raise self._names.error_of(failure, self._timeout_s, "RERANK_TIMEOUT_S").of(call) from None
        return RawScores(storable(answer.decode("utf-8", errors="replace")), call)

"""The rerank endpoint (vLLM's, Jina's or Cohere's ``/rerank``): the one place that calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import httpx2
import openai
from openai import AsyncOpenAI

from domain.memory import Memory
from domain.reasoning import storable
from domain.rerank_scores import rerank_request
from service.settings import ServiceSettings
from service.upstream_errors import Called


class Reranker:
    """Asks the configured rerank model. Nothing is retried: a turn is waiting."""

    def __init__(self, settings: ServiceSettings) -> None:
        assert settings.rerank_base_url is not None
        assert settings.rerank_model is not None
        self.model = settings.rerank_model
        self._timeout_s = settings.rerank_timeout_s
        self._called = Called(
            name="the rerank endpoint",
            model=self.model,
            url_setting="RERANK_BASE_URL",
            model_setting="RERANK_MODEL",
            timeout_setting="RERANK_TIMEOUT_S",
            timeout_s=settings.rerank_timeout_s,
            key_setting="RERANK_API_KEY" if settings.rerank_api_key is not None else "OPENAI_API_KEY",
            expected="the address in front of /rerank",
        )
        self._client = AsyncOpenAI(
            base_url=settings.rerank_base_url,
            api_key=(settings.rerank_api_key or settings.openai_api_key).get_secret_value(),
            max_retries=0,
            timeout=httpx2.Timeout(settings.rerank_timeout_s, connect=settings.llm_connect_timeout_s),
        )

    async def close(self) -> None:
        await self._client.close()

    async def scores(self, question: str, memories: Sequence[Memory]) -> str:
        """Return the raw answer about memories; raises :class:`UpstreamError` and nothing else where there is none."""
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.post(
                    "/rerank", cast_to=str, body=rerank_request(self.model, question, memories)
                )
        except TimeoutError:
            raise self._called.timed_out(self._timeout_s) from None
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
            raise self._called.as_upstream_error(error) from None
        return storable(answer)

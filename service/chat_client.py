"""The chat endpoint: the one place that calls it. What can go wrong is said by :mod:`service.upstream_errors`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream

from domain.events import JsonObject, Usage
from domain.reasoning import storable
from service.settings import ServiceSettings
from service.upstream_errors import Called

Message = dict[str, str]

_PROBE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer."""

    text: str
    finish_reason: str | None
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer as it comes. ``reasoning`` is shown and never stored."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None


class ChatClient:
    """Calls the configured chat model. Nothing is retried here: whoever calls knows what a retry is worth.

    Every method raises :class:`~domain.errors.UpstreamError` and nothing else when the endpoint gives no usable answer.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.model = settings.llm_model
        self._settings = settings
        self._called = Called(
            name="the chat endpoint",
            model=settings.llm_model,
            url_setting="LLM_BASE_URL",
            model_setting="LLM_MODEL",
            timeout_setting="LLM_TIMEOUT_S",
            timeout_s=settings.llm_timeout_s,
        )
        self._client = AsyncOpenAI(
            base_url=settings.llm_base_url,
            api_key=settings.openai_api_key.get_secret_value(),
            max_retries=0,
            timeout=httpx2.Timeout(settings.llm_timeout_s, connect=settings.llm_connect_timeout_s),
        )

    async def close(self) -> None:
        await self._client.close()

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        timeout_s: float,
        max_tokens: int,
        response_format: JsonObject | None = None,
    ) -> Completion:
        """Ask for one short answer at temperature 0, as decisions and summaries need it."""
        body: JsonObject = {"temperature": 0, "max_tokens": max_tokens, **self._settings.decision_extra_body}
        if response_format is not None:
            body["response_format"] = response_format
        try:
            async with asyncio.timeout(timeout_s):
                answer: Any = await self._client.post(
                    "/chat/completions",
                    cast_to=object,
                    body={"model": self.model, "messages": list(messages), **body},
                )
        except TimeoutError:
            raise self._called.timed_out(timeout_s) from None
        except (openai.OpenAIError, ValueError) as error:
            raise self._called.as_upstream_error(error) from None
        completion = _completion(answer)
        if completion is None:
            raise self._called.unreadable()
        return completion

    @asynccontextmanager
    async def stream(self, messages: Sequence[Message], parameters: JsonObject) -> AsyncIterator[AsyncIterator[Delta]]:
        """Open an answer; leaving the context closes the connection, which makes the endpoint stop generating."""
        body: JsonObject = {
            "model": self.model,
            "messages": list(messages),
            "stream_options": {"include_usage": True},
            **parameters,
            **self._settings.llm_extra_body,
            "stream": True,
        }
        try:
            stream = await self._client.post(
                "/chat/completions",
                # As plain JSON: building the client's models would cost more than all else that is done with a chunk.
                cast_to=object,
                body=body,
                stream=True,
                stream_cls=AsyncStream[object],
            )
        except (openai.OpenAIError, ValueError) as error:
            raise self._called.as_upstream_error(error) from None
        async with stream:
            yield self._deltas(stream)

    async def _deltas(self, stream: AsyncStream[object]) -> AsyncIterator[Delta]:
        finished = False
        try:
            async for chunk in stream:
                delta = _delta(chunk)
                if delta is not None:
                    finished = finished or delta.finish_reason is not None
                    yield delta
        except (httpx2.TimeoutException, openai.APITimeoutError):
            raise self._called.timed_out(self._settings.llm_timeout_s) from None
        except openai.APIConnectionError:
            # The client uses one name for an endpoint that is away and for one that leaves in mid-sentence.
            raise self._called.broke_off() from None
        except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
            raise self._called.as_upstream_error(error) from None
        if not finished:
            raise self._called.broke_off()

    async def max_model_len(self) -> int | None:
        """Return how many tokens the model takes, as far as the endpoint's list of models says so."""
        try:
            answer: Any = await self._client.get("/models", cast_to=object, options={"timeout": _PROBE_TIMEOUT_S})
        except (openai.OpenAIError, ValueError) as error:
            raise self._called.as_upstream_error(error) from None
        entries = answer.get("data") if isinstance(answer, dict) else None
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("id") == self.model:
                length = entry.get("max_model_len")
                return length if isinstance(length, int) and length > 0 else None
        return None

    async def count_tokens(self, text: str) -> int | None:
        """Return the endpoint's own count of a text, None where it has no ``/tokenize`` (vLLM's is outside ``/v1``)."""
        root = self._settings.llm_base_url.removesuffix("/v1")
        try:
            answer: Any = await self._client.post(
                f"{root}/tokenize",
                cast_to=object,
                body={"model": self.model, "prompt": text, "add_special_tokens": False},
                options={"timeout": _PROBE_TIMEOUT_S},
            )
        except (openai.OpenAIError, ValueError):
            return None
        count = answer.get("count") if isinstance(answer, dict) else None
        return count if isinstance(count, int) else None


def _completion(answer: Any) -> Completion | None:
    """Read a whole answer; None for what is none."""
    try:
        choice = answer["choices"][0]
        text = choice["message"].get("content") or ""
        finish_reason = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    if not isinstance(text, str) or not isinstance(finish_reason, str | None):
        return None
    return Completion(storable(text), finish_reason, _usage(answer.get("usage")))


def _delta(chunk: Any) -> Delta | None:
    """Read one chunk; None when it says nothing. Raises :class:`ValueError` for what is no chunk."""
    try:
        usage = _usage(chunk.get("usage"))
        choice = chunk["choices"][0] if chunk.get("choices") else None
        if choice is None:
            return Delta(usage=usage) if usage is not None else None
        delta = choice.get("delta") or {}
        text, finish_reason = delta.get("content") or "", choice.get("finish_reason")
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError("a chunk of the answer has not the shape of one") from None
    if not isinstance(text, str) or not isinstance(finish_reason, str | None):
        raise ValueError("a chunk of the answer has not the shape of one")  # noqa: TRY004 - a bad value from outside
    return Delta(
        text=storable(text),
        reasoning=storable(reasoning) if isinstance(reasoning, str) else "",
        finish_reason=storable(finish_reason) if finish_reason is not None else None,
        usage=usage,
    )


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

"""The chat endpoint: the one place that calls it. What can go wrong is said by :mod:`service.upstream_errors`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from domain.errors import UpstreamError
from domain.events import JsonObject, Usage
from domain.reasoning import storable
from projections.http_client import HttpClient, HttpFailure, events
from service.settings import ServiceSettings
from service.upstream_errors import EndpointNames

Message = dict[str, str]

_PROBE_TIMEOUT_S = 5.0
_DONE = b"[DONE]"


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
        self._names = EndpointNames(
            endpoint="the chat endpoint",
            model=settings.llm_model,
            url_setting="LLM_BASE_URL",
            model_setting="LLM_MODEL",
            timeout_setting="LLM_TIMEOUT_S",
        )
        self._http = HttpClient(
            settings.llm_base_url,
            settings.openai_api_key.get_secret_value(),
            connect_timeout_s=settings.llm_connect_timeout_s,
        )

    async def close(self) -> None:
        await self._http.close()

    async def complete(
        self,
        messages: Sequence[Message],
        *,
        timeout_s: float,
        max_tokens: int,
        response_format: JsonObject | None = None,
    ) -> Completion:
        """Ask for one short answer at temperature 0, as decisions and summaries need it."""
        body: JsonObject = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": max_tokens,
            **self._settings.decision_extra_body,
        }
        if response_format is not None:
            body["response_format"] = response_format
        try:
            answer = await self._http.post("/chat/completions", body, timeout_s=timeout_s)
        except HttpFailure as failure:
            raise self._names.error_of(failure, timeout_s) from None
        completion = _completion(answer)
        if completion is None:
            raise self._names.unreadable()
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
        silence_s = self._settings.llm_timeout_s
        try:
            async with self._http.stream("/chat/completions", body, silence_s=silence_s) as pieces:
                yield self._deltas(pieces)
        except HttpFailure as failure:
            raise self._names.error_of(failure, silence_s) from None

    async def _deltas(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[Delta]:
        """Yield the answer, what came together as one piece; raise where it ends without a reason to."""
        together: list[bytes] = []
        finished = False
        async for together in events(pieces):
            deltas, failure = self._read(together)
            if deltas:
                delta = _joined(deltas)
                finished = finished or delta.finish_reason is not None
                yield delta
            if failure is not None:
                raise failure
            if together[-1] == _DONE:
                break
        if not finished:
            raise self._names.broke_off() if together else self._names.unreadable()

    def _read(self, together: Sequence[bytes]) -> tuple[list[Delta], UpstreamError | None]:
        """Read chunks up to one that cannot be read or tells of an error; return that error beside them."""
        deltas: list[Delta] = []
        for data in together:
            if data == _DONE:
                break
            try:
                delta = self._chunk(data)
            except UpstreamError as error:
                return deltas, error
            if delta is not None:
                deltas.append(delta)
        return deltas, None

    def _chunk(self, data: bytes) -> Delta | None:
        """Read one chunk; None when it says nothing. Raises :class:`UpstreamError` for what is no chunk."""
        try:
            chunk: Any = json.loads(data)
            if chunk.get("error"):
                raise self._names.failed()
            usage = _usage(chunk.get("usage"))
            choice = chunk["choices"][0] if chunk.get("choices") else None
            if choice is None:
                return Delta(usage=usage) if usage is not None else None
            delta = choice.get("delta") or {}
            text, finish_reason = delta.get("content") or "", choice.get("finish_reason")
            reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise self._names.unreadable() from None
        if not isinstance(text, str) or not isinstance(finish_reason, str | None):
            raise self._names.unreadable()
        return Delta(
            text=storable(text),
            reasoning=storable(reasoning) if isinstance(reasoning, str) else "",
            finish_reason=storable(finish_reason) if finish_reason is not None else None,
            usage=usage,
        )

    async def max_model_len(self) -> int | None:
        """Return how many tokens the model takes, as far as the endpoint's list of models says so."""
        try:
            answer: Any = json.loads(await self._http.get("/models", timeout_s=_PROBE_TIMEOUT_S))
        except HttpFailure as failure:
            raise self._names.error_of(failure, _PROBE_TIMEOUT_S) from None
        except (ValueError, RecursionError):
            raise self._names.unreadable() from None
        entries = answer.get("data") if isinstance(answer, dict) else None
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("id") == self.model:
                length = entry.get("max_model_len")
                return length if isinstance(length, int) and length > 0 else None
        return None

    async def count_tokens(self, text: str) -> int | None:
        """Return the endpoint's own count of a text, None where it has no ``/tokenize`` (vLLM's is outside ``/v1``)."""
        root = self._settings.llm_base_url.removesuffix("/v1")
        body: JsonObject = {"model": self.model, "prompt": text, "add_special_tokens": False}
        try:
            answer: Any = json.loads(await self._http.post(f"{root}/tokenize", body, timeout_s=_PROBE_TIMEOUT_S))
        except (HttpFailure, ValueError, RecursionError):
            return None
        count = answer.get("count") if isinstance(answer, dict) else None
        return count if isinstance(count, int) else None


def _joined(deltas: Sequence[Delta]) -> Delta:
    """Return pieces (at least one) that came together as one."""
    if len(deltas) == 1:
        return deltas[0]
    reasons = [delta.finish_reason for delta in deltas if delta.finish_reason is not None]
    usages = [delta.usage for delta in deltas if delta.usage is not None]
    return Delta(
        text="".join([delta.text for delta in deltas]),
        reasoning="".join([delta.reasoning for delta in deltas]),
        finish_reason=reasons[-1] if reasons else None,
        usage=usages[-1] if usages else None,
    )


def _completion(body: bytes) -> Completion | None:
    """Read a whole answer; None for what is none."""
    try:
        answer: Any = json.loads(body)
        choice = answer["choices"][0]
        text = choice["message"].get("content") or ""
        finish_reason = choice.get("finish_reason")
        usage = _usage(answer.get("usage"))
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if not isinstance(text, str) or not isinstance(finish_reason, str | None):
        return None
    return Completion(storable(text), finish_reason, usage)


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict):
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(completion, int):
        return None
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)

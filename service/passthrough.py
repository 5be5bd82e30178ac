"""Requests that need no memory, sent on to an endpoint as they are: embeddings, and completions of the old API."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec

from domain.errors import InvalidInput, UnknownModel, Unrecordable, UpstreamError
from domain.events import JsonObject, recorded_text
from domain.reasoning import storable
from projections.embedding.endpoint import BACKGROUND_TIMEOUT_S
from projections.http_client import HttpClient, HttpFailure, Refused, Unreadable, events, whole
from projections.refusal_reason import reason_in, reason_of, tellable
from service.settings import ServiceSettings
from service.upstream_errors import EndpointNames

DONE = b"[DONE]"
_NOT_FOUND = 404
_WHOLE_BYTES_MAX = 64 * 1024 * 1024
_ERROR_BEGINS_WITHIN = 64
"""An event that tells of an error begins with it."""


class _Told(msgspec.Struct):
    """What an answer tells of an error; all else of it is none of our business, and is not read."""

    error: Any = None


class PassThrough:
    """Sends requests on. Every method raises :class:`OpmError` and nothing else when there is no answer to give."""

    def __init__(self, settings: ServiceSettings) -> None:
        key = settings.openai_api_key.get_secret_value()
        connect_timeout_s = settings.llm_connect_timeout_s
        self._silence_s = settings.llm_timeout_s
        self._embedding = HttpClient(settings.emb_base_url, key, connect_timeout_s=connect_timeout_s)
        self._chat = HttpClient(settings.llm_base_url, key, connect_timeout_s=connect_timeout_s)
        self._embedding_names = EndpointNames(
            endpoint="the embedding endpoint",
            model=settings.emb_model,
            url_setting="EMB_BASE_URL",
            model_setting="EMB_MODEL",
            key=key,
        )
        self._chat_names = EndpointNames(
            endpoint="the chat endpoint",
            model=settings.llm_model,
            url_setting="LLM_BASE_URL",
            model_setting="LLM_MODEL",
            key=key,
        )

    async def close(self) -> None:
        await self._embedding.close()
        await self._chat.close()

    async def embeddings(self, body: JsonObject) -> bytes:
        """Return the embedding endpoint's answer; ``EMB_MODEL`` embeds unless the request names another model."""
        _check_sendable(body)
        names = self._embedding_names
        sent = {**body, "model": body.get("model") or names.model}
        try:
            answer = await self._embedding.post("/embeddings", sent, timeout_s=BACKGROUND_TIMEOUT_S)
        except Refused as refusal:
            if refusal.status == _NOT_FOUND and sent["model"] != names.model:
                raise UnknownModel(str(sent["model"])) from None
            raise names.error_of(refusal) from None
        except HttpFailure as failure:
            raise names.error_of(failure, BACKGROUND_TIMEOUT_S) from None
        return _readable(answer, names)

    async def completion(self, body: JsonObject) -> bytes:
        """Return the chat endpoint's answer to a request of the old API, which ``LLM_MODEL`` answers like any other."""
        _check_sendable(body)
        names = self._chat_names
        sent = {**body, "model": names.model}
        try:
            answer = await self._chat.post("/completions", sent, timeout_s=self._silence_s)
        except HttpFailure as failure:
            raise self._completion_error(failure) from None
        return _readable(answer, names)

    async def completion_events(self, body: JsonObject) -> AsyncGenerator[bytes]:
        """Yield the data of each event of a streamed answer, last :data:`DONE`.

        Closing the generator closes the connection, which makes the endpoint stop generating.
        """
        _check_sendable(body)
        names = self._chat_names
        sent = {**body, "model": names.model}
        begun = False
        try:
            async with self._chat.stream("/completions", sent, silence_s=self._silence_s) as pieces:
                async for data in _data(pieces):
                    begun = True
                    if data == DONE:
                        break
                    _raise_told(data, names)
                    yield data
        except HttpFailure as failure:
            raise self._completion_error(failure) from None
        if not begun:
            raise names.unreadable()
        yield DONE

    def _completion_error(self, failure: HttpFailure) -> UpstreamError:
        names = self._chat_names
        if isinstance(failure, Refused) and failure.status == _NOT_FOUND:
            # Chats work at the same address, so that neither it nor the model's name is to blame.
            reason = tellable(reason_in(failure.body), names.key)
            message = (
                f"{names.endpoint} does not take POST /v1/completions (404): ask POST /v1/chat/completions instead"
            )
            message += f" ({reason})" if reason else ""
            return UpstreamError(message, status=_NOT_FOUND, code="upstream_not_found")
        return names.error_of(failure, self._silence_s, "LLM_TIMEOUT_S")


async def _data(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the data of events; of an answer that came as one JSON, that JSON."""
    first = b""
    async for piece in pieces:
        first += piece
        if first.strip():
            break
    if first.lstrip().startswith(b"{"):
        yield _on_one_line(first + await whole(pieces, _WHOLE_BYTES_MAX))
        return

    async def again() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    async for together in events(again()):
        for data in together:
            yield data


def _on_one_line(body: bytes) -> bytes:
    try:
        return msgspec.json.format(body, indent=-1)
    except msgspec.DecodeError:
        raise Unreadable from None


def _raise_told(data: bytes, names: EndpointNames) -> None:
    """Raise the error that an event of a stream tells of, if it does."""
    if b'"error"' in data[:_ERROR_BEGINS_WITHIN]:
        _readable(data, names)


def _readable(answer: bytes, names: EndpointNames) -> bytes:
    """Return an answer that is a JSON object and tells of no error; raise :class:`UpstreamError` for any other."""
    try:
        told = msgspec.json.decode(answer, type=_Told).error
    except (msgspec.DecodeError, RecursionError):
        raise names.unreadable() from None
    if told:
        raise names.failed(storable(reason_of(told)))
    return answer


def _check_sendable(body: JsonObject) -> None:
    """Refuse a request that no JSON could hold, by the encoder of the ledger, which is the strictest."""
    try:
        recorded_text({"body": body})
    except Unrecordable:
        fix = "send finite numbers and valid Unicode, nested less deeply"
        raise InvalidInput("body", f"an object with {len(body)} fields", fix) from None

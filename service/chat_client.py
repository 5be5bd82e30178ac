"""The chat endpoint: the one place that calls it. What can go wrong is said by :mod:`service.upstream_errors`.

Requests are put in the endpoint's dialect, which its refusals teach (:mod:`service.dialect`).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, replace
from typing import Any, NamedTuple, TypeVar

import msgspec

from domain.errors import ContextExceeded, UpstreamError
from domain.events import JsonObject
from domain.model_call import ModelCall
from domain.prompt import messages_hash
from projections.http_client import HttpClient, HttpFailure, Refused, events, whole
from projections.refusal_reason import reason_in
from service.chat_answers import (
    ChunkReader,
    Completion,
    Delta,
    Reported,
    Unreadable,
    is_count,
    joined,
    read_completion,
)
from service.context_probe import ContextLength, context_length
from service.dialect import Dialect
from service.settings import ServiceSettings
from service.upstream_errors import EndpointNames

Message = dict[str, str]
T = TypeVar("T")

_PROBE_TIMEOUT_S = 5.0
_DONE = b"[DONE]"
_ANSWER_CHARS_MAX = 1_000_000
"""Text, reasoning and calls together: more than any model writes. There the answer ends, as at its own limit."""
_ANSWER_BYTES_MAX = 256 * 1024 * 1024
"""With all that stands around the text, such as log probabilities. There it ends in the same way."""
_WHOLE_BYTES_MAX = 64 * 1024 * 1024
"""Of an answer that comes in one piece, perhaps with sound or pictures in it."""
_WHOLE_CHARS_MAX = 8_000_000
"""Of the text in it, which only a broken endpoint sends."""
_STREAMED_AUDIO = "pcm16"
_SHORT_ANSWER_BYTES_MAX = 4 * 1024 * 1024
_SHORT_ANSWER_CHARS_MAX = 100_000
"""Of a decision or summary: many times what was asked for, which only a broken endpoint sends."""
_BEGINNING_BYTES_MAX = 8 * 1024 * 1024
_TRIES_MAX = 8
_REFUSALS = {400, 404, 422, 500, 501}
_NAMELESS_REFUSALS = {400, 422}
_EVENT_END = re.compile(rb"\n\r?\n")
_BOM_AND_SPACE = b"\xef\xbb\xbf \t\r\n"


class Answering(NamedTuple):
    """An answer that has begun: the call that led to it, and its pieces as they come."""

    call: ModelCall
    deltas: AsyncIterator[Delta]


class ChatClient:
    """Calls the configured chat model. Nothing is retried here: whoever calls knows what a retry is worth.

    Every method raises :class:`~domain.errors.UpstreamError` and nothing else when the endpoint gives no usable answer.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self.model = settings.llm_model
        self._settings = settings
        self.names = EndpointNames(
            endpoint="the chat endpoint",
            model=settings.llm_model,
            url_setting="LLM_BASE_URL",
            model_setting="LLM_MODEL",
            key=settings.openai_api_key.get_secret_value(),
        )
        self.dialect = Dialect()
        self.answered = asyncio.Event()
        """Set once the model has begun to answer, and so is loaded."""
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
        timeout_setting: str | None = None,
    ) -> Completion:
        """Ask for one short answer at temperature 0, as decisions and summaries need it.

        ``timeout_setting`` is the setting that ``timeout_s`` comes from, which the error of a silent endpoint names.
        """
        body: JsonObject = {
            "model": self.model,
            "messages": list(messages),
            "temperature": 0,
            "max_tokens": max_tokens,
            **self._settings.decision_extra_body,
        }
        if response_format is not None:
            body["response_format"] = response_format

        async def ask(sent: JsonObject) -> Completion:
            body = await self._http.post(
                "/chat/completions", sent, timeout_s=timeout_s, bytes_max=_SHORT_ANSWER_BYTES_MAX
            )
            completion = read_completion(body)
            if len(completion.text) > _SHORT_ANSWER_CHARS_MAX:
                raise Unreadable
            return completion

        completion, call = await self._negotiated(body, ask, timeout_s, timeout_setting)
        return replace(completion, call=answered(call, completion.model, completion.fingerprint))

    @asynccontextmanager
    async def stream(
        self, messages: Sequence[Message], parameters: JsonObject, broken_off: Callable[[ModelCall], None] | None = None
    ) -> AsyncIterator[Answering]:
        """Open an answer; leaving the context closes the connection, which makes the endpoint stop generating.

        ``broken_off`` is told of the call if it is cancelled before the endpoint has answered.

        Raises :class:`~domain.errors.ContextExceeded` where the endpoint says, before the answer, that the prompt is
        too long.
        """
        body: JsonObject = {
            "model": self.model,
            "messages": list(messages),
            "stream_options": {"include_usage": True},
            **parameters,
            **self._settings.llm_extra_body,
            "stream": True,
        }
        if _is_spoken_whole(body):
            body = {name: value for name, value in body.items() if name != "stream_options"} | {"stream": False}
        silence_s = self._settings.llm_timeout_s
        several = is_count(body.get("n")) and body["n"] > 1
        async with AsyncExitStack() as stack:

            async def ask(sent: JsonObject) -> AsyncIterator[bytes] | Completion:
                opened = self._http.stream("/chat/completions", sent, silence_s=silence_s)
                return await _begun(await stack.enter_async_context(opened), several=several)

            answer, call = await self._negotiated(body, ask, silence_s, "LLM_TIMEOUT_S", broken_off)
            try:
                yield Answering(call, self._deltas(answer, several=several))
            except Unreadable:
                raise self.names.unreadable().of(call) from None
            except HttpFailure as failure:
                raise self.names.error_of(failure, silence_s, "LLM_TIMEOUT_S").of(call) from None

    async def _negotiated(
        self,
        body: JsonObject,
        ask: Callable[[JsonObject], Awaitable[T]],
        timeout_s: float,
        timeout_setting: str | None,
        broken_off: Callable[[ModelCall], None] | None = None,
    ) -> tuple[T, ModelCall]:
        """Ask in the endpoint's dialect; where it refuses a part of the request, without that part."""
        began_with = dialect = self.dialect
        guesses: list[Dialect] | None = None
        first: UpstreamError | None = None
        for attempt in range(1, _TRIES_MAX + 1):
            sent = dialect.put(body)
            call = self._call(body, sent, dialect, attempt)
            try:
                answer = await ask(sent)
            except Refused as refusal:
                error = self.names.error_of(refusal)
                reason, status = reason_in(refusal.body), refusal.status
            except Reported as reported:
                error, reason, status = self.names.failed(str(reported)), str(reported), 400
            except HttpFailure as failure:
                raise self.names.error_of(failure, timeout_s, timeout_setting).of(call) from None
            except Unreadable:
                raise self.names.unreadable().of(call) from None
            except asyncio.CancelledError:
                if broken_off is not None:
                    broken_off(call)
                raise
            else:
                self.answered.set()
                # Only what this call learned: another one may have learned more meanwhile.
                learned = {name: value for name, value in asdict(dialect).items() if value != getattr(began_with, name)}
                self.dialect = replace(self.dialect, **learned)
                return answer, call
            first = (first or error).of(call)
            if isinstance(error, ContextExceeded) or status not in _REFUSALS:
                raise error.of(call) from None
            better = dialect.without(reason, sent)
            if better is None and not reason and status in _NAMELESS_REFUSALS:
                guesses = dialect.guesses(sent) if guesses is None else guesses
                better = guesses.pop(0) if guesses else None
            if better is None:
                raise first from None
            dialect = better
        raise first or self.names.unreadable()

    def _call(self, body: JsonObject, sent: JsonObject, dialect: Dialect, attempt: int) -> ModelCall:
        return ModelCall(
            endpoint=self._http.address,
            request={name: value for name, value in body.items() if name != "messages"},
            dialect=dialect.deviations,
            messages_hash=messages_hash(sent["messages"]),
            attempts=attempt,
        )

    async def _deltas(self, answer: AsyncIterator[bytes] | Completion, *, several: bool) -> AsyncIterator[Delta]:
        """Yield the answer, what came together as one piece; raise where it ends without a reason to."""
        if isinstance(answer, Completion):
            for choice in answer.choices:
                yield msgspec.structs.replace(choice, finish_reason=choice.finish_reason or _own_end(choice))
            return
        reader = ChunkReader(several=several)
        ended, chars, size = False, 0, 0
        ends: dict[int, str] = {}  # why each choice that has begun would have ended
        finished: set[int] = set()
        async for together in events(answer):
            deltas, failure = self._read(reader, together)
            for delta in joined(deltas) if deltas else ():
                if delta.says and ends.get(delta.index, "stop") == "stop":
                    ends[delta.index] = _own_end(delta)
                if delta.finish_reason is not None:
                    finished.add(delta.index)
                chars += delta.chars
                yield delta
            size += sum(map(len, together))
            if chars > _ANSWER_CHARS_MAX or size > _ANSWER_BYTES_MAX:
                for index in sorted(ends.keys() | finished):
                    yield Delta(finish_reason="length", index=index)
                return
            if failure is not None:
                raise failure
            if ended := _DONE in together:
                break
        if not ends and not finished:
            raise self.names.broke_off() if ended else self.names.unreadable()
        # Some endpoints give no reason; one that did not come to its end either was cut.
        for index in sorted(ends.keys() - finished):
            yield Delta(finish_reason=ends[index] if ended else "length", index=index)

    def _read(self, reader: ChunkReader, together: Sequence[bytes]) -> tuple[list[Delta], UpstreamError | None]:
        """Read chunks up to one that cannot be read or tells of an error; return that error beside them."""
        deltas: list[Delta] = []
        for data in together:
            if data == _DONE:
                break
            try:
                deltas += reader.read(data)
            except Unreadable:
                return deltas, self.names.unreadable()
            except Reported as reported:
                return deltas, self.names.failed(str(reported))
        return deltas, None

    async def context_length(self) -> ContextLength | None:
        """Return how many tokens the model takes, as far as the endpoint says so."""
        try:
            return await context_length(self._http, self._settings.llm_base_url, self.model, _PROBE_TIMEOUT_S)
        except HttpFailure as failure:
            raise self.names.error_of(failure, _PROBE_TIMEOUT_S) from None

    async def count_tokens(self, text: str) -> int | None:
        """Return the endpoint's own count of a text, None where it has no ``/tokenize`` (vLLM's is outside ``/v1``)."""
        root = self._settings.llm_base_url.removesuffix("/v1")
        body: JsonObject = {"model": self.model, "prompt": text, "add_special_tokens": False}
        try:
            answer: Any = json.loads(await self._http.post(f"{root}/tokenize", body, timeout_s=_PROBE_TIMEOUT_S))
        except (HttpFailure, ValueError, RecursionError):
            return None
        count = answer.get("count") if isinstance(answer, dict) else None
        return count if is_count(count) else None


def answered(call: ModelCall, model: str | None, fingerprint: str | None) -> ModelCall:
    """Return a call with what the endpoint says to have answered with."""
    return call.model_copy(update={"answered_by": model, "fingerprint": fingerprint})


def _is_spoken_whole(body: JsonObject) -> bool:
    """Tell whether spoken words are asked for in a format that no endpoint gives in pieces."""
    audio = body.get("audio")
    return isinstance(audio, dict) and audio.get("format") not in (None, _STREAMED_AUDIO)


def _own_end(said: Delta) -> str:
    """Return the reason to end of a choice that gives none, by what it says."""
    return "tool_calls" if said.tool_calls else "function_call" if "function_call" in said.more else "stop"


async def _begun(pieces: AsyncIterator[bytes], *, several: bool) -> AsyncIterator[bytes] | Completion:
    """Wait for the first event of a stream, and return all of it; or the answer, where it came as one JSON.

    Raises :class:`Reported` where the first event tells of an error, so that it can be met as a refusal.
    """
    first = b""
    async for piece in pieces:
        first += piece
        if len(first) > _BEGINNING_BYTES_MAX:
            raise Unreadable
        begins = first.lstrip(_BOM_AND_SPACE)[:1]
        if begins and (begins == b"{" or _EVENT_END.search(first)):
            break
    if first.lstrip(_BOM_AND_SPACE).startswith(b"{"):
        rest = await whole(pieces, _WHOLE_BYTES_MAX)
        completion = read_completion(first.lstrip(_BOM_AND_SPACE) + rest, several=several)
        if any(choice.chars > _WHOLE_CHARS_MAX for choice in completion.choices):
            raise Unreadable
        return completion

    async def only_first() -> AsyncIterator[bytes]:
        yield first

    async for together in events(only_first()):
        with suppress(Unreadable):
            ChunkReader().read(together[0])
        break

    async def again() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return again()

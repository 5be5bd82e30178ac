"""Ask a chat endpoint how many tokens its model takes: each server says it in another place.

- The list of models: vLLM, SGLang, TGI, OpenRouter, LiteLLM and others, each under a name of its own; LM Studio in a
  list of its own, ``/api/v0/models``.
- ``/props``: llama.cpp, for one slot, which is what one conversation gets.
- ``/api/ps`` and ``/api/show``: Ollama, which serves a model with 4,096 tokens unless it was told otherwise, whatever
  the model could take, and silently cuts what is longer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from projections.http_client import HttpClient, HttpFailure

_OLLAMA_DEFAULT = 4096
_SERVED = (
    "max_model_len",
    "loaded_context_length",
    "context_length",
    "context_window",
    "max_context_length",
    "max_input_tokens",
    "n_ctx",
    "context_size",
)
_INSIDE = ("meta", "top_provider", "model_info", "info")
_NUM_CTX = re.compile(r"^\s*num_ctx\s+(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ContextLength:
    """How many tokens the model takes, question and answer together, and where the endpoint says so."""

    tokens: int
    source: str


def same_model(one: str, other: str) -> bool:
    """Tell whether two names are one model's: Ollama adds ``:latest`` to a name without a tag."""
    return one.removesuffix(":latest") == other.removesuffix(":latest")


async def context_length(http: HttpClient, base_url: str, model: str, timeout_s: float) -> ContextLength | None:
    """Return what the endpoint says of its model, None where it says nothing.

    Raises :class:`HttpFailure` when the list of models cannot be had.
    """
    entries = models_in(await http.get("/models", timeout_s=timeout_s))
    named = [entry for entry in entries if same_model(str(entry.get("id") or entry.get("name")), model)]
    # A server of one model often answers to any name.
    entry = named[0] if named else entries[0] if len(entries) == 1 else {}
    if (found := _served(entry)) is not None:
        return found
    root = base_url.rstrip("/").removesuffix("/v1")
    for entry in models_in(await _bytes(http, f"{root}/api/v0/models", timeout_s)):
        if same_model(str(entry.get("id")), model) and (found := _served(entry)) is not None:
            return found
    if (tokens := props_tokens(await _json(http, f"{root}/props", timeout_s))) is not None:
        return ContextLength(tokens, "/props")
    shown = await _json(http, f"{root}/api/show", timeout_s, {"model": model})
    if isinstance(shown, dict) and ("model_info" in shown or "parameters" in shown):
        running = await _json(http, f"{root}/api/ps", timeout_s)
        return ollama_length(shown, running, model)
    return None


_DIGITS_MAX = 12
"""No model takes a number of tokens that has more."""


def models_in(body: bytes) -> list[dict[str, Any]]:
    """Return the entries of a list of models; none where it cannot be read."""
    try:
        answer: Any = json.loads(body)
    except (ValueError, RecursionError):
        return []
    entries = answer.get("data", answer.get("models")) if isinstance(answer, dict) else answer
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def props_tokens(props: Any) -> int | None:
    """Return what llama.cpp's ``/props`` says of one slot."""
    settings = props.get("default_generation_settings") if isinstance(props, dict) else None
    return _positive(settings.get("n_ctx")) if isinstance(settings, dict) else None


def ollama_length(shown: Mapping[str, Any], running: Any, model: str) -> ContextLength:
    """Return the context that Ollama serves a model with; ``shown`` and ``running`` are what it says of it."""
    loaded = running.get("models") if isinstance(running, dict) else None
    for entry in loaded if isinstance(loaded, list) else []:
        if isinstance(entry, dict) and same_model(str(entry.get("name") or entry.get("model")), model):
            tokens = _positive(entry.get("context_length"))
            if tokens is not None:
                return ContextLength(tokens, "/api/ps")
    parameters = shown.get("parameters")
    if isinstance(parameters, str) and (found := _NUM_CTX.search(parameters)):
        return ContextLength(int(found[1]), "/api/show")
    info = shown.get("model_info")
    most = [
        tokens
        for name, value in (info.items() if isinstance(info, dict) else ())
        if name.endswith(".context_length") and (tokens := _positive(value)) is not None
    ]
    return ContextLength(min([_OLLAMA_DEFAULT, *most]), "Ollama's default")


def _served(entry: Mapping[str, Any]) -> ContextLength | None:
    """Return what an entry of the list of models says, under whichever name."""
    for name in _SERVED:
        if (tokens := _positive(entry.get(name))) is not None:
            return ContextLength(tokens, f"/models: {name}")
    for inside in _INSIDE:
        nested = entry.get(inside)
        if not isinstance(nested, dict):
            continue
        for name in _SERVED:
            if (tokens := _positive(nested.get(name))) is not None:
                return ContextLength(tokens, f"/models: {inside}.{name}")
    return None


def _positive(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS_MAX:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**_DIGITS_MAX else None


async def _json(http: HttpClient, url: str, timeout_s: float, body: dict[str, Any] | None = None) -> Any:
    """Return the JSON at an address that few servers have, None where there is none."""
    try:
        return json.loads(await _bytes(http, url, timeout_s, body))
    except (ValueError, RecursionError):
        return None


async def _bytes(http: HttpClient, url: str, timeout_s: float, body: dict[str, Any] | None = None) -> bytes:
    """Return what an address answers, nothing where it does not."""
    try:
        if body is None:
            return await http.get(url, timeout_s=timeout_s)
        return await http.post(url, body, timeout_s=timeout_s)
    except HttpFailure:
        return b""

"""The fields of a response beside what the model said: what was asked for, repeated. Pure.

OpenAI's clients expect every field, also of a request that left it out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domain.events import JsonObject
from service.responses_api.tools import as_offered

_PREFIX = "resp_"
_ANSWER = "chatcmpl-"
_UNSAID: JsonObject = {
    "background": False,
    "completed_at": None,
    "conversation": None,
    "error": None,
    "incomplete_details": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": None,
    "truncation": "disabled",
    "usage": None,
    "user": None,
}


def frame(
    answer_id: str,
    created_at: int,
    model: str,
    repeated: JsonObject,
    *,
    instructions: str | None,
    tools: Sequence[JsonObject],
) -> JsonObject:
    """Return a response without output; ``repeated`` is as :attr:`.request.Translated.repeated`, ``tools`` as sent on.

    ``created_at`` is in seconds since 1970.
    """
    custom = repeated.get("custom_tools", ())
    said = {name: value for name, value in repeated.items() if name in _UNSAID}
    return {
        "id": response_id_of(answer_id),
        "object": "response",
        "created_at": created_at,
        "status": "in_progress",
        "model": model,
        "instructions": instructions,
        "tools": as_offered(tools, custom),
        "output": [],
        **_UNSAID,
        **said,
        "text": {**_UNSAID["text"], **said.get("text", {})},
        "conversation": _conversation(said.get("conversation")),
    }


def response_id_of(answer_id: str) -> str:
    """Return the id of the response that an answer is."""
    return f"{_PREFIX}{answer_id.removeprefix(_ANSWER)}"


def answer_id_of(response_id: str) -> str | None:
    """Return the id of the answer that a response is, None for what is no id of a response."""
    return f"{_ANSWER}{response_id.removeprefix(_PREFIX)}" if response_id.startswith(_PREFIX) else None


def _conversation(given: Any) -> JsonObject | None:
    if given is None:
        return None
    return {"id": str(given.get("id")) if isinstance(given, dict) else str(given)}

"""Describe a backend error for the person who has to fix it."""

from __future__ import annotations

from dataclasses import dataclass

from frontend.backend_errors import (
    AnswerBrokenError,
    BackendError,
    BackendFailedError,
    BackendSilentError,
    BackendUnreachableError,
    BadRequestError,
    ChatModelDownError,
    ChatModelSlowError,
    NotAuthorizedError,
    TooBusyError,
    UnreadableAnswerError,
)
from frontend.markdown_safety import plain
from frontend.ui_text import Words

_KEYS: dict[type[BackendError], str] = {
    AnswerBrokenError: "error_broken",
    BackendFailedError: "error_failed",
    BackendSilentError: "error_silent",
    BackendUnreachableError: "error_unreachable",
    BadRequestError: "error_bad_request",
    ChatModelDownError: "error_chat_down",
    ChatModelSlowError: "error_chat_slow",
    NotAuthorizedError: "error_not_authorized",
    TooBusyError: "error_too_busy",
    UnreadableAnswerError: "error_unreadable",
}


@dataclass(frozen=True)
class Problem:
    """What happened, what to do, and details (the service's message, the request id), as Markdown."""

    what: str
    fix: str
    details: tuple[str, ...]


def describe(error: BackendError, words: Words, address: str) -> Problem:
    """Put an error into words. `address` is the backend's, without secrets."""
    key = _KEYS.get(type(error), "error_failed")
    what = words(key, address=f"`{address}`")
    if isinstance(error, BadRequestError) and error.param:
        what = words("error_bad_request_field", field=f"**{plain(_field_name(error.param, words))}**")
    details = []
    if error.said:
        details.append(words("service_said", said=plain(error.said)))
    if error.request_id:
        details.append(words("request_id", request_id=error.request_id.replace("`", "")))
    return Problem(what, words(f"{key}_fix"), tuple(details))


def _field_name(param: str, words: Words) -> str:
    """The field's label on the page with its wire name, or only the wire name if the page has no such field."""
    name = param.rpartition(".")[2]
    key = {"user": "user_id", "conv_id": "conversation_id"}.get(name, name)
    return f"{words(key)} ({param})" if words.has(key) else param

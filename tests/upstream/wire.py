"""The shapes of the OpenAI API as the scripted upstream reads and writes them: values in, values out."""

import json
from collections.abc import Mapping
from typing import Any

from tests.upstream import responders
from tests.upstream.script import Kind


class BadRequestError(ValueError):
    """The request is one that real servers refuse; becomes an OpenAI-shaped error with this status."""

    def __init__(self, message: str, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code


def decode(body: bytes) -> Any:
    """The JSON of a request body, None when it is empty. Raises `BadRequestError`."""
    try:
        return json.loads(body) if body else None
    except ValueError as error:
        raise BadRequestError(f"The body is not JSON: {error}") from error


def chat_kind(body: Mapping[str, Any]) -> Kind:
    schema = response_format(body, "json_schema")
    schema = schema.get("name") if isinstance(schema, dict) else None
    if schema == "memory_gate":
        return "gate"
    if schema == "memory_rerank":
        return "rerank"
    # Whoever takes no system message gets its text in the first user message.
    # Its beginning tells, since memories, which follow, may say anything.
    first = next((text for _, text in messages(body)), "").lower()[:200]
    if "which remembered notes could help" in first:
        return "gate"
    if "you pick the remembered notes" in first:
        return "rerank"
    return "summary" if "memory summar" in first else "answer"


def response_format(body: Mapping[str, Any], field: str) -> Any:
    """A field of the wanted format, None where there is none; a client may send anything."""
    wanted = body.get("response_format")
    return wanted.get(field) if isinstance(wanted, dict) else None


def messages(body: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((message.get("role", ""), _text(message.get("content"))) for message in body.get("messages") or ())


def _text(content: object) -> str:
    """Text of a content that is a string or a list of typed parts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return "" if content is None else str(content)


def prompt_tokens(prompt: tuple[tuple[str, str], ...]) -> int:
    # Four marker tokens a message, as ChatML templates have.
    return sum(responders.tokens(text) + 4 for _, text in prompt)


def usage(prompt: tuple[tuple[str, str], ...], completion: str) -> dict[str, int]:
    asked, said = prompt_tokens(prompt), responders.tokens(completion)
    return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}


def pieces(text: str) -> list[str]:
    """The text word by word, spaces kept, so that the pieces join to the text."""
    words = text.split(" ")
    return [word if i == 0 else f" {word}" for i, word in enumerate(words)] if text else []


def logprobs(said: list[str]) -> dict[str, Any]:
    """Log probabilities as of a model that was certain of each piece."""
    tops: list[Any] = []
    return {"content": [{"token": piece, "logprob": 0.0, "bytes": None, "top_logprobs": tops} for piece in said]}


def error(refusal: BadRequestError) -> dict[str, Any]:
    kinds = {
        400: "invalid_request_error",
        401: "authentication_error",
        404: "not_found_error",
        429: "rate_limit_error",
    }
    kind = kinds.get(refusal.status, "server_error")
    where = {"param": refusal.param, "code": refusal.code}
    return {"error": {"message": str(refusal), "type": kind, **where}}


def refusal(refused: BadRequestError, shape: str) -> dict[str, Any]:
    """The body of a refusal in one of the shapes that servers give it."""
    match shape:
        case "text":
            return {"error": str(refused)}
        case "fastapi":
            return {"detail": [{"loc": ["body", refused.param], "msg": str(refused), "type": "value_error"}]}
        case "message":
            return {"message": str(refused)}
        case "nameless":
            return {}
        case _:
            return error(refused)


def encode(value: object) -> bytes:
    # Half of a surrogate pair becomes its JSON escape: that is how it travels in valid UTF-8.
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")

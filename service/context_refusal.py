"""Tell a refusal for too long a prompt from others, and read the maximum that it names. Pure.

Wordings of vLLM, SGLang, TGI, llama.cpp, LM Studio, Ollama and OpenAI.
"""

from __future__ import annotations

import json
import re
from typing import Any

_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|exceed_context_size|maximum context|max_model_len"
    r"|(prompt|input) is too long|too many (input |prompt )tokens|maximum prompt length"
    r"|tokens.{0,60}must be (<=|less)|inputs?`? must have (less|fewer) than \d+ tokens"
    r"|exceeds? the (model's )?(available |maximum |configured )*(context|limit|number of tokens|input length)"
    r"|longer than the (model's )?(maximum|context)|input length .{0,40}exceed"
    r"|reduce the length of the (messages|prompt|input)",
    re.IGNORECASE,
)
_MAXIMUM = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"n_ctx:? ?(\d{3,9})",
        r"(\d{3,9}) (?:tokens )?maximum",
        r"maximum[ _](?:(?:allowed|context|model|input|prompt|sequence|total)[ _])*"
        r"(?:length|size|window|number of tokens|tokens?)[^\d]{0,40}(\d{3,9})",
        r"context[ _](?:length|size|window)(?: \(n_ctx\))?[^\d]{0,60}(\d{3,9})",
        r"(?:<=|at most|(?:less|fewer) than|up to|limit(?: is| of)?:?|maximum(?: is| of)?:?)\s*(\d{3,9})",
    )
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3})")


def is_too_long(reason: str, code: str | None) -> bool:
    """Tell whether a refusal says that the prompt, with its answer, is longer than the model takes."""
    return code in {"context_length_exceeded", "exceed_context_size_error"} or _TOO_LONG.search(reason) is not None


def maximum_in(reason: str, body: bytes = b"") -> int | None:
    """Return the tokens that the refusal names as the model's maximum, None where it names none."""
    told = _n_ctx(body)
    if told is not None:
        return told
    plain = _THOUSANDS.sub("", reason)
    return next((int(found[1]) for pattern in _MAXIMUM if (found := pattern.search(plain))), None)


def code_in(body: bytes) -> str | None:
    """Return the error code or type of an OpenAI error body."""
    error = _error(body)
    code = error.get("code")
    kind = error.get("type")
    return code if isinstance(code, str) else kind if isinstance(kind, str) else None


def _n_ctx(body: bytes) -> int | None:
    """Return llama.cpp's ``n_ctx``."""
    length = _error(body).get("n_ctx")
    return length if isinstance(length, int) and not isinstance(length, bool) and length > 0 else None


def _error(body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}

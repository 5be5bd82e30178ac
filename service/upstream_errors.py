"""Failed calls of an OpenAI-compatible endpoint, as errors in our own words.

A foreign message may quote a key or a person's text. So only the message of a rejected request is passed on.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from domain.errors import UpstreamError
from domain.reasoning import storable
from projections.http_client import BrokenOff, HttpFailure, Refused, TimedOut, Unreadable

_REASON_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class EndpointNames:
    """An endpoint as an operator knows it: its name, its model, and the settings to check."""

    endpoint: str
    model: str
    url_setting: str
    model_setting: str
    timeout_setting: str
    key_setting: str = "OPENAI_API_KEY"
    expected: str = "an OpenAI-compatible endpoint, ending in /v1"

    def error_of(self, failure: HttpFailure, timeout_s: float) -> UpstreamError:
        """Return the error for a failed call whose timeout was ``timeout_s``."""
        match failure:
            case Refused():
                return self._refused(failure)
            case TimedOut():
                message = f"was silent for {timeout_s:g} s: try again, or raise {self.timeout_setting}"
                return self._error(message, 504, "upstream_timeout")
            case BrokenOff():
                return self.broke_off()
            case Unreadable():
                return self.unreadable()
            case _:
                why = f": {failure}" if str(failure) else ""
                return self._error(f"({self.url_setting}) cannot be reached{why}", 502, "upstream_unreachable")

    def broke_off(self) -> UpstreamError:
        """Return the error for an answer that was cut off."""
        return self._error("broke off in the middle of its answer", 502, "upstream_broke_off")

    def failed(self) -> UpstreamError:
        """Return the error for a stream that reported an error."""
        return self._error("reported an error in the middle of its answer", 502, "upstream_failed")

    def unreadable(self) -> UpstreamError:
        """Return the error for an answer of an unknown shape."""
        return UpstreamError(
            f"the answer of {self.endpoint} cannot be read: is {self.url_setting} {self.expected}?",
            status=502,
            code="upstream_unreadable",
        )

    def _error(self, message: str, status: int, code: str, retry_after_s: float | None = None) -> UpstreamError:
        return UpstreamError(f"{self.endpoint} {message}", status=status, code=code, retry_after_s=retry_after_s)

    def _refused(self, refusal: Refused) -> UpstreamError:
        status = refusal.status
        if 300 <= status < 400:
            message = f"redirects to another address ({status}): set {self.url_setting} to that address"
            return self._error(message, 502, "upstream_failed")
        if status in {401, 403}:
            return self._error(f"refuses the key ({status}): check {self.key_setting}", 502, "upstream_refused_key")
        if status == 404:
            message = f"does not know {self.model_setting} = {self.model!r}, or {self.url_setting} is wrong (404)"
            return self._error(message, 502, "upstream_not_found")
        if status == 429:
            message = "limits the rate of requests (429): try again later"
            return self._error(message, 429, "rate_limit_exceeded", refusal.retry_after_s)
        if status in {408, 504}:
            return self._error(f"timed out ({status})", 504, "upstream_timeout")
        if 400 <= status < 500:
            return self._error(f"rejected the request ({status}){_reason(refusal.body)}", 400, "upstream_rejected")
        return self._error(f"fails ({status})", 502, "upstream_failed")


def _reason(body: bytes) -> str:
    """Return the message of an OpenAI error body with a colon before it, or an empty string."""
    try:
        answer: Any = json.loads(body)
        said = answer["error"]["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return f": {storable(said[:_REASON_CHARS_MAX])}" if isinstance(said, str) else ""

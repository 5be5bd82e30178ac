"""What can go wrong with an endpoint that speaks HTTP as OpenAI does, said in our own words.

A foreign message may quote a key or somebody's text, so only what a rejecting endpoint says about the request goes on.
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
    """An endpoint as an operator knows it: what it is called, its model, and the settings to look at."""

    endpoint: str
    model: str
    url_setting: str
    model_setting: str
    timeout_setting: str
    key_setting: str = "OPENAI_API_KEY"
    expected: str = "an OpenAI-compatible endpoint, ending in /v1"

    def error_of(self, failure: HttpFailure, timeout_s: float) -> UpstreamError:
        """Return the error that callers know for a failed call, which was to take ``timeout_s`` at most."""
        match failure:
            case Refused():
                return self._refused(failure)
            case TimedOut():
                told = f"was silent for {timeout_s:g} s: try again, or raise {self.timeout_setting}"
                return self._error(told, 504, "upstream_timeout")
            case BrokenOff():
                return self.broke_off()
            case Unreadable():
                return self.unreadable()
            case _:
                return self._error(f"({self.url_setting}) cannot be reached", 502, "upstream_unreachable")

    def broke_off(self) -> UpstreamError:
        """Return the error for an answer that ended before its end."""
        return self._error("broke off in the middle of its answer", 502, "upstream_broke_off")

    def failed(self) -> UpstreamError:
        """Return the error for an answer that turned into an error message."""
        return self._error("reported an error in the middle of its answer", 502, "upstream_failed")

    def unreadable(self) -> UpstreamError:
        """Return the error for an answer that is not what was asked for."""
        return UpstreamError(
            f"the answer of {self.endpoint} cannot be read: is {self.url_setting} {self.expected}?",
            status=502,
            code="upstream_unreadable",
        )

    def _error(self, told: str, status: int, code: str, retry_after_s: float | None = None) -> UpstreamError:
        return UpstreamError(f"{self.endpoint} {told}", status=status, code=code, retry_after_s=retry_after_s)

    def _refused(self, refusal: Refused) -> UpstreamError:
        status = refusal.status
        if 300 <= status < 400:
            told = f"redirects to another address ({status}): set {self.url_setting} to that one"
            return self._error(told, 502, "upstream_failed")
        if status in {401, 403}:
            return self._error(f"refuses the key ({status}): check {self.key_setting}", 502, "upstream_refused_key")
        if status == 404:
            told = f"does not know {self.model_setting} = {self.model!r}, or {self.url_setting} is wrong (404)"
            return self._error(told, 502, "upstream_not_found")
        if status == 429:
            told = "limits the rate of requests (429): try again later"
            return self._error(told, 429, "rate_limit_exceeded", refusal.retry_after_s)
        if status in {408, 504}:
            return self._error(f"timed out ({status})", 504, "upstream_timeout")
        if 400 <= status < 500:
            return self._error(f"rejected the request ({status}){_reason(refusal.body)}", 400, "upstream_rejected")
        return self._error(f"fails ({status})", 502, "upstream_failed")


def _reason(body: bytes) -> str:
    """Return what an error body of OpenAI's shape says, ready to follow a message."""
    try:
        answer: Any = json.loads(body)
        said = answer["error"]["message"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return ""
    return f": {storable(said[:_REASON_CHARS_MAX])}" if isinstance(said, str) else ""

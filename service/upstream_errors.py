"""What can go wrong with an endpoint that speaks HTTP as OpenAI does, said in our own words.

A foreign message may quote a key or somebody's text, so only what a rejecting endpoint says about the request goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx2
import openai

from domain.errors import UpstreamError
from domain.reasoning import storable

_ERROR_CHARS_MAX = 300


@dataclass(frozen=True, slots=True)
class Called:
    """An endpoint as an operator knows it: what it is called, its model, and the settings to look at."""

    name: str
    model: str
    url_setting: str
    model_setting: str
    timeout_setting: str
    timeout_s: float
    key_setting: str = "OPENAI_API_KEY"
    expected: str = "an OpenAI-compatible endpoint, ending in /v1"

    def as_upstream_error(self, error: Exception) -> UpstreamError:
        """Turn what the HTTP client raised into the one error that callers know."""
        if isinstance(error, openai.APITimeoutError):
            return self.timed_out(self.timeout_s)
        if isinstance(error, openai.APIStatusError):
            return self._from_status(error)
        if isinstance(error, openai.APIConnectionError):
            return self._error(f"({self.url_setting}) cannot be reached", 502, "upstream_unreachable")
        if isinstance(error, httpx2.HTTPError):
            return self.broke_off()
        if isinstance(error, openai.APIError) and not isinstance(error, openai.APIResponseValidationError):
            return self._error("reported an error in the middle of its answer", 502, "upstream_failed")
        return self.unreadable()

    def timed_out(self, timeout_s: float) -> UpstreamError:
        """It was silent for too long."""
        told = f"was silent for {timeout_s:g} s: try again, or raise {self.timeout_setting}"
        return self._error(told, 504, "upstream_timeout")

    def broke_off(self) -> UpstreamError:
        """It left in mid-sentence."""
        return self._error("broke off in the middle of its answer", 502, "upstream_broke_off")

    def unreadable(self) -> UpstreamError:
        """It said something else than was asked for."""
        return UpstreamError(
            f"the answer of {self.name} cannot be read: is {self.url_setting} {self.expected}?",
            status=502,
            code="upstream_unreadable",
        )

    def _error(self, told: str, status: int, code: str, retry_after_s: float | None = None) -> UpstreamError:
        return UpstreamError(f"{self.name} {told}", status=status, code=code, retry_after_s=retry_after_s)

    def _from_status(self, error: openai.APIStatusError) -> UpstreamError:
        status = error.status_code
        if status in {401, 403}:
            return self._error(f"refuses the key ({status}): check {self.key_setting}", 502, "upstream_refused_key")
        if status == 404:
            told = f"does not know {self.model_setting} = {self.model!r}, or {self.url_setting} is wrong (404)"
            return self._error(told, 502, "upstream_not_found")
        if status == 429:
            told = "limits the rate of requests (429): try again later"
            return self._error(told, 429, "rate_limit_exceeded", _retry_after(error))
        if status in {408, 504}:
            return self._error(f"timed out ({status})", 504, "upstream_timeout")
        if 400 <= status < 500:
            said = error.body.get("message") if isinstance(error.body, dict) else None
            reason = f": {storable(said[:_ERROR_CHARS_MAX])}" if isinstance(said, str) else ""
            return self._error(f"rejected the request ({status}){reason}", 400, "upstream_rejected")
        return self._error(f"fails ({status})", 502, "upstream_failed")


def _retry_after(error: openai.APIStatusError) -> float | None:
    try:
        return float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None

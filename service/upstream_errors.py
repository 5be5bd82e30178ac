"""Failed calls of an OpenAI-compatible endpoint, as errors in our own words.

The endpoint's own reason is passed on to the person, cut to one line and without the key. It goes into no log: it may
quote what was sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from domain.errors import ContextExceeded, UpstreamError
from projections.http_client import BrokenOff, HttpFailure, Refused, TimedOut, Unreadable
from projections.refusal_reason import reason_in, tellable
from service.context_refusal import code_in, is_too_long, maximum_in


@dataclass(frozen=True, slots=True)
class EndpointNames:
    """An endpoint as an operator knows it: its name, its model, and the settings to check."""

    endpoint: str
    model: str
    url_setting: str
    model_setting: str
    key_setting: str = "OPENAI_API_KEY"
    key: str = field(default="", repr=False)
    expected: str = "an OpenAI-compatible endpoint, ending in /v1"

    def error_of(self, failure: HttpFailure, timeout_s: float = 0, timeout_setting: str | None = None) -> UpstreamError:
        """Return the error for a failed call whose timeout was ``timeout_s``, by ``timeout_setting`` if by any."""
        match failure:
            case Refused():
                return self._refused(failure)
            case TimedOut():
                fix = f", or raise {timeout_setting}" if timeout_setting is not None else ""
                return self._error(f"was silent for {timeout_s:g} s: try again{fix}", 504, "upstream_timeout")
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

    def failed(self, reason: str = "") -> UpstreamError:
        """Return the error for an answer that reports an error, although its status was 200."""
        if is_too_long(reason, None):
            return self._too_long(reason, maximum_in(reason))
        return self._error(f"reported an error instead of an answer{self._told(reason)}", 502, "upstream_failed")

    def said_nothing(
        self, finish_reason: str | None, *, reasoned: bool, tokens_max: int | None, extra_setting: str
    ) -> UpstreamError:
        """Return the error for an answer without any text.

        ``tokens_max`` is how long it was allowed to be, ``extra_setting`` what adds fields to such requests.
        """
        allowed = f"max_tokens = {tokens_max}" if tokens_max is not None else "the endpoint's own max_tokens"
        match finish_reason:
            case "length" if reasoned:
                why = f"all its tokens went to reasoning ({allowed}): raise max_tokens, or turn reasoning off"
                why += f" with {extra_setting}"
            case "length":
                why = f"it was cut before the first word ({allowed}): raise max_tokens"
            case "content_filter":
                why = "it was withheld by the content filter: ask in other words"
            case _ if reasoned:
                why = f"it ended after its reasoning: ask again, or turn reasoning off with {extra_setting}"
            case _:
                why = "it ended before the first word: ask again"
        # A client that asks again for what was cut would get the same; some ask twice for any 5xx.
        status = 400 if finish_reason == "length" else 502
        return self._error(f"gave an empty answer, {why}", status, "upstream_empty")

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
        status, reason = refusal.status, reason_in(refusal.body)
        told = self._told(reason)
        if 300 <= status < 400:
            message = f"redirects to another address ({status}): set {self.url_setting} to that address"
            return self._error(message, 502, "upstream_failed")
        if status in {401, 403}:
            return self._error(f"refuses the key ({status}): check {self.key_setting}", 502, "upstream_refused_key")
        if status == 429:
            message = f"limits the rate of requests (429){told}: try again later"
            return self._error(message, 429, "rate_limit_exceeded", refusal.retry_after_s)
        if is_too_long(reason, code_in(refusal.body)):
            return self._too_long(reason, maximum_in(reason, refusal.body))
        if status == 404:
            message = f"does not know {self.model_setting} = {self.model!r}, or {self.url_setting} is wrong (404){told}"
            return self._error(message, 502, "upstream_not_found")
        if status in {408, 504}:
            return self._error(f"timed out ({status})", 504, "upstream_timeout")
        if 400 <= status < 500:
            return self._error(f"rejected the request ({status}){told}", 400, "upstream_rejected")
        return self._error(f"fails ({status}){told}", 502, "upstream_failed")

    def _too_long(self, reason: str, limit_tokens: int | None) -> UpstreamError:
        takes = f"takes at most {limit_tokens} tokens in all" if limit_tokens is not None else "takes fewer tokens"
        message = f"{self.endpoint} {takes}: shorten the question, or ask for a shorter answer{self._told(reason)}"
        return ContextExceeded(message, limit_tokens=limit_tokens)

    def _told(self, reason: str) -> str:
        """Return a reason with a colon before it, or an empty string."""
        return f": {tellable(reason, self.key)}" if reason else ""

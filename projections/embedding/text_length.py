"""How much of a text is embedded, where an endpoint finds all of it too long. Pure.

Lengths are estimated tokens, since a token is one character of one script and five of another. They go down by the
powers of two that models are cut to, so that what an endpoint takes is found in a few tries, and is the same whichever
text was too long first.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.tokens import beginning, estimate_tokens

_LENGTHS = (4096, 2048, 1024, 512, 256, 128, 64, 32, 16, 8)
_LONG_TOKENS = 256


def next_length(texts: Sequence[str]) -> int | None:
    """Return the tokens to cut the one long text among ``texts`` to, None where there is none, or more than one."""
    long = [tokens for text in texts if (tokens := estimate_tokens(text)) > _LENGTHS[-1]]
    return next(length for length in _LENGTHS if length < long[0]) if len(long) == 1 else None


def perhaps_too_long(texts: Sequence[str]) -> bool:
    """Tell whether a refusal that does not name the length may be for it: hardly any model refuses shorter ones."""
    return any(estimate_tokens(text) > _LONG_TOKENS for text in texts)


def cut(text: str, tokens_max: int | None) -> str:
    """Return as much of the beginning of a text as has ``tokens_max`` tokens, all of it where that is None."""
    return text if tokens_max is None else beginning(text, tokens_max)

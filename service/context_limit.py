"""How many tokens the chat model takes in all, question and answer together, as far as anybody knows."""

from __future__ import annotations

import logging

from service.context_probe import ContextLength
from service.settings import ServiceSettings

log = logging.getLogger(__name__)

DEFAULT_TOKENS = 8192
"""What a model takes when nobody says: most self-hosted ones are served with at least this."""
_LESS = 3 / 4
_LEAST_TOKENS = 512


class ContextLimit:
    """The limit in use: LLM_CONTEXT_TOKENS, else what the endpoint said, else a default; less once it has refused."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._set = settings.llm_context_tokens
        self._at_least = settings.prompt_budget_tokens
        self._refused: int | None = None
        self.learned: ContextLength | None = None
        """What the chat endpoint says its model takes, once it has said so."""

    @property
    def known(self) -> bool:
        """Whether somebody said what the model takes."""
        return any(said is not None for said in (self._set, self.learned, self._at_least, self._refused))

    @property
    def source(self) -> str:
        """Who said what ``tokens`` is."""
        if self._refused is not None and self._refused == self.tokens:
            return "a refusal"
        if self._set is not None:
            return "LLM_CONTEXT_TOKENS"
        if self.learned is not None:
            return self.learned.source
        return "PROMPT_BUDGET_TOKENS" if self._at_least is not None else "assumed"

    @property
    def tokens(self) -> int:
        said = self.learned.tokens if self.learned is not None else None
        tokens = self._set or said or self._at_least or DEFAULT_TOKENS
        return tokens if self._refused is None else min(tokens, self._refused)

    def refused(self, limit_tokens: int | None) -> None:
        """Note that the endpoint found a prompt too long; ``limit_tokens`` is the maximum that it named."""
        before = self.tokens
        if limit_tokens is not None and limit_tokens < before:
            self._refused = max(limit_tokens, _LEAST_TOKENS)
        else:
            # Its tokenizer makes more of these texts than was estimated.
            self._refused = max(int(before * _LESS), _LEAST_TOKENS)
        log.warning(
            "the chat endpoint finds a prompt too long: from here on its model is taken to hold %d tokens, not %d",
            self._refused,
            before,
        )

"""Whether the gate, or the rerank, can be had at all.

One decision that fails is a turn's own affair, and its event says why. Several in a row mean that memory comes in
unfiltered, or unordered, from now on. That is said once, and again when it is over.
"""

from __future__ import annotations

import logging

from domain.events import Outcome

log = logging.getLogger(__name__)

FAILURES_SAID = 3
"""So many in a row are no accident."""


class DecisionStreak:
    """Counts the failures in a row of one stage of a turn, in this process."""

    def __init__(self, stage: str, instead: str) -> None:
        """``instead`` says what happens where the stage gives no decision."""
        self._stage = stage
        self._instead = instead
        self._failures = 0
        self._reason = ""

    @property
    def trouble(self) -> str | None:
        """What an operator should know; None while all is well."""
        if self._failures < FAILURES_SAID:
            return None
        return f"the {self._stage} could not be had {self._failures} times in a row, so {self._instead}: {self._reason}"

    def note(self, outcome: Outcome, reason: str | None) -> None:
        """Count a decision. ``reason`` is why there is none: it is logged, so it quotes neither a text nor a key."""
        if outcome == "skipped":
            return
        if outcome == "ok":
            if self.trouble is not None:
                log.warning("the %s decides again", self._stage)
            self._failures = 0
            return
        self._failures += 1
        self._reason = reason or "for an unknown reason"
        if self._failures == FAILURES_SAID:
            log.warning("%s", self.trouble)

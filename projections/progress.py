"""Shows the progress of a long run: a bar on a terminal, an occasional plain line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

_LINE_EVERY_S = 10.0


class Progress:
    """Counts ``unit``s up to ``total`` and reports on standard error."""

    def __init__(self, what: str, unit: str, total: int) -> None:
        self._what = what
        self._unit = unit
        self._total = total
        self._done = 0
        self._started = self._reported = time.monotonic()
        self._bar: tqdm[Any] | None = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=total, desc=what, unit=unit, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int) -> None:
        """Add ``count`` to what is done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if now - self._reported >= _LINE_EVERY_S:
            self._reported = now
            rate = self._done / (now - self._started)
            left_s = (self._total - self._done) / rate if rate else 0.0
            done = f"{self._done} of {self._total} {self._unit}s"
            sys.stderr.write(f"{self._what}: {done}, {rate:.0f}/s, {max(left_s, 0):.0f} s left\n")
            sys.stderr.flush()

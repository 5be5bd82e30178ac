"""The results of a backtest on disk: one line per question, so that an interrupted run can continue.

The file is in the user's own folder and holds ids and numbers only: erasing the user removes it, and a forgotten memory
leaves no text in it. Lines of other settings in the same file are kept; a line that a killed process did not finish is
overwritten.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import ValidationError

from domain.identity import file_name
from service.audit.replay import ReplayResult


def backtests_dir(users_dir: Path, user_id: str) -> Path:
    """Return the folder of a user's backtests."""
    return users_dir / file_name(user_id) / "backtests"


class ResultsFile:
    """The results under one key in ``path``, open for appending. Use it in a ``with`` block."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.known: dict[str, ReplayResult] = {}
        self._key = key
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._file.truncate(self._read())

    def add(self, result: ReplayResult) -> None:
        """Append one result. It survives the end of this process, though not a crash of the machine."""
        line = json.dumps({"key": self._key, "result": result.model_dump(mode="json")}, separators=(",", ":"))
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        self.known[result.question_id] = result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def _read(self) -> int:
        """Load the results under the key; return where the last complete line ends."""
        self._file.seek(0)
        whole = 0
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                found = json.loads(line)
                if found["key"] == self._key:
                    result = ReplayResult.model_validate(found["result"])
                    self.known[result.question_id] = result
            except (ValueError, KeyError, TypeError, ValidationError):
                continue  # written by another version, or not by us: its question is asked again
        return whole

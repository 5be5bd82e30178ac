"""What every format is parsed into: conversations of exchanges, and a count of what was left out.

A file is parsed completely before anything is recorded, so a bad line imports nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput
from domain.identity import check_id


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer (empty if there was none); ``ts`` is None if the source has no time."""

    user: str
    assistant: str
    ts: datetime | None = None
    summary: str | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation, oldest exchange first."""

    conversation_id: str
    exchanges: Sequence[Exchange]


@dataclass
class ParsedImport:
    """What was parsed from a source. ``skipped`` counts what was left out, by kind; ``notes`` are for people."""

    source: str
    conversations: list[Conversation] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a person or an assistant."""

    role: str
    text: str
    ts: datetime | None = None


def paired(messages: Sequence[Message], skipped: Counter[str]) -> list[Exchange]:
    """Pair questions with answers.

    Consecutive messages of one side are joined with a blank line. A last question without an answer gets an empty one;
    answers before the first question are skipped and counted.
    """
    found: list[Exchange] = []
    asked: list[Message] = []
    answered: list[Message] = []

    def close() -> None:
        if asked:
            ts = next((message.ts for message in asked if message.ts is not None), None)
            found.append(Exchange(_joined(asked), _joined(answered), ts))
        elif answered:
            skipped["answers without a question"] += len(answered)
        asked.clear()
        answered.clear()

    for message in messages:
        if message.role == "user":
            if answered:
                close()
            asked.append(message)
        else:
            answered.append(message)
    close()
    return found


def _joined(messages: Sequence[Message]) -> str:
    return "\n\n".join(message.text for message in messages)


def clean(text: str) -> str:
    """Return a text with a replacement character for each lone surrogate, which UTF-8 cannot encode."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def moment(where: str, value: Any) -> datetime | None:
    """Return a time given in seconds or ISO 8601 (UTC without an offset); None for None.

    Raises :class:`InvalidInput` that names ``where`` the value is.
    """
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        ts = datetime.fromisoformat(value)
        return ts.astimezone(UTC) if ts.tzinfo is not None else ts.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidInput(f"{where}: time", value, "give seconds since 1970 or ISO 8601") from None


def conversation_id(where: str, value: Any) -> str:
    """Return a valid id; raise :class:`InvalidInput` that names ``where`` an invalid one is."""
    return check_id(f"{where}: conversation id", value)


def json_of(path: Path) -> Any:
    """Return the JSON of a whole file; raise :class:`InvalidInput` with the line of an error."""
    try:
        return json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{path.name}, line {error.lineno}", error.msg, "give a file of JSON") from None
    except RecursionError:
        raise InvalidInput(path.name, "nested too deeply", "give a file of JSON") from None


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the place and the JSON of each line; raise :class:`InvalidInput` for a line that is not JSON."""
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if line.strip():
            where = f"{path.name}, line {number}"
            try:
                yield where, json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                raise InvalidInput(where, line, "give one JSON value on each line") from None


def text_of(path: Path) -> str:
    """Return a file's text; raise :class:`InvalidInput` if it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput("PATH", path.name, f"give a file that can be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InvalidInput("PATH", path.name, "give a file in UTF-8") from None

"""What every format is read into: conversations of exchanges, and what was left out on the way.

A file is read to its end before anything is recorded, so what is wrong in it is told with nothing half done.
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
    """A question and its answer, empty where none came; ``ts`` is None where the source knows no time."""

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
class Reading:
    """All that was read from a source. ``skipped`` counts what was left out by what it is, ``notes`` are for people."""

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

    Messages of one side in a row are one, with a blank line between. A last question without an answer is kept, with an
    empty one; an answer in front of every question has nothing to belong to and is counted.
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
    """Return a text with a replacement character for each half of a character, which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def moment(where: str, value: Any) -> datetime | None:
    """Return a time given as seconds or in ISO 8601, in UTC where it names no zone; None for none.

    Raises :class:`InvalidInput` that says ``where`` the value stands.
    """
    if value is None:
        return None
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        parsed = datetime.fromisoformat(value)
        return parsed.astimezone(UTC) if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidInput(f"{where}: time", value, "give seconds since 1970 or ISO 8601") from None


def conversation_id(where: str, value: Any) -> str:
    """Return an id; raise :class:`InvalidInput` that says ``where`` it stands when it can be none."""
    return check_id(f"{where}: conversation id", value)


def json_of(path: Path) -> Any:
    """Return the JSON of a whole file; raise :class:`InvalidInput` with the line of what is wrong."""
    try:
        return json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{path.name}, line {error.lineno}", error.msg, "give a file of JSON") from None
    except RecursionError:
        raise InvalidInput(path.name, "nested too deeply", "give a file of JSON") from None


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield where each line stands and its JSON; raise :class:`InvalidInput` for one that is none."""
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if line.strip():
            where = f"{path.name}, line {number}"
            try:
                yield where, json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                raise InvalidInput(where, line, "give one JSON value on each line") from None


def text_of(path: Path) -> str:
    """Return a file's text; raise :class:`InvalidInput` where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput("PATH", path.name, f"give a file that can be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InvalidInput("PATH", path.name, "give a file in UTF-8") from None

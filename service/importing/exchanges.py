"""What every format is parsed into: conversations of exchanges, and a count of what was left out.

A file is parsed completely before anything is recorded, so a bad line imports nothing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput, shown
from domain.identity import check_id

FIRST_YEAR, LAST_YEAR = 1990, 2099
"""Years in which a chat can have taken place. 0, -1 and the first or last day of a calendar stand for "not known"."""
_UNITS_PER_SECOND = ((1e17, 1e9), (1e14, 1e6), (1e11, 1e3))
"""From this number on, a count since 1970 is in such small units: as seconds it would lie after the year 5000."""
_DIGITS_MAX = 400
"""Such a number is infinite as a float."""
_NUMBER = re.compile(r"-?\d{9,}(\.\d+)?|-?\d{1,7}(\.\d+)?")
"""A number in a text; eight digits are a date without separators."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A question and its answer (empty if there was none); ``ts`` is None if the source has no time.

    ``source_ids`` are the source's own ids of the messages in it; empty if one of them has none.
    """

    user: str
    assistant: str
    ts: datetime | None = None
    summary: str | None = None
    source_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """One conversation, oldest exchange first."""

    conversation_id: str
    exchanges: Sequence[Exchange]


@dataclass
class ParsedImport:
    """What was parsed from a source.

    ``skipped`` counts what was left out on purpose, by kind. ``unread`` names what could not be read, with the reason.
    ``notes`` are for people.
    """

    source: str
    conversations: list[Conversation] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unread: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a person or an assistant; ``source_id`` is the source's own id of it."""

    role: str
    text: str
    ts: datetime | None = None
    source_id: str | None = None


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
            ids = [message.source_id for message in (*asked, *answered)]
            source_ids = tuple(name for name in ids if name is not None)
            complete = len(source_ids) == len(ids)
            found.append(Exchange(_joined(asked), _joined(answered), ts, source_ids=source_ids if complete else ()))
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
    """Return a time as :func:`when` does; raise :class:`InvalidInput` for what is no time at all.

    The error names ``where`` the value is.
    """
    if value is None:
        return None
    try:
        return _plausible(_time(value))
    except (TypeError, ValueError, OverflowError, OSError):
        raise InvalidInput(f"{where}: time", value, "give seconds since 1970 or ISO 8601") from None


def when(*values: Any) -> datetime | None:
    """Return the first of these times that can be read and is plausible, None if there is none.

    A time is a number since 1970 in seconds or smaller units, or ISO 8601 (UTC without an offset).
    """
    for value in values:
        try:
            time = _plausible(_time(value))
        except (TypeError, ValueError, OverflowError, OSError):
            continue
        if time is not None:
            return time
    return None


def _time(value: Any) -> datetime:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        per_second = next((units for least, units in _UNITS_PER_SECOND if abs(value) >= least), 1.0)
        return datetime.fromtimestamp(value / per_second, UTC)
    ts = datetime.fromisoformat(value.strip() if isinstance(value, str) else value)
    return ts.astimezone(UTC) if ts.tzinfo is not None else ts.replace(tzinfo=UTC)


def _plausible(ts: datetime) -> datetime | None:
    return ts if FIRST_YEAR <= ts.year <= LAST_YEAR else None


def conversation_id(where: str, value: Any) -> str:
    """Return a valid id; raise :class:`InvalidInput` that names ``where`` an invalid one is."""
    return check_id(f"{where}: conversation id", value)


def json_of(path: Path) -> Any:
    """Return the JSON of a whole file; raise :class:`InvalidInput` with the line of an error."""
    return parsed_json(path.name, read_bytes(path))


def parsed_json(name: str, content: bytes) -> Any:
    """Return the JSON of a file in UTF-8, -16 or -32; raise :class:`InvalidInput` with the line of an error."""
    try:
        return loaded(content)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{name}, line {error.lineno}", error.msg, "give a file of JSON") from None
    except UnicodeDecodeError:
        raise InvalidInput("PATH", name, "give a file in UTF-8") from None
    except RecursionError:
        raise InvalidInput(
            name, "nested too deeply", "give a file of JSON, exported as a list where there is a choice"
        ) from None


def loaded(text: str | bytes) -> Any:
    """Return the value of a JSON text; raise :class:`ValueError` or :class:`RecursionError`.

    A number of more digits than Python converts is infinite: one of them must not cost the whole file.
    """
    return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _DIGITS_MAX else float(digits)


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the place and the JSON of each line.

    In the place of a line that is not JSON stands an :class:`InvalidInput`. One is raised for a file that cannot be
    read.
    """
    for where, line in text_lines(path):
        try:
            value = loaded(line)
        except (ValueError, RecursionError):
            value = InvalidInput(where, line, "give one JSON value on each line")
        yield where, value


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each line that is not empty; raises as :func:`text_of`."""
    for number, line in enumerate(text_of(path).split("\n"), start=1):
        if line.strip():
            yield f"{path.name}, line {number}", line


def text_of(path: Path) -> str:
    """Return a file's text; raise :class:`InvalidInput` if it cannot be read or is not UTF-8."""
    try:
        return read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise InvalidInput("PATH", path.name, "give a file in UTF-8") from None


def read_bytes(path: Path) -> bytes:
    """Return a file's content; raise :class:`InvalidInput` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput("PATH", path.name, f"give a file that can be read ({error.strerror})") from None


def count_ignored(skipped: Counter[str], item: Mapping[Any, Any], read: Collection[str]) -> None:
    """Count the fields of an item that are not read, so that nobody believes they came along."""
    for key in item.keys() - set(read):
        if item[key] not in (None, "", [], {}):
            skipped[f"{shown(key)} fields"] += 1


def named(value: Any) -> str | None:
    """Return an id that a source gives as a text or a number, None where it gives none."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return clean(value) if isinstance(value, str) and value else None

"""The file layout of earlier versions: ``users/<id>/conversations/*.jsonl``, with summaries in ``meta.jsonl``.

Folder and file names were made from ids by a rule that maps several ids to one name. Lines that name their id are
separated by it; the others stay together under the file's name, which is reported.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput
from service.importing.exchanges import (
    Conversation,
    Exchange,
    ParsedImport,
    clean,
    conversation_id,
    count_ignored,
    json_lines,
    moment,
)

_META = "meta.jsonl"
_FOLDERS_SHOWN = 8
_READ = ("user", "assistant", "turn_id", "ts", "summary", "user_id", "conversation_id", "conv_id")


@dataclass
class _Summaries:
    """Summaries by conversation and turn, and the conversation ids behind each file name."""

    texts: dict[tuple[str, int], str] = field(default_factory=dict)
    ids: dict[str, set[str]] = field(default_factory=dict)


def read_old_layout(path: Path, user_id: str) -> ParsedImport:
    """Parse one user's folder, that user's folder in a storage folder, or one conversation's file.

    A file with a line that cannot be read is named in ``unread`` and the others are read; where none can be read, the
    first :class:`InvalidInput` is raised.
    """
    parsed = ParsedImport("openpersistentmemory")
    if path.is_file():
        folder, files = path.parent.parent, [path]
    else:
        folder = user_folder(path, user_id)
        files = sorted((folder / "conversations").glob("*.jsonl"))
    summaries = _summaries(folder, parsed.unread)
    owners: Counter[str] = Counter()
    errors: list[InvalidInput] = []
    for file in files:
        try:
            _read_file(file, user_id, summaries, owners, parsed)
        except InvalidInput as error:
            errors.append(error)
            parsed.unread.append(str(error))
    if errors and len(errors) == len(files):
        raise errors[0]
    for owner, lines in owners.items():
        parsed.notes.append(
            f"folder {folder.name}: {lines} lines belong to user {owner!r}, whose id led to the same name; "
            "they were left out"
        )
    return parsed


def user_folder(path: Path, user_id: str) -> Path:
    """Return a user's folder: ``path`` itself, or the folder in it that is named after the id."""
    if (path / "conversations").is_dir():
        return path
    users = path / "users" if (path / "users").is_dir() else path
    for name in (user_id, safe_name(user_id)):
        if "/" not in name and (users / name / "conversations").is_dir():
            return users / name
    there = [folder.name for folder in sorted(users.glob("*")) if (folder / "conversations").is_dir()]
    if not there:
        raise InvalidInput("PATH", str(path), "give a folder with users/<id>/conversations/*.jsonl")
    shown = ", ".join(there[:_FOLDERS_SHOWN]) + (", ..." if len(there) > _FOLDERS_SHOWN else "")
    raise InvalidInput("PATH", str(path), f"give the folder of one user in it, there are: {shown}")


def safe_name(identifier: str) -> str:
    """Return the folder or file name of an id: every unusual character became an underscore."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", identifier)


def _summaries(folder: Path, unread: list[str]) -> _Summaries:
    """Return the summaries below a folder; name in ``unread`` what cannot be read of them."""
    found = _Summaries()
    for path in sorted(folder.rglob(_META)):
        for line in _meta_lines(path):
            if isinstance(line, InvalidInput):
                unread.append(str(line))
                continue
            named = _conversation(line)
            if isinstance(named, str):
                found.ids.setdefault(safe_name(named), set()).add(named)
                text, turn_id = line.get("summary"), line.get("turn_id")
                if isinstance(text, str) and text.strip() and isinstance(turn_id, int):
                    found.texts[named, turn_id] = clean(text.strip())
    return found


def _meta_lines(path: Path) -> list[Any]:
    try:
        return [line for _, line in json_lines(path)]
    except InvalidInput as error:
        return [error]


def _conversation(line: Any) -> Any:
    if not isinstance(line, dict):
        return None
    return line.get("conversation_id") or line.get("conv_id")


def _read_file(file: Path, user_id: str, summaries: _Summaries, owners: Counter[str], parsed: ParsedImport) -> None:
    named = summaries.ids.get(file.stem, set())
    default = next(iter(named)) if len(named) == 1 else file.stem
    by_id: dict[str, list[tuple[int | None, Exchange]]] = {}
    unnamed = 0
    for where, line in json_lines(file):
        if isinstance(line, InvalidInput):
            raise line
        if not isinstance(line, dict):
            raise InvalidInput(where, type(line).__name__, "give an object with 'user' and 'assistant'")
        owner = line.get("user_id")
        if isinstance(owner, str) and owner != user_id:
            owners[owner] += 1
            continue
        own = _conversation(line)
        unnamed += own is None
        by_id.setdefault(conversation_id(where, own or default), []).append(_exchange(where, line))
        count_ignored(parsed.skipped, line, _READ)
    if len(named | set(by_id)) > 1:
        ids = ", ".join(repr(name) for name in sorted(named | (set(by_id) - {default})))
        kept = f"; {unnamed} lines that do not say which stay under {default!r}" if unnamed else ""
        parsed.notes.append(f"{file.name}: the ids {ids} led to the same name{kept}")
    for name, numbered in by_id.items():
        turns_with_number = Counter(turn_id for turn_id, _ in numbered)
        exchanges = []
        for turn_id, exchange in numbered:
            summary = summaries.texts.get((name, turn_id)) if turn_id is not None else None
            if summary is not None and turns_with_number[turn_id] > 1:
                parsed.skipped["summaries of a turn number that two turns have"] += 1
                summary = None
            exchanges.append(Exchange(exchange.user, exchange.assistant, exchange.ts, exchange.summary or summary))
        parsed.conversations.append(Conversation(name, exchanges))


def _exchange(where: str, line: dict[str, Any]) -> tuple[int | None, Exchange]:
    user, assistant, turn_id, summary = (line.get(key) for key in ("user", "assistant", "turn_id", "summary"))
    if not isinstance(user, str) or not isinstance(assistant, str):
        raise InvalidInput(where, sorted(line), "give 'user' and 'assistant' as texts")
    remembered = clean(summary.strip()) if isinstance(summary, str) and summary.strip() else None
    number = turn_id if isinstance(turn_id, int) else None
    return number, Exchange(clean(user), clean(assistant), moment(where, line.get("ts")), remembered)

"""Detect the format of a path from its content."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput
from service.importing.exchanges import json_of, text_of
from service.importing.old_layout import user_folder


class Format(StrEnum):
    """The formats that can be imported."""

    AUTO = "auto"
    OPENPERSISTENTMEMORY = "openpersistentmemory"
    OPENAI = "openai"
    CHATGPT = "chatgpt"
    EXPORT = "export"


def format_of(path: Path, user_id: str) -> Format:
    """Return the format of a path; raise :class:`InvalidInput` if it does not exist or cannot be read."""
    if not path.exists():
        raise InvalidInput("PATH", str(path), "give a file or folder that exists")
    if path.is_dir():
        conversations = sorted((user_folder(path, user_id) / "conversations").glob("*.jsonl"))
        lines = [_first_line(file) for file in conversations[:1]]
        return Format.EXPORT if lines and _is_event(lines[0]) else Format.OPENPERSISTENTMEMORY
    if path.suffix == ".jsonl":
        line = _first_line(path)
        if _is_event(line):
            return Format.EXPORT
        old = isinstance(line, dict) and {"user", "assistant"} <= set(line)
        return Format.OPENPERSISTENTMEMORY if old else Format.OPENAI
    whole = json_of(path)
    first = whole[0] if isinstance(whole, list) and whole else whole
    return Format.CHATGPT if isinstance(first, dict) and "mapping" in first else Format.OPENAI


def _is_event(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("event"), dict)


def _first_line(path: Path) -> Any:
    line = next((line for line in text_of(path).split("\n") if line.strip()), "null")
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise InvalidInput(f"{path.name}, line 1", line, "give one JSON value on each line") from None

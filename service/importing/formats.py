"""Detect the format of a path from its content."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput
from service.importing.deepseek import is_deepseek
from service.importing.documents import documents, holds_documents
from service.importing.exchanges import json_lines, read_bytes
from service.importing.librechat import messages_of
from service.importing.old_layout import user_folder
from service.importing.open_webui import history_of
from service.importing.unsupported import what_it_is, what_item_it_is


class Format(StrEnum):
    """The formats that can be imported."""

    AUTO = "auto"
    OPENPERSISTENTMEMORY = "openpersistentmemory"
    OPENAI = "openai"
    CHATGPT = "chatgpt"
    CLAUDE = "claude"
    DEEPSEEK = "deepseek"
    OPENWEBUI = "openwebui"
    LIBRECHAT = "librechat"
    MEM0 = "mem0"
    EXPORT = "export"


def format_of(path: Path, user_id: str) -> Format:
    """Return the format of a path.

    Raises :class:`InvalidInput` if it does not exist or cannot be read, or says what it looks like if it is none of
    these formats.
    """
    if not path.exists():
        raise InvalidInput("PATH", str(path), "give a file or folder that exists")
    if path.is_dir() and not holds_documents(path):
        conversations = sorted((user_folder(path, user_id) / "conversations").glob("*.jsonl"))
        lines = [_first_line(file) for file in conversations[:1]]
        return Format.EXPORT if lines and _is_event(lines[0]) else Format.OPENPERSISTENTMEMORY
    if path.suffix == ".jsonl":
        return _of_lines(path)
    unknown: InvalidInput | None = None
    for name, whole in documents(path):
        if isinstance(whole, InvalidInput):
            unknown = unknown or whole
            continue
        kind = _of_document(whole)
        if kind is not None:
            return kind
        unknown = unknown or InvalidInput("PATH", name, _like(whole))
    assert unknown is not None, "a path without documents is refused where they are read"
    raise unknown


def _of_lines(path: Path) -> Format:
    if (known := what_it_is(read_bytes(path))) is not None:
        raise InvalidInput("PATH", path.name, known)
    line = _first_line(path)
    if _is_event(line):
        return Format.EXPORT
    if isinstance(line, dict) and {"user", "assistant"} <= set(line):
        return Format.OPENPERSISTENTMEMORY
    if _of_document(line) is Format.OPENAI or not isinstance(line, dict):
        return Format.OPENAI
    raise InvalidInput("PATH", path.name, what_item_it_is(line))


def _of_document(whole: Any) -> Format | None:
    """Return the format of a JSON document, None for one that is none of them."""
    if isinstance(whole, dict) and isinstance(whole.get("results"), list):
        return Format.MEM0 if all(_is_mem0(item) for item in whole["results"][:1]) else None
    if not isinstance(whole, list | dict):
        return None
    kinds = [_of_item(item) for item in whole] if isinstance(whole, list) else [_of_item(whole)]
    exports = (kind for kind in kinds if kind not in {None, Format.OPENAI})
    return next(exports, Format.OPENAI if Format.OPENAI in kinds or not kinds else None)


def _of_item(item: Any) -> Format | None:
    if isinstance(item, list):
        return Format.OPENAI
    if not isinstance(item, dict):
        return None
    if isinstance(item.get("mapping"), dict):
        return Format.DEEPSEEK if is_deepseek(item) else Format.CHATGPT
    if isinstance(item.get("chat_messages"), list):
        return Format.CLAUDE
    if history_of(item) is not None:
        return Format.OPENWEBUI
    if messages_of(item) is not None:
        return Format.LIBRECHAT
    if _is_mem0(item):
        return Format.MEM0
    return Format.OPENAI if isinstance(item.get("messages"), list) or "role" in item else None


def _is_mem0(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("memory"), str) and "id" in item


def _like(whole: Any) -> str:
    """Return what a document looks like, by the first object in it that tells."""
    return what_item_it_is(next(_objects(whole), {}))


def _objects(whole: Any) -> Iterator[dict[str, Any]]:
    """Yield an object, or the first one in it or in the list."""
    if isinstance(whole, list):
        yield from (item for item in whole[:1] if isinstance(item, dict))
    elif isinstance(whole, dict):
        inner = [value[0] for value in whole.values() if isinstance(value, list) and value]
        yield from (item for item in inner if isinstance(item, dict) and "conversation" in item)
        yield whole


def _is_event(line: Any) -> bool:
    return isinstance(line, dict) and isinstance(line.get("event"), dict)


def _first_line(path: Path) -> Any:
    """Return the JSON of the first line that can be read; raise :class:`InvalidInput` where none can."""
    error: InvalidInput | None = None
    for _, line in json_lines(path):
        if not isinstance(line, InvalidInput):
            return line
        error = error or line
    if error is not None:
        raise error
    return None

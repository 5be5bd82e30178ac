"""Message lists as OpenAI's API takes them: one list, a list of ``{"messages": [...]}``, or one of these on each line.

An exchange without a ``ts`` gets the time of the import.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput
from service.importing.exchanges import (
    Conversation,
    Message,
    ParsedImport,
    clean,
    conversation_id,
    count_ignored,
    json_lines,
    json_of,
    moment,
    paired,
)


def read_openai(path: Path) -> ParsedImport:
    """Parse a file of message lists.

    A list that cannot be read is named in ``unread`` and the others are read; where none can be read, the first
    :class:`InvalidInput` is raised.
    """
    parsed = ParsedImport("openai")
    errors: list[InvalidInput] = []
    read = 0
    for number, (where, item) in enumerate(_items(path), start=1):
        skipped: Counter[str] = Counter()
        try:
            conversation = _conversation(where, item, f"{path.stem}-{number}", skipped)
        except InvalidInput as error:
            errors.append(error)
            parsed.unread.append(str(error))
            continue
        read += 1
        parsed.skipped += skipped
        if conversation is not None:
            parsed.conversations.append(conversation)
        else:
            parsed.skipped["conversations without a question"] += 1
    if errors and not read:
        raise errors[0]
    return parsed


def _conversation(where: str, item: Any, otherwise: str, skipped: Counter[str]) -> Conversation | None:
    """Return the conversation of a list of messages, named ``otherwise`` if it has no id; None without a question."""
    if isinstance(item, InvalidInput):
        raise item
    named: Any = None
    listed = item
    if isinstance(item, dict):
        listed, named = item.get("messages"), item.get("conversation_id") or item.get("id")
    if not isinstance(listed, list):
        raise InvalidInput(where, type(item).__name__, "give a list of messages, or an object with 'messages'")
    messages = [
        message
        for at, entry in enumerate(listed, start=1)
        if (message := _message(f"{where}, message {at}", entry, skipped)) is not None
    ]
    exchanges = paired(messages, skipped)
    if not exchanges:
        return None
    return Conversation(conversation_id(where, named if named is not None else otherwise), exchanges)


def _items(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".jsonl":
        lines = list(json_lines(path))
        if not lines:
            raise InvalidInput("PATH", path.name, "give a file with messages in it")
        yield from lines
        return
    whole = json_of(path)
    if isinstance(whole, list) and not (whole and isinstance(whole[0], dict) and "role" in whole[0]):
        for number, item in enumerate(whole, start=1):
            yield f"{path.name}, conversation {number}", item
    else:
        yield path.name, whole


def _message(where: str, entry: Any, skipped: Counter[str]) -> Message | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("role"), str):
        raise InvalidInput(where, type(entry).__name__, "give an object with 'role' and 'content'")
    role, content = entry["role"], entry.get("content")
    if role not in {"user", "assistant"}:
        skipped[f"{role} messages"] += 1
        return None
    count_ignored(skipped, entry, ("role", "content", "ts"))
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if not isinstance(parts, list):
        raise InvalidInput(f"{where}: content", content, "give a text or a list of parts")
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str):
            texts.append(text)
        else:
            skipped["images and files"] += 1
    joined = "\n".join(text for text in texts if text.strip())
    if not joined:
        skipped["messages without a text"] += 1
        return None
    return Message(role, clean(joined), moment(where, entry.get("ts")))

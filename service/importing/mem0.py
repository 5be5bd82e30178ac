"""The memories of mem0, as ``get_all`` returns them: texts that a model noted, without the exchange they came from.

Here a memory is a turn, so each becomes a statement without an answer whose summary is the same text. A statement
without an answer is something every part of this program knows, and nothing is made up: no question, no answer, and no
model writes another summary. ``imported_from`` says whose words these are.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domain.chain import digest
from domain.errors import InvalidInput
from service.importing.documents import documents, only_one_person
from service.importing.exchanges import Conversation, Exchange, ParsedImport, clean, count_ignored, named, when

CONVERSATION = "mem0"
"""The conversation that all of them go to."""
_READ = ("id", "memory", "user_id", "created_at", "updated_at", "hash")
"""The fields of a memory that are read, and its hash, which only repeats the text."""
_END = datetime.max.replace(tzinfo=UTC)


def read_mem0(path: Path) -> ParsedImport:
    """Parse what ``get_all`` returned; raise :class:`InvalidInput` for the memories of several users.

    A memory that mem0 changed is a new one here, with the time of the change: what was known before stays known.
    """
    parsed = ParsedImport("mem0")
    exchanges: list[Exchange] = []
    errors: list[InvalidInput] = []
    people: set[str | None] = set()
    for where, item in _items(path, parsed):
        try:
            people.add(named(item.get("user_id")) if isinstance(item, dict) else None)
            exchanges.append(_memory(where, item))
            count_ignored(parsed.skipped, item, _READ)
        except InvalidInput as error:
            errors.append(error)
            parsed.unread.append(str(error))
    if errors and not exchanges:
        raise errors[0]
    only_one_person(path, people)
    if exchanges:
        in_order = sorted(exchanges, key=lambda exchange: exchange.ts or _END)
        parsed.conversations.append(Conversation(CONVERSATION, in_order))
    return parsed


def _items(path: Path, parsed: ParsedImport) -> Iterator[tuple[str, Any]]:
    for name, whole in documents(path):
        listed = whole.get("results") if isinstance(whole, dict) else whole
        if not isinstance(listed, list):
            yield name, whole
            continue
        relations = whole.get("relations") if isinstance(whole, dict) else None
        parsed.skipped["relations"] += len(relations) if isinstance(relations, list) else 0
        for number, item in enumerate(listed, start=1):
            yield f"{name}, memory {number}", item


def _memory(where: str, item: Any) -> Exchange:
    if isinstance(item, InvalidInput):
        raise item
    text = item.get("memory") if isinstance(item, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InvalidInput(where, item, "give an object with a text in 'memory'")
    text = clean(text).strip()
    name = named(item.get("id"))
    ids = (name, digest(text)) if name is not None else ()
    return Exchange(text, "", when(item.get("updated_at"), item.get("created_at")), text, ids)

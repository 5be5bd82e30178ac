"""DeepSeek's export: trees like ChatGPT's, whose messages are made of fragments and name no side.

A ``REQUEST`` is the person's, a ``RESPONSE`` the assistant's; thoughts and searches stand beside them. Which branch was
shown last is not said, so the newest is imported.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput
from service.importing.branches import OTHER_BRANCHES, branch_to, newest_leaf
from service.importing.documents import conversations_of
from service.importing.exchanges import (
    Conversation,
    Message,
    ParsedImport,
    clean,
    conversation_id,
    named,
    paired,
    when,
)
from service.importing.marks import answer_of, without_marks

_SIDES = {"REQUEST": "user", "RESPONSE": "assistant"}
_CITATION = re.compile(r"[ \t]*\[citation:\d+\]")


def read_deepseek(path: Path) -> ParsedImport:
    """Parse an export: its ZIP, a folder or a file."""
    return conversations_of(path, "deepseek", _conversation)


def is_deepseek(item: dict[str, Any]) -> bool:
    """Tell whether a conversation with a ``mapping`` is DeepSeek's."""
    return "inserted_at" in item


def _conversation(where: str, item: dict[str, Any], skipped: Counter[str]) -> Conversation | None:
    mapping = item.get("mapping")
    if not isinstance(mapping, dict):
        raise InvalidInput(where, "no 'mapping'", "give the conversations.json of a DeepSeek export")
    name = conversation_id(where, item.get("id"))
    begun = when(item.get("inserted_at"), item.get("updated_at"))
    nodes = {key: node if isinstance(node, dict) else {} for key, node in mapping.items()}
    parents = {key: named(node.get("parent")) for key, node in nodes.items()}
    told = {key: message for key, node in nodes.items() if isinstance(message := node.get("message"), dict)}
    leaf = newest_leaf(parents, {key: when(message.get("inserted_at")) for key, message in told.items()})
    shown = [key for key in branch_to(where, leaf, parents) if key in told] if leaf is not None else []
    skipped[OTHER_BRANCHES] += len(told) - len(shown)
    messages: list[Message] = []
    for key in shown:
        messages += _messages(key, told[key], when(told[key].get("inserted_at")) or begun, skipped)
    exchanges = paired(messages, skipped)
    return Conversation(name, exchanges) if exchanges else None


def _messages(key: str, message: dict[str, Any], made: datetime | None, skipped: Counter[str]) -> list[Message]:
    """Return what was said in a message, by side; count anything else."""
    files, fragments = message.get("files"), message.get("fragments")
    skipped["images and files"] += len(files) if isinstance(files, list) else 0
    said: dict[str, list[str]] = {}
    for fragment in fragments if isinstance(fragments, list) else []:
        kind = fragment.get("type") if isinstance(fragment, dict) else None
        text = fragment.get("content") if isinstance(fragment, dict) else None
        if not isinstance(kind, str) or kind not in _SIDES:
            skipped["tool calls and thoughts"] += 1
        elif isinstance(text, str):
            said.setdefault(_SIDES[kind], []).append(text)
    found = []
    for role, texts in said.items():
        joined = "\n\n".join(texts)
        text = answer_of(_CITATION.sub("", joined)) if role == "assistant" else without_marks(joined)
        if text := clean(text).strip():
            found.append(Message(role, text, made, key))
    return found

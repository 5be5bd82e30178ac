"""ChatGPT's ``conversations.json``: each conversation is a tree of messages; the branch shown last is imported."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput
from service.importing.exchanges import (
    Conversation,
    Message,
    ParsedImport,
    clean,
    conversation_id,
    json_of,
    moment,
    paired,
)

_TEXT_TYPES = frozenset({"text", "multimodal_text"})


def read_chatgpt(path: Path) -> ParsedImport:
    """Parse an export's file; raise :class:`InvalidInput` that names the conversation with an error."""
    exported = json_of(path)
    parsed = ParsedImport("chatgpt")
    for number, item in enumerate(exported if isinstance(exported, list) else [exported], start=1):
        where = f"{path.name}, conversation {number}"
        if not isinstance(item, dict) or not isinstance(item.get("mapping"), dict):
            raise InvalidInput(where, "no 'mapping'", "give the conversations.json of a ChatGPT export")
        named = conversation_id(where, item.get("conversation_id") or item.get("id"))
        begun = item.get("create_time")
        messages = [
            message
            for node in _branch(where, item)
            if (message := _message(where, node.get("message"), begun, parsed.skipped)) is not None
        ]
        exchanges = paired(messages, parsed.skipped)
        if exchanges:
            parsed.conversations.append(Conversation(named, exchanges))
        else:
            parsed.skipped["conversations without a question"] += 1
    return parsed


def _branch(where: str, item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the nodes from the root to the current one."""
    mapping = item["mapping"]
    current = item.get("current_node") or _newest_leaf(mapping)
    branch: list[dict[str, Any]] = []
    seen: set[str] = set()
    while current is not None:
        node = mapping.get(current) if isinstance(current, str) else None
        if not isinstance(node, dict) or current in seen:
            raise InvalidInput(f"{where}: node", current, "name a node of 'mapping' that is not its own ancestor")
        seen.add(current)
        branch.append(node)
        current = node.get("parent")
    return branch[::-1]


def _newest_leaf(mapping: dict[str, Any]) -> str | None:
    leaves = [name for name, node in mapping.items() if isinstance(node, dict) and not node.get("children")]
    return max(leaves, key=lambda name: _created(mapping[name]), default=None)


def _created(node: dict[str, Any]) -> float:
    message = node.get("message")
    made = message.get("create_time") if isinstance(message, dict) else None
    return float(made) if isinstance(made, int | float) else 0.0


def _message(where: str, message: Any, begun: Any, skipped: Counter[str]) -> Message | None:
    """Return a message of a person or an assistant; count anything else."""
    if not isinstance(message, dict):
        return None  # the root of a tree has no message
    author, content = message.get("author"), message.get("content")
    if not isinstance(author, dict) or not isinstance(content, dict):
        raise InvalidInput(f"{where}: message", message.get("id"), "give it an author and a content")
    role, kind = author.get("role"), content.get("content_type")
    if role not in {"user", "assistant"}:
        skipped[f"{role} messages"] += 1
        return None
    if kind not in _TEXT_TYPES or message.get("recipient", "all") != "all":
        skipped["tool calls and thoughts"] += 1
        return None
    parts = content.get("parts") or []
    texts = [part for part in parts if isinstance(part, str) and part.strip()]
    skipped["images and files"] += sum(not isinstance(part, str) for part in parts)
    if not texts:
        return None
    made = message.get("create_time")
    return Message(role, clean("\n".join(texts)), moment(where, made if made is not None else begun))

"""Open WebUI's export of chats: a tree of messages by id in ``chat.history``, and ``currentId``, where it was left."""

from __future__ import annotations

from collections import Counter
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


def read_open_webui(path: Path) -> ParsedImport:
    """Parse an export; raise :class:`InvalidInput` for an administrator's export of everybody's chats."""
    return conversations_of(path, "openwebui", _conversation, lambda chat: chat.get("user_id"))


def history_of(item: dict[str, Any]) -> dict[str, Any] | None:
    """Return the tree of messages of a chat, None for an object that is no chat."""
    chat = item.get("chat", item)
    history = chat.get("history") if isinstance(chat, dict) else None
    return history if isinstance(history, dict) and isinstance(history.get("messages"), dict) else None


def _conversation(where: str, item: dict[str, Any], skipped: Counter[str]) -> Conversation | None:
    history = history_of(item)
    if history is None:
        raise InvalidInput(where, "no 'chat.history.messages'", "give the export of chats of Open WebUI")
    chat = item.get("chat", item)
    name = conversation_id(where, item.get("id") or chat.get("id"))
    begun = when(item.get("created_at"), chat.get("timestamp"), item.get("updated_at"))
    nodes = {key: node if isinstance(node, dict) else {} for key, node in history["messages"].items()}
    parents = {key: named(node.get("parentId")) for key, node in nodes.items()}
    current = history.get("currentId") or history.get("current_id")
    if not isinstance(current, str) or current not in nodes:
        current = newest_leaf(parents, {key: when(node.get("timestamp")) for key, node in nodes.items()})
    shown = branch_to(where, current, parents) if current is not None else []
    skipped[OTHER_BRANCHES] += len(nodes) - len(shown)
    messages = []
    for key in shown:
        node, role = nodes[key], nodes[key].get("role")
        if role not in ("user", "assistant"):  # a tuple, because a role need not be hashable
            skipped[f"{role} messages" if isinstance(role, str) else "messages without an author"] += 1
        elif text := _text(node, role, skipped):
            messages.append(Message(role, text, when(node.get("timestamp")) or begun, named(node.get("id")) or key))
    exchanges = paired(messages, skipped)
    return Conversation(name, exchanges) if exchanges else None


def _text(node: dict[str, Any], role: str, skipped: Counter[str]) -> str:
    content = node.get("content")
    if not content:
        content = [part for item in _objects(node.get("output")) for part in _objects(item.get("content"))
                   if item.get("type") == "message"]  # fmt: skip
    parts = [content] if isinstance(content, str) else [part.get("text") for part in _objects(content)]
    texts = [part for part in parts if isinstance(part, str)]
    files = node.get("files")
    skipped["images and files"] += len(parts) - len(texts) + (len(files) if isinstance(files, list) else 0)
    said = "\n".join(text for text in texts if text.strip())
    return clean(answer_of(said) if role == "assistant" else without_marks(said)).strip()


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

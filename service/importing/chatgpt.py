"""ChatGPT's export: each conversation is a tree of messages; the branch shown last is imported.

Newer exports are split into ``conversations-000.json`` and so on, and their nodes name their parent only.
"""

from __future__ import annotations

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

# Tuples, because what stands in an export need not be hashable.
_SIDES = ("user", "assistant")
_TEXT_TYPES = ("text", "multimodal_text", None)
_HIDDEN_TYPES = ("user_editable_context", "model_editable_context")
_HIDDEN_MARKS = ("is_visually_hidden_from_conversation", "is_user_system_message")


def read_chatgpt(path: Path) -> ParsedImport:
    """Parse an export: its ZIP, a folder or a file."""
    return conversations_of(path, "chatgpt", _conversation)


def _conversation(where: str, item: dict[str, Any], skipped: Counter[str]) -> Conversation | None:
    mapping = item.get("mapping")
    if not isinstance(mapping, dict):
        raise InvalidInput(where, "no 'mapping'", "give the conversations.json of a ChatGPT export")
    name = conversation_id(where, item.get("conversation_id") or item.get("id"))
    begun = when(item.get("create_time"), item.get("update_time"))
    nodes = {key: node if isinstance(node, dict) else {} for key, node in mapping.items()}
    shown = _branch(where, nodes, item.get("current_node"))
    skipped[OTHER_BRANCHES] += sum(_speaks(node) for key, node in nodes.items() if key not in set(shown))
    messages = [
        message for key in shown if (message := _message(key, nodes[key].get("message"), begun, skipped)) is not None
    ]
    exchanges = paired(messages, skipped)
    return Conversation(name, exchanges) if exchanges else None


def _branch(where: str, nodes: dict[str, dict[str, Any]], current: Any) -> list[str]:
    parents = {key: named(node.get("parent")) for key, node in nodes.items()}
    if not isinstance(current, str) or current not in nodes:
        current = newest_leaf(parents, {key: _made(node) for key, node in nodes.items()})
    return branch_to(where, current, parents) if current is not None else []


def _made(node: dict[str, Any]) -> datetime | None:
    message = node.get("message")
    return when(message.get("create_time")) if isinstance(message, dict) else None


def _speaks(node: dict[str, Any]) -> bool:
    message = node.get("message")
    return isinstance(message, dict) and _role(message) in _SIDES


def _role(message: dict[str, Any]) -> Any:
    author = message.get("author")
    return author.get("role") if isinstance(author, dict) else None


def _message(key: str, message: Any, begun: datetime | None, skipped: Counter[str]) -> Message | None:
    """Return a message of a person or an assistant; count anything else."""
    if not isinstance(message, dict):
        return None  # the root of a tree has no message
    role, metadata, content = _role(message), message.get("metadata"), message.get("content")
    if role not in _SIDES:
        skipped[f"{role} messages" if isinstance(role, str) else "messages without an author"] += 1
        return None
    content = content if isinstance(content, dict) else {}
    kind = content.get("content_type")
    if kind in _HIDDEN_TYPES or (isinstance(metadata, dict) and any(metadata.get(mark) for mark in _HIDDEN_MARKS)):
        skipped["hidden messages"] += 1
        return None
    if kind not in _TEXT_TYPES or message.get("recipient") not in ("all", None) or message.get("channel") == "analysis":
        skipped["tool calls and thoughts"] += 1
        return None
    text = "\n".join(_texts(content.get("parts"), skipped))
    text = clean(answer_of(text) if role == "assistant" else without_marks(text))
    if not text.strip():
        return None
    made = when(message.get("create_time"), message.get("update_time"))
    return Message(role, text, made or begun, named(message.get("id")) or key)


def _texts(parts: Any, skipped: Counter[str]) -> list[str]:
    """Return the texts among the parts of a message; what was spoken stands there with the recording."""
    texts = []
    for part in parts if isinstance(parts, list) else []:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(text, str):
            texts.append(text)
        elif part is not None:
            skipped["images and files"] += 1
    return [text for text in texts if text.strip()]

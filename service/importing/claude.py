"""Claude's export: a ZIP or its ``conversations.json``, each conversation with its ``chat_messages``.

The list is in the order of time. Where the messages name their parents, the newest branch is imported.
"""

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

_ROLES = {"human": "user", "user": "user", "assistant": "assistant"}
_NOT_SAID = ("thinking", "redacted_thinking", "tool_use", "tool_result", "token_budget")


def read_claude(path: Path) -> ParsedImport:
    """Parse an export: its ZIP, a folder or a file; raise :class:`InvalidInput` for one of several accounts."""
    return conversations_of(path, "claude", _conversation, _account)


def _account(item: dict[str, Any]) -> Any:
    account = item.get("account")
    return account.get("uuid") if isinstance(account, dict) else None


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _conversation(where: str, item: dict[str, Any], skipped: Counter[str]) -> Conversation | None:
    listed = item.get("chat_messages")
    if not isinstance(listed, list):
        raise InvalidInput(where, "no 'chat_messages'", "give the conversations.json of a Claude export")
    name = conversation_id(where, item.get("uuid") or item.get("id"))
    begun = when(item.get("created_at"), item.get("updated_at"))
    entries = [entry for entry in listed if isinstance(entry, dict)]
    skipped["messages that are no objects"] += len(listed) - len(entries)
    messages = []
    for entry in _shown(where, entries, item.get("current_leaf_message_uuid"), skipped):
        role = _ROLES.get(str(entry.get("sender")).lower())
        if role is None:
            skipped["messages of neither side"] += 1
        elif text := _text(entry, role, skipped):
            messages.append(Message(role, text, when(entry.get("created_at")) or begun, named(entry.get("uuid"))))
    exchanges = paired(messages, skipped)
    return Conversation(name, exchanges) if exchanges else None


def _shown(where: str, entries: list[dict[str, Any]], leaf: Any, skipped: Counter[str]) -> list[dict[str, Any]]:
    by_id = {name: entry for entry in entries if (name := named(entry.get("uuid"))) is not None}
    parents = {name: named(entry.get("parent_message_uuid")) for name, entry in by_id.items()}
    # The parent of a first message is an id of zeros, which no message has.
    parents = {name: parent if parent in by_id else None for name, parent in parents.items()}
    if len(by_id) < len(entries) or not any(parents.values()):
        return entries
    if not isinstance(leaf, str) or leaf not in by_id:
        leaf = newest_leaf(parents, {name: when(entry.get("created_at")) for name, entry in by_id.items()})
    if leaf is None:
        raise InvalidInput(where, "no last message", "give messages that are not their own ancestors")
    branch = branch_to(where, leaf, parents)
    skipped[OTHER_BRANCHES] += len(entries) - len(branch)
    return [by_id[name] for name in branch]


def _text(entry: dict[str, Any], role: str, skipped: Counter[str]) -> str:
    """Return what was said in a message: its blocks of text, or the text of messages that have no blocks.

    ``text`` beside blocks holds placeholders for tools. A long paste becomes an attachment of a message without text.
    """
    texts = []
    blocks = [block for block in _listed(entry.get("content")) if isinstance(block, dict)]
    for block in blocks:
        if block.get("type") in _NOT_SAID:
            skipped["tool calls and thoughts"] += 1
        elif isinstance(block.get("text"), str):
            texts.append(block["text"])
    if not texts and not any(block.get("type") in _NOT_SAID for block in blocks) and isinstance(entry.get("text"), str):
        texts.append(entry["text"])
    attached = [item for key in ("attachments", "files") for item in _listed(entry.get(key)) if isinstance(item, dict)]
    said = "\n".join(text for text in texts if text.strip())
    if not said and role == "user":
        said = "\n".join(
            item["extracted_content"] for item in attached if isinstance(item.get("extracted_content"), str)
        )
    else:
        skipped["images and files"] += len(attached)
    return clean(answer_of(said) if role == "assistant" else without_marks(said)).strip()

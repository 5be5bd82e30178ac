"""LibreChat's export of a conversation, as a tree (``messagesTree``) or a list of messages.

With all branches in it, an export does not say which one was shown. LibreChat opens a conversation at the last of
several answers, so that is the one that is imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from domain.errors import InvalidInput
from service.importing.branches import OTHER_BRANCHES
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
from service.importing.marks import answer_of, unescaped, without_marks


def read_librechat(path: Path) -> ParsedImport:
    """Parse exports of conversations: a file, or a folder of them."""
    return conversations_of(path, "librechat", _conversation)


def messages_of(item: dict[str, Any]) -> list[Any] | None:
    """Return the messages of an exported conversation, None for an object that is none."""
    listed = item.get("messagesTree") or item.get("messages")
    return listed if "conversationId" in item and isinstance(listed, list) else None


def _conversation(where: str, item: dict[str, Any], skipped: Counter[str]) -> Conversation | None:
    listed = messages_of(item)
    if listed is None:
        raise InvalidInput(where, "no 'messages'", "give a conversation that LibreChat exported as JSON")
    name = conversation_id(where, item.get("conversationId"))
    entries = list(_flat(listed, None))
    shown = entries if item.get("branches") is False and "messagesTree" not in item else _shown(entries)
    skipped[OTHER_BRANCHES] += len(entries) - len(shown)
    messages = []
    for entry in shown:
        role = "user" if entry.get("isCreatedByUser") is True else "assistant"
        if entry.get("error") is True:
            skipped["error messages"] += 1
        elif text := _text(entry, role, skipped):
            messages.append(Message(role, text, when(entry.get("createdAt")), named(entry.get("messageId"))))
    exchanges = paired(messages, skipped)
    return Conversation(name, exchanges) if exchanges else None


def _flat(listed: list[Any], parent: str | None) -> Iterator[dict[str, Any]]:
    """Yield the messages of a tree or list with the parents that the tree gives them."""
    waiting = [(entry, parent) for entry in reversed(listed)]
    while waiting:
        entry, above = waiting.pop()
        if not isinstance(entry, dict):
            continue
        yield entry if above is None else {**entry, "parentMessageId": above}
        children = entry.get("children")
        if isinstance(children, list):
            waiting += [(child, named(entry.get("messageId"))) for child in reversed(children)]


def _shown(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the branch that ends in the last of several answers each time."""
    ids = {named(entry.get("messageId")) for entry in entries} - {None}
    last: dict[str | None, dict[str, Any]] = {}
    for entry in entries:
        parent = named(entry.get("parentMessageId"))
        last[parent if parent in ids else None] = entry
    if len(last) == 1:
        return entries  # no message names another: a list in the order of the conversation
    branch: list[dict[str, Any]] = []
    current = last.get(None)
    while current is not None and len(branch) < len(entries):
        branch.append(current)
        name = named(current.get("messageId"))
        current = last.get(name) if name is not None else None
    return branch


def _text(entry: dict[str, Any], role: str, skipped: Counter[str]) -> str:
    texts = []
    content = entry.get("content")
    for part in content if isinstance(content, list) else []:
        text = part.get("text") if isinstance(part, dict) else None
        text = text.get("value") if isinstance(text, dict) else text
        if isinstance(part, dict) and part.get("type") == "text" and isinstance(text, str):
            texts.append(text)
        elif part is not None:
            skipped["tool calls and thoughts"] += 1
    if not texts and isinstance(entry.get("text"), str):
        texts.append(entry["text"])
    files = entry.get("files")
    skipped["images and files"] += len(files) if isinstance(files, list) else 0
    said = "\n".join(text for text in texts if text.strip())
    return clean(answer_of(unescaped(said)) if role == "assistant" else without_marks(said)).strip()

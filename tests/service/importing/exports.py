"""Exports as the programs of others write them, made of invented texts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

NOON = datetime(2023, 5, 4, 12, 0, tzinfo=UTC)
BEGUN = NOON - timedelta(days=1)


def written(path: Path, content: Any) -> Path:
    """Write a JSON value, or a list of lines when the name ends in .jsonl."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = content if path.suffix == ".jsonl" else [content]
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def zipped(path: Path, members: Mapping[str, Any]) -> Path:
    """Write a ZIP of JSON values and texts by name."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content if isinstance(content, str) else json.dumps(content))
    return path


def node(name: str, parent: str | None, role: str = "", text: Any = "", **more: Any) -> dict[str, Any]:
    """A node of a ChatGPT conversation; without a role it is a root, which has no message."""
    parts = text if isinstance(text, list) else [text]
    content = {"content_type": more.pop("kind", "text"), "parts": parts}
    message = {"id": name, "author": {"role": role}, "content": content, "create_time": more.pop("at", None), **more}
    return {"id": name, "parent": parent, "children": [], "message": message if role else None}


def tree(*nodes: dict[str, Any], current: str | None, **more: Any) -> dict[str, Any]:
    """A ChatGPT conversation."""
    mapping = {item["id"]: item for item in nodes}
    conversation = {"id": "conv-1", "title": "Trip", "create_time": BEGUN.timestamp(), "mapping": mapping}
    return {**conversation, "current_node": current, **more}


def chatgpt(name: str, *said: str, answer_ids: Mapping[int, str] | None = None, **more: Any) -> dict[str, Any]:
    """A ChatGPT conversation of questions and answers in turn, its message ids being those of their places."""
    nodes, parent = [node("client-created-root", None)], "client-created-root"
    for number, text in enumerate(said):
        at = (NOON + timedelta(minutes=number)).timestamp()
        place = (answer_ids or {}).get(number, f"{name}-{number}")
        nodes.append(node(place, parent, "assistant" if number % 2 else "user", text, at=at))
        parent = place
    return tree(*nodes, current=parent, **{"id": name, "conversation_id": name, "title": f"About {name}", **more})


def claude(name: str, *said: str, **more: Any) -> dict[str, Any]:
    """A conversation of Claude, questions and answers in turn."""
    messages = [
        {
            "uuid": f"{name}-{number}",
            "sender": "assistant" if number % 2 else "human",
            "text": text,
            "content": [{"type": "text", "text": text}],
            "created_at": (NOON + timedelta(minutes=number)).isoformat(),
            "attachments": [],
            "files": [],
        }
        for number, text in enumerate(said)
    ]
    account = {"uuid": "account-1"}
    return {"uuid": name, "name": f"About {name}", "account": account, "chat_messages": messages, **more}


def deepseek(name: str, *said: str, **more: Any) -> dict[str, Any]:
    """A conversation of DeepSeek, questions and answers in turn."""
    mapping: dict[str, Any] = {"root": {"id": "root", "parent": None, "children": [f"{name}-0"], "message": None}}
    for number, text in enumerate(said):
        message = {
            "files": [],
            "model": "deepseek-chat",
            "inserted_at": (NOON + timedelta(minutes=number)).isoformat(),
            "fragments": [{"id": 1, "type": "RESPONSE" if number % 2 else "REQUEST", "content": text}],
        }
        parent = f"{name}-{number - 1}" if number else "root"
        place = f"{name}-{number}"
        mapping[place] = {"id": place, "parent": parent, "children": [f"{name}-{number + 1}"], "message": message}
    begun = BEGUN.isoformat()
    return {"id": name, "title": f"About {name}", "inserted_at": begun, "updated_at": begun, "mapping": mapping, **more}


def open_webui(name: str, *said: str, **more: Any) -> dict[str, Any]:
    """A chat of Open WebUI, questions and answers in turn."""
    messages = {
        f"{name}-{number}": {
            "id": f"{name}-{number}",
            "parentId": f"{name}-{number - 1}" if number else None,
            "childrenIds": [f"{name}-{number + 1}"] if number + 1 < len(said) else [],
            "role": "assistant" if number % 2 else "user",
            "content": text,
            "timestamp": int(NOON.timestamp()) + number,
        }
        for number, text in enumerate(said)
    }
    history = {"messages": messages, "currentId": f"{name}-{len(said) - 1}"}
    chat = {"title": f"About {name}", "models": ["m"], "history": history}
    return {"id": name, "user_id": "u1", "title": f"About {name}", "chat": chat, "archived": False, **more}


def librechat(name: str, *said: str, **more: Any) -> dict[str, Any]:
    """A conversation of LibreChat, exported as a list with all branches."""
    root = "00000000-0000-0000-0000-000000000000"
    messages = [
        {
            "messageId": f"{name}-{number}",
            "parentMessageId": f"{name}-{number - 1}" if number else root,
            "isCreatedByUser": number % 2 == 0,
            "sender": "GPT-4" if number % 2 else "User",
            "text": text,
            "createdAt": (NOON + timedelta(minutes=number)).isoformat().replace("+00:00", "Z"),
        }
        for number, text in enumerate(said)
    ]
    head = {"conversationId": name, "endpoint": "openAI", "title": f"About {name}", "branches": True}
    return {**head, "recursive": False, "messages": messages, **more}


def mem0(name: str, text: str, **more: Any) -> dict[str, Any]:
    """A memory of mem0."""
    created = NOON.isoformat()
    return {"id": name, "memory": text, "hash": "h", "metadata": None, "user_id": "ann", "created_at": created, **more}

"""Name what cannot be imported by what it looks like, so that a person knows what to give instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

READABLE = (
    "what can be read: exports of ChatGPT, Claude, DeepSeek, Open WebUI and LibreChat, mem0's get_all, OpenAI "
    "messages, and the output of `opm export`"
)
_KEYS_SHOWN = 6
_KEY_CHARS_SHOWN = 40


def what_it_is(content: bytes) -> str | None:
    """Return what a file is that holds no JSON, None for one that may hold some."""
    begins = content[:2048].lstrip(b"\xef\xbb\xbf \t\r\n")
    if begins.startswith(b"SQLite format 3"):
        return _looks("a SQLite database (Open WebUI's webui.db?): export the chats as JSON in the program itself")
    if begins.startswith(b"PK\x03\x04"):
        return _looks("a damaged ZIP: download it again")
    if begins.startswith((b"\x1f\x8b", b"%PDF", b"7z\xbc\xaf", b"Rar!")):
        return _looks("a PDF or a compressed file: unpack it, or export JSON")
    if begins[:1] == b"<":
        return _looks("a web page (ChatGPT's chat.html?): give the ZIP or the conversations.json beside it")
    if begins.startswith((b"{'", b"[{'")):
        return _looks("what Python prints of a value: write it with json.dump")
    if begins[:1] not in {b"{", b"[", b'"', b""} and b"\x00" not in begins[:4] and not begins.startswith(_UTF16_MARKS):
        return _looks("a text file (Markdown, CSV or a log): export JSON")
    return None


def what_item_it_is(item: Mapping[str, Any]) -> str:
    """Return what an object of JSON looks like that no format of ours fits."""
    for named, fits in _ITEMS:
        if all(key in item for key in fits):
            return _looks(named)
    keys = ", ".join(key[:_KEY_CHARS_SHOWN] for key in list(item)[:_KEYS_SHOWN])
    return f"this looks like nothing that is known here (an object with {keys or 'no keys'}); {READABLE}"


def _looks(like: str) -> str:
    named, _, hint = like.partition(": ")
    return f"this looks like {named}; not supported: {hint or READABLE}"


_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_ITEMS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a SillyTavern chat file (JSONL)", ("chat_metadata",)),
    ("a SillyTavern chat file (JSONL)", ("character_name", "user_name")),
    ("a SillyTavern chat file (JSONL)", ("mes", "is_user")),
    ("a chat of text-generation-webui", ("internal", "visible")),
    ("a Grok export", ("conversation", "responses")),
    ("a Gemini export (Google Takeout)", ("header", "titleUrl")),
    ("a Gemini export (Google Takeout)", ("header", "products")),
    ("a Chatbot UI export", ("history", "folders")),
    ("a session of Claude Code (JSONL)", ("sessionId", "type")),
    ("a session of Codex (JSONL)", ("type", "payload")),
    ("the account data of an export: give the ZIP, or its conversations.json", ("email",)),
    ("the account data of an export: give the ZIP, or its conversations.json", ("email_address",)),
    ("the projects of a Claude export: give the ZIP, or its conversations.json", ("prompt_template",)),
    (
        "the list of shared conversations of a ChatGPT export: give the ZIP, or its conversations.json",
        ("is_anonymous",),
    ),
)
"""What an object looks like by its keys; the first that fits counts."""

"""What a client sends of a conversation itself: messages of the wire, their texts, and the turns that they make. Pure.

The bytes of images, recordings and files go to the chat model and nowhere else. What is kept says of each its media
type, its size and its SHA-256, and hashes of prompts are taken of that form.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from domain.asked_text import asked_text
from domain.memory import Memory, exchange_text

Message = dict[str, Any]

SYSTEM_ROLES = frozenset({"system", "developer"})
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[^,]{0,200},", re.ASCII)
_DESCRIPTION = re.compile(r"(?:[\w.+/-]+, )?\d+ bytes, sha256 [0-9a-f]{64}", re.ASCII)
_BASE64_FIELDS = frozenset({"data", "file_data"})
"""Where the parts of a message hold bytes as bare base64."""
_KINDS = {"image_url": "image", "input_audio": "audio", "file": "file", "video_url": "video", "audio_url": "audio"}
_UNSAID = re.compile(r"<(think|thinking|details)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
"""What clients take out of an answer, or put into it, when they send it again."""
_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class ClientTurn:
    """A person's message as a client sent it, and all messages up to the next one.

    ``memory`` is the recorded turn of that exchange, None where there is none. ``exact`` tells that the client sent the
    very texts that are recorded.
    """

    messages: tuple[Message, ...]
    memory: Memory | None = None
    exact: bool = field(default=False)

    @property
    def memory_id(self) -> str:
        """The id of the recorded turn; empty where there is none."""
        return self.memory.memory_id if self.memory is not None else ""

    @cached_property
    def user(self) -> str:
        """What the person said. A frontend may put a template around it, and another or none when it sends it again."""
        return asked_text("\n".join(text_of(message) for message in self.messages if message.get("role") == "user"))

    @cached_property
    def assistant(self) -> str:
        """The last text of the assistant: the one before may only announce the use of a tool."""
        said = [text_of(message) for message in self.messages if message.get("role") == "assistant"]
        return next((text for text in reversed(said) if text.strip()), "")

    @cached_property
    def words(self) -> str:
        """The exchange with whitespace normalised, to compare word for word."""
        return " ".join(exchange_text(self.user, self.assistant).split())

    @cached_property
    def key(self) -> str:
        return exchange_key(self.user, self.assistant)

    def is_exchange(self, user: str, assistant: str) -> bool:
        """Tell whether these messages are the two that a turn with these texts makes."""
        return list(self.messages) == exchange_messages(user, assistant)


WindowTurn = Memory | ClientTurn
"""A turn of the recent window: from the ledger, or as the client sent it."""


def exchange_messages(user: str, assistant: str) -> list[Message]:
    """Return the two messages of a turn."""
    return [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]


def turns_of(messages: Sequence[Message]) -> list[ClientTurn]:
    """Return the turns that messages make, oldest first. What comes before the first of a person is one of its own."""
    made: list[list[Message]] = []
    for message in messages:
        if message.get("role") == "user" or not made:
            made.append([message])
        else:
            made[-1].append(message)
    return [ClientTurn(tuple(turn)) for turn in made]


def exchange_key(user: str, assistant: str) -> str:
    """Return what stands for an exchange, whatever a client does to its whitespace, its markdown and its case."""
    return hashlib.sha256(f"{spoken(user)}\0{spoken(assistant)}".encode()).hexdigest()[:32]


def spoken(text: str) -> str:
    """Return the letters and digits of a text, or the text where it has none."""
    said = unicodedata.normalize("NFKC", _UNSAID.sub("", text)).casefold()
    return _NO_WORD.sub("", said) or "".join(said.split())


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message; a part of another kind is said in brackets."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "\n".join(filter(None, map(_part_text, content)))


def beginning_with(text: str, message: Message) -> Message:
    """Return a message with a text before all that it says."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [{"type": "text", "text": text}, *content]}
    return {**message, "content": f"{text}{content or ''}"}


def ending_with(message: Message, text: str) -> Message:
    """Return a message with a text after all that it says."""
    content = message.get("content")
    if isinstance(content, list):
        return {**message, "content": [*content, {"type": "text", "text": text}]}
    return {**message, "content": f"{content or ''}{text}"}


def without_bytes(messages: Sequence[Message]) -> list[Message]:
    """Return messages in which each image, recording or file is said by type, size and SHA-256."""
    return [_without_bytes(message) if isinstance(message.get("content"), list) else message for message in messages]


def said_again(messages: Sequence[Message]) -> list[Message]:
    """Return messages as they can be sent again from the record: a part of which the bytes are gone is said in words.

    These messages are as :func:`without_bytes` returns them.
    """
    return [
        {**message, "content": [_in_words(part) if _is_lost(part) else part for part in message["content"]]}
        if isinstance(message.get("content"), list)
        else message
        for message in messages
    ]


def _is_lost(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_lost, value.values()))
    return isinstance(value, str) and bool(_DESCRIPTION.fullmatch(value))


def _in_words(part: Any) -> Message:
    return {"type": "text", "text": _part_text(part)}


def _without_bytes(message: Message) -> Message:
    return {**message, "content": [_described(part) for part in message["content"]]}


def _described(value: Any, name: str = "") -> Any:
    """Return a part of a message with a description in place of bytes."""
    if isinstance(value, dict):
        return {key: _described(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [_described(item) for item in value]
    if isinstance(value, str) and (_DATA_URL.match(value) or name in _BASE64_FIELDS):
        return description(value)
    return value


def description(data: str) -> str:
    """Return what is kept of a data URL or of bare base64: ``image/png, 20481 bytes, sha256 1f3a…``.

    What is such a text already stays as it is.
    """
    if _DESCRIPTION.fullmatch(data):
        return data
    url = _DATA_URL.match(data)
    encoded = data[url.end() :] if url else data
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        content = encoded.encode("utf-8", "surrogatepass")
    kind = f"{url.group(1) or 'text/plain'}, " if url else ""
    return f"{kind}{len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}"


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return ""
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text") or (kind is None and "text" in part):
        text = part.get("text")
        return text if isinstance(text, str) else ""
    if kind == "refusal":
        return part["refusal"] if isinstance(part.get("refusal"), str) else ""
    held = part.get(str(kind))
    source = held if isinstance(held, str) else next(_sources(held), "") if isinstance(held, dict) else ""
    said = [_KINDS.get(str(kind), str(kind))]
    if isinstance(held, dict) and isinstance(held.get("filename"), str):
        said.append(held["filename"])
    if source:
        is_bytes = _DATA_URL.match(source) or not source.startswith(("http://", "https://", "file-"))
        said.append(description(source) if is_bytes else source)
    return f"[{': '.join((said[0], ', '.join(said[1:]))) if said[1:] else said[0]}]"


def _sources(held: Mapping[str, Any]) -> Any:
    return (held[name] for name in ("url", "data", "file_data", "file_id") if isinstance(held.get(name), str))

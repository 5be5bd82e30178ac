"""User and conversation ids: what is accepted, and the file name that stands for one.

An id is the client's own text (an e-mail address, a name in Chinese, a path). It is kept as it is; only what cannot be
stored or would be invisible is refused. File names must be *injective*: two ids never share one, even on a file system
that folds case or normalises Unicode. And a file name must stay in its folder. So each UTF-8 byte outside ``a-z 0-9 _
-`` is written as ``%xx``. A name that would be too long keeps its beginning, followed by ``~`` and the id's SHA-256;
short names never contain ``~``, so the two kinds cannot collide.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from domain.errors import InvalidInput

DEFAULT_USER = "anonymous"
DEFAULT_CONVERSATION = "default"
SYSTEM_ID = ""
"""The id of the system stream. Clients cannot send it, because an empty id is refused."""
ERASED_PREFIX = "erased:"
"""The prefix of ids that an erasure puts in place of a person's. Clients cannot send such an id."""

ID_CHARS_MAX = 16_384
_FILE_NAME_CHARS_MAX = 150
_KEPT_CHARS = 64
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")


@dataclass(frozen=True, slots=True)
class StreamId:
    """One conversation of one user. Versions count within a stream."""

    user_id: str
    conversation_id: str


SYSTEM_STREAM = StreamId(SYSTEM_ID, SYSTEM_ID)


def user_stream(user_id: str) -> StreamId:
    """Return the stream of events about a user as a whole, outside every conversation."""
    return StreamId(user_id, SYSTEM_ID)


def check_id(field: str, value: object) -> str:
    """Return ``value`` if it is a valid id; otherwise raise :class:`InvalidInput`, which names ``field``."""
    if not isinstance(value, str):
        raise InvalidInput(field, value, "send a string")
    if not value.strip():
        raise InvalidInput(field, value, "send at least one visible character, or leave the field out")
    if len(value) > ID_CHARS_MAX:
        raise InvalidInput(field, f"{len(value)} characters", f"send at most {ID_CHARS_MAX} characters")
    if value.startswith(ERASED_PREFIX):
        raise InvalidInput(field, value, f"choose one that does not begin with {ERASED_PREFIX!r}: that marks erasures")
    for char in value:
        if unicodedata.category(char) in {"Cc", "Cs"}:
            raise InvalidInput(field, value, f"remove the control character U+{ord(char):04X}")
    return value


def file_name(identifier: str) -> str:
    """Return the file name, without extension, that stands for an id: ASCII, at most 150 characters."""
    data = identifier.encode("utf-8")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in data)
    if len(name) <= _FILE_NAME_CHARS_MAX:
        return name
    return f"{name[:_KEPT_CHARS]}~{hashlib.sha256(data).hexdigest()}"

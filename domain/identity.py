"""User and conversation ids: what is accepted, and the file name that stands for one.

An id is the client's own text (an e-mail address, a name in Chinese, a path), so it is kept as it is, and only
what could not be stored or would be invisible is refused. A file name must be *injective* (two ids never share
one, not even on a file system that folds case or normalises Unicode) and must not leave its folder: everything
but ``a-z 0-9 _ -`` is written as ``%XX`` per UTF-8 byte, and a name that would grow too long keeps its beginning
and ends in ``~`` and the id's SHA-256. ``~`` is never the result of the first rule, so the two cannot meet.
"""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass

from domain.errors import InvalidInput

DEFAULT_USER = "anonymous"
DEFAULT_CONVERSATION = "default"
SYSTEM_ID = ""
"""The id of the system stream; no client can send it, since an empty id is refused."""
ERASED_PREFIX = "erased:"
"""What ids begin with that an erasure has put in the place of a person's; no client can send such a one."""

ID_CHARS_MAX = 16_384
_FILE_NAME_CHARS_MAX = 150
_KEPT_CHARS = 64
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")


@dataclass(frozen=True, slots=True)
class StreamId:
    """One conversation of one user: the unit in which versions count."""

    user_id: str
    conversation_id: str


SYSTEM_STREAM = StreamId(SYSTEM_ID, SYSTEM_ID)


def user_stream(user_id: str) -> StreamId:
    """The stream of what concerns a user as a whole, and none of the conversations."""
    return StreamId(user_id, SYSTEM_ID)


def check_id(field: str, value: object) -> str:
    """Return ``value`` if it can serve as an id; raise :class:`InvalidInput` that names ``field`` if not."""
    if not isinstance(value, str):
        raise InvalidInput(field, value, "send a string")
    if not value.strip():
        raise InvalidInput(field, value, "send at least one visible character, or leave the field out")
    if len(value) > ID_CHARS_MAX:
        raise InvalidInput(field, f"{len(value)} characters", f"send at most {ID_CHARS_MAX} characters")
    if value.startswith(ERASED_PREFIX):
        raise InvalidInput(field, value, f"choose one that does not begin with {ERASED_PREFIX!r}, which marks erasures")
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

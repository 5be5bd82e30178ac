"""User and conversation ids: what is accepted, and the file name that stands for one.

An id is the client's own text (an e-mail address, a name in Chinese, a path). Two ids that look alike must not be two
people: "é" may be one character or two, so an id is kept in Unicode's composed form (NFC) and without blanks around it,
and one with an invisible character is refused. Earlier versions kept every spelling. What they recorded stays
reachable, by exactly that spelling.

File names must be *injective*: two ids never share one, even on a file system
that folds case or normalises Unicode. And a file name must stay in its folder. So each UTF-8 byte outside ``a-z 0-9 _
-`` is written as ``%xx``. A name that would be too long keeps its beginning, followed by ``~`` and the id's SHA-256;
short names never contain ``~``, so the two kinds cannot collide.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
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
_UNSEEN = frozenset(
    map(
        chr,
        (
            *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
            *range(0x180B, 0x1810),
            *range(0xFE00, 0xFE10),
            *range(0xE0000, 0xE1000),
        ),
    )
)
"""Letters, marks and symbols that show nothing: joiners, fillers, the empty Braille pattern, variation selectors."""
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


def nothing_kept(_spelling: str) -> bool:
    """Stand for a ledger in which no id has a spelling of an earlier version."""
    return False


def check_id(field: str, value: object, kept: Callable[[str], bool] = nothing_kept) -> str:
    """Return the id that ``value`` means; otherwise raise :class:`InvalidInput`, which names ``field``.

    ``kept`` tells whether the ledger holds an id in exactly this spelling. It is asked only about a spelling that no
    new id can have.
    """
    if not isinstance(value, str):
        raise InvalidInput(field, value, "send a string")
    # Composing is the longer work of the two, and it can lengthen a text.
    identifier = unicodedata.normalize("NFC", value.strip()) if len(value) <= ID_CHARS_MAX else value
    if len(identifier) > ID_CHARS_MAX:
        raise InvalidInput(field, f"{len(identifier)} characters", f"send at most {ID_CHARS_MAX} characters")
    if not identifier:
        raise InvalidInput(field, value, "send at least one visible character, or leave the field out")
    if identifier.startswith(ERASED_PREFIX):
        raise InvalidInput(field, value, f"choose one that does not begin with {ERASED_PREFIX!r}: that marks erasures")
    for char in value.strip():
        if unicodedata.category(char) in {"Cc", "Cs"}:
            raise InvalidInput(field, value, f"it contains {_name(char)}: remove this control character")
    if identifier != value or (not identifier.isascii() and any(map(_is_unseen, identifier))):
        if value.strip() and kept(value):
            return value
        for char in identifier:
            if _is_unseen(char):
                fix = "write a plain space" if unicodedata.category(char) == "Zs" else "remove it"
                raise InvalidInput(field, value, f"it contains {_name(char)}, which cannot be seen: {fix}")
    return identifier


def _is_unseen(char: str) -> bool:
    """Tell whether a character shows nothing, or the same as a plain space."""
    return char != " " and (unicodedata.category(char) in {"Cf", "Zs", "Zl", "Zp"} or char in _UNSEEN)


def _name(char: str) -> str:
    """Return a character as Unicode's charts name it: ``U+200B ZERO WIDTH SPACE``."""
    return " ".join((f"U+{ord(char):04X}", unicodedata.name(char, ""))).strip()


def file_name(identifier: str) -> str:
    """Return the file name, without extension, that stands for an id: ASCII, at most 150 characters."""
    data = identifier.encode("utf-8")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02x}" for byte in data)
    if len(name) <= _FILE_NAME_CHARS_MAX:
        return name
    return f"{name[:_KEPT_CHARS]}~{hashlib.sha256(data).hexdigest()}"

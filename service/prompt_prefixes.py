"""How much of a prompt is the beginning of the one before in its conversation, which a caching endpoint need not read.

Only hashes of the last prompts are kept, and only in this process.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

from domain.chain import canonical
from domain.client_messages import Message, without_bytes
from domain.identity import StreamId

_PIECE_CHARS = 256
_CONVERSATIONS_MAX = 1_000


class PromptPrefixes:
    """Compares each prompt with the one before. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: OrderedDict[StreamId, list[bytes]] = OrderedDict()

    def shared(self, stream: StreamId, messages: Sequence[Message], tokens: int) -> int | None:
        """Return about how many of a prompt's tokens it begins with as the one before; None where none is known."""
        text = canonical(without_bytes(messages)).encode()
        pieces = [
            hashlib.blake2b(text[at : at + _PIECE_CHARS], digest_size=8).digest()
            for at in range(0, len(text), _PIECE_CHARS)
        ]
        with self._lock:
            before = self._last.pop(stream, None)
            self._last[stream] = pieces
            if len(self._last) > _CONVERSATIONS_MAX:
                self._last.popitem(last=False)
        if before is None:
            return None
        same = next((at for at, (one, other) in enumerate(zip(pieces, before, strict=False)) if one != other), None)
        shared = min(len(pieces), len(before)) if same is None else same
        return tokens * min(shared * _PIECE_CHARS, len(text)) // max(len(text), 1)

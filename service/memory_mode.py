"""What a request does with memory: recall and record (on), recall only (read), record only (write), neither (off).

Several things in a request say something of it, and **each can only take away**: what one of them takes, no other gives
back. So ``read`` and ``write`` together are ``off``, and a side task is ``off`` whatever the rest says.

===================================================== =========
what says it                                          mode
===================================================== =========
``metadata.memory``, the header ``X-OPM-Memory``      as named
``store: false``, which asks that nothing be kept     ``read``
a chat id that begins with ``temporary:``, ``local:`` ``off``
a task of the frontend's own, or a connection test    ``off``
===================================================== =========
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from domain.errors import InvalidInput
from service.turn_recorder import MemoryMode

MEMORY_HEADER = "x-opm-memory"
_TEMPORARY_CHATS = ("temporary:", "local:")
"""How Open WebUI names a temporary chat: https://github.com/open-webui/open-webui, utils/chat_id.py, 0.12.4."""
_RECALLS: Mapping[MemoryMode, bool] = {"on": True, "read": True, "write": False, "off": False}
_RECORDS: Mapping[MemoryMode, bool] = {"on": True, "read": False, "write": True, "off": False}
_FIX = "send on, read, write or off, or leave it out"


def memory_mode(
    *,
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    store: object = None,
    chat_ids: Iterable[str | None] = (),
    is_side_task: bool = False,
) -> MemoryMode:
    """Return the mode of a request.

    ``headers`` are under lower-case names; ``store`` is the field of the body; ``chat_ids`` are all ids of a
    conversation that the request gives. Raises :class:`InvalidInput` for a mode that there is not.
    """
    said = list(_said(metadata or {}, headers or {}, store))
    if is_side_task or any(chat_id is not None and chat_id.startswith(_TEMPORARY_CHATS) for chat_id in chat_ids):
        said.append("off")
    recalls = all(_RECALLS[mode] for mode in said)
    records = all(_RECORDS[mode] for mode in said)
    if recalls:
        return "on" if records else "read"
    return "write" if records else "off"


def _said(metadata: Mapping[str, Any], headers: Mapping[str, str], store: object) -> Iterator[MemoryMode]:
    for field, value in (("metadata.memory", metadata.get("memory")), ("X-OPM-Memory", headers.get(MEMORY_HEADER))):
        if value is not None and value != "":
            yield _mode(field, value)
    if store is not None and not isinstance(store, bool):
        raise InvalidInput("store", store, "send true or false, or leave it out")
    if store is False:
        yield "read"


def _mode(field: str, value: object) -> MemoryMode:
    named = value.strip().lower() if isinstance(value, str) else ""
    for mode in _RECALLS:
        if named == mode:
            return mode
    raise InvalidInput(field, value, _FIX)

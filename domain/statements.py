"""The ledger's statements: SQL text with names, read once from ``domain/sql``.

They stand in ``.sql`` files, so that an auditor can paste one into a ``sqlite3`` shell, bind its parameters and
``EXPLAIN`` it, and an editor reads it as SQL. Each is headed by ``-- name: its_name`` and says what it answers, and why
it is written as it is. A list is given as one parameter, a JSON array that ``json_each`` takes apart.

It is the SQL of SQLite. A ledger in another database has files of its own, with the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources

from sqlalchemy import TextClause, text

from domain.events import (
    MemoryEdited,
    MemoryForgotten,
    MemoryRestored,
    SummaryRecorded,
    TurnRecorded,
    TurnRestored,
    TurnSuperseded,
)

LATEST = 2**62
"""``as_of`` for the memory of today. A question can also be asked as of an earlier position of the ledger."""
FACET_TYPES = (
    TurnRecorded.type,
    SummaryRecorded.type,
    MemoryEdited.type,
    MemoryForgotten.type,
    MemoryRestored.type,
    TurnSuperseded.type,
    TurnRestored.type,
)
"""The events that change by which texts a memory can be found."""

_HEADER = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
# A ":name" in a comment would be taken for a parameter.
_COMMENT_LINE = re.compile(r"^--.*\n", re.MULTILINE)


def _read_statements() -> Mapping[str, TextClause]:
    found: dict[str, TextClause] = {}
    for file in resources.files("domain").joinpath("sql").iterdir():
        if not file.name.endswith(".sql"):
            continue
        _, *parts = _HEADER.split(file.read_text(encoding="utf-8"))
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            assert name not in found, f"two statements are named {name}"
            found[name] = text(_COMMENT_LINE.sub("", body).strip().removesuffix(";"))
    return found


STATEMENTS = _read_statements()

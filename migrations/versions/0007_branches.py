"""Turns that a conversation left behind, and memories that a person took back: what hides them, and until when.

``hidings`` is the one place that says what hides a memory. The statements of a turn ask it too: as it is a view that
SQLite flattens, that costs a look into the index of causes for each turn. Views of 0003 and 0004 that show what became
of a memory are made anew, under the rules stated there.

A client that regenerates or goes back leaves turns behind that a window has to pass over, and to find the branch that
it is on now, the turns of a conversation are compared. ``events_branch`` holds all that both need, so neither reads a
turn that it does not show. An index follows what it indexes by itself, also into an erasure.
"""

from __future__ import annotations

import re
from pathlib import Path

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

CHANGED = ("memories", "conversations", "candidates", "memory_as_of", "memory_history", "changes")


def upgrade() -> None:
    for name in CHANGED:
        op.execute(f"DROP VIEW {name}")
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    for statement in script.split(";\n"):
        if sql := re.sub(r"^--.*\n?", "", statement, flags=re.MULTILINE).strip():
            op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    raise NotImplementedError("a ledger is append-only: restore a backup made by the older version instead")

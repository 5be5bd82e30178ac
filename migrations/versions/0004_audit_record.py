"""What auditors read of the fuller record: model calls, who asked, what was shown, and the life of a memory.

The statements stand in a file beside this one. Views of 0003 that change are made anew, under the rules stated there.
In events of before this version the new columns are NULL: what was not recorded is not guessed.

``access_log`` is a table of its own: reads and refused calls are no events, and its rows go after a time.
"""

from __future__ import annotations

import re
from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

CHANGED = (
    "turns",
    "failed_turns",
    "summaries",
    "retrievals",
    "gate_decisions",
    "rerank_decisions",
    "candidates",
    "memory_uses",
)


def upgrade() -> None:
    for name in CHANGED:
        op.execute(f"DROP VIEW {name}")
    script = Path(__file__).with_suffix(".sql").read_text(encoding="utf-8")
    for statement in script.split(";\n"):
        if sql := re.sub(r"^--.*\n?", "", statement, flags=re.MULTILINE).strip():
            op.get_bind().exec_driver_sql(sql)


def downgrade() -> None:
    raise NotImplementedError("a ledger is append-only: restore a backup made by the older version instead")

"""An index by which the exchanges of a client's history are found among the recorded turns.

It holds the keys of turns that have one. Turns of before they were recorded have none, and are not found by it.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE INDEX events_exchange_key ON events (user_id, payload ->> '$.exchange_key')
        WHERE type = 'TurnRecorded' AND salt <> '' AND payload ->> '$.exchange_key' IS NOT NULL
        """
    )


def downgrade() -> None:
    op.execute("DROP INDEX events_exchange_key")

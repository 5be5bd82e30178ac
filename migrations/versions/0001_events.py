"""The events table and the triggers that make it append-only.

Three triggers guard the table against every SQLite client, not only ours. UPDATE and DELETE are refused outright.
INSERT is refused unless the row continues the ledger (the next position, chained to the last hash), continues its
conversation (the next version), and is a new event. That also stops ``INSERT OR REPLACE``, which removes conflicting
rows without firing a DELETE trigger: a row that passes conflicts with none, by any of the unique keys.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_GENESIS = "sha256:" + "0" * 64


def upgrade() -> None:
    op.create_table(
        "events",
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("conversation_id", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("recorded_at", sa.Text, nullable=False),
        sa.Column("correlation_id", sa.Text),
        sa.Column("causation_id", sa.Text),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("salt", sa.Text, nullable=False),
        sa.Column("identity_hash", sa.Text, nullable=False),
        sa.Column("payload_hash", sa.Text, nullable=False),
        sa.Column("prev_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.UniqueConstraint("event_id", name="events_event_id"),
        sa.UniqueConstraint("user_id", "conversation_id", "version", name="events_stream_version"),
    )
    op.create_index("events_stream_type", "events", ["user_id", "conversation_id", "type", "version"])
    op.create_index("events_user_type", "events", ["user_id", "type", "position"])
    op.create_index("events_type", "events", ["type", "position"])
    op.create_index("events_correlation", "events", ["correlation_id"])
    op.create_index("events_causation", "events", ["causation_id", "type"])
    op.execute(
        """
        CREATE TRIGGER events_no_update BEFORE UPDATE ON events
        BEGIN SELECT RAISE(ABORT, 'events is append-only: an event cannot be changed'); END
        """
    )
    op.execute(
        """
        CREATE TRIGGER events_no_delete BEFORE DELETE ON events
        BEGIN SELECT RAISE(ABORT, 'events is append-only: an event cannot be removed'); END
        """
    )
    op.execute(
        f"""
        CREATE TRIGGER events_append_only BEFORE INSERT ON events
        WHEN NEW.position IS NOT (SELECT coalesce(max(position), 0) + 1 FROM events)
          OR NEW.prev_hash IS NOT coalesce(
               (SELECT hash FROM events ORDER BY position DESC LIMIT 1), '{_GENESIS}')
          OR NEW.version IS NOT coalesce(
               (SELECT max(version) FROM events
                WHERE user_id = NEW.user_id AND conversation_id = NEW.conversation_id), 0) + 1
          OR EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id)
        BEGIN SELECT RAISE(ABORT, 'events is append-only: an event must follow the last one'); END
        """  # noqa: S608 - the only value put in is the constant above
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger is append-only: restore a backup made by the older version instead")

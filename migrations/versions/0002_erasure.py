"""The one change to events that the triggers allow: blanking what an erased person said.

The hash chain covers texts and ids through salted hashes only. So an erasure removes the payload, the salt and the ids,
and every hash stays as it was. The trigger allows an UPDATE that does exactly this to events of a user whose stream has
a ``UserErased`` event. What replaces an id begins with ``erased:``, which no client can send; those of conversations
stay distinct, so that versions within them still count.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP TRIGGER events_no_update")
    op.execute(
        """
        CREATE TRIGGER events_no_update BEFORE UPDATE ON events
        WHEN NOT (
              NEW.position IS OLD.position AND NEW.event_id IS OLD.event_id AND NEW.version IS OLD.version
          AND NEW.type IS OLD.type AND NEW.schema_version IS OLD.schema_version
          AND NEW.recorded_at IS OLD.recorded_at
          AND NEW.correlation_id IS OLD.correlation_id AND NEW.causation_id IS OLD.causation_id
          AND NEW.identity_hash IS OLD.identity_hash AND NEW.payload_hash IS OLD.payload_hash
          AND NEW.prev_hash IS OLD.prev_hash AND NEW.hash IS OLD.hash
          AND NEW.payload IS '{}' AND NEW.salt IS ''
          AND NEW.user_id LIKE 'erased:%' AND (NEW.conversation_id LIKE 'erased:%' OR NEW.conversation_id IS '')
          AND OLD.user_id <> '' AND OLD.salt <> ''
          AND EXISTS (SELECT 1 FROM events WHERE user_id = OLD.user_id AND type = 'UserErased')
        )
        BEGIN SELECT RAISE(ABORT, 'events is append-only: an event cannot be changed'); END
        """
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger is append-only: restore a backup made by the older version instead")

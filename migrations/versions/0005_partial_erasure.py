"""A second change that the triggers allow: blanking a part of a person's memory.

The person goes on, so the ids stay, and with them the versions of their conversations. An event loses its payload and
its salt; in place of the payload stands the id of the ``MemoriesErased`` event that is responsible. The trigger lets
that pass only if this event is in the person's own stream and lists the position. So nothing can be blanked that the
ledger does not account for, before or after.

A person can be erased later: then what was blanked so loses its ids as well.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
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
          AND NEW.salt IS '' AND OLD.user_id <> ''
          AND (
            (
                  NEW.payload IS '{}'
              AND NEW.user_id LIKE 'erased:%' AND (NEW.conversation_id LIKE 'erased:%' OR NEW.conversation_id IS '')
              AND OLD.user_id NOT LIKE 'erased:%'
              AND EXISTS (SELECT 1 FROM events WHERE user_id = OLD.user_id AND type = 'UserErased')
            ) OR (
                  OLD.salt <> '' AND OLD.conversation_id <> ''
              AND NEW.user_id IS OLD.user_id AND NEW.conversation_id IS OLD.conversation_id
              AND EXISTS (
                    SELECT 1
                    FROM events AS erasure, json_each(erasure.payload, '$.positions') AS part
                    WHERE erasure.event_id = substr(NEW.payload, 15, length(NEW.payload) - 16)
                      AND NEW.payload IS '{"erased_by":"' || erasure.event_id || '"}'
                      AND erasure.type = 'MemoriesErased' AND erasure.user_id = OLD.user_id
                      AND erasure.conversation_id = '' AND erasure.salt <> ''
                      AND OLD.position BETWEEN part.value ->> 0 AND part.value ->> 1
                  )
            )
          )
        )
        BEGIN SELECT RAISE(ABORT, 'events is append-only: an event cannot be changed'); END
        """
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger is append-only: restore a backup made by the older version instead")

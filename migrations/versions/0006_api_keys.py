"""The keys of the service: whom each stands for, who made it and who revoked it. The keys themselves are nowhere.

``api_keys`` holds the hash of each key. Its rows are no events, since the log of events holds no way in; and they say
which keys existed when, so they stay: the triggers let nobody take one away or change what it says. A key can be
revoked, once, and when it was last used can be noted. An erasure takes the name and the person from a key, which is
revoked by then.

The view ``keys`` is what auditors read of it.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE api_keys (
            key_id TEXT NOT NULL PRIMARY KEY,
            key_hash TEXT NOT NULL UNIQUE,
            name TEXT NOT NULL,
            user_id TEXT,
            trust_headers INTEGER NOT NULL,
            read_only INTEGER NOT NULL,
            user_is TEXT NOT NULL,
            created_at TEXT NOT NULL,
            created_by TEXT NOT NULL,
            expires_at TEXT,
            revoked_at TEXT,
            revoked_by TEXT,
            last_used_at TEXT
        )
        """
    )
    # INSERT OR REPLACE removes a row without firing the trigger on DELETE.
    op.execute(
        """
        CREATE TRIGGER api_keys_no_replace BEFORE INSERT ON api_keys
        WHEN EXISTS (SELECT 1 FROM api_keys WHERE key_id = NEW.key_id OR key_hash = NEW.key_hash)
        BEGIN SELECT RAISE(ABORT, 'api_keys holds this key already'); END
        """
    )
    op.execute(
        """
        CREATE TRIGGER api_keys_no_delete BEFORE DELETE ON api_keys
        BEGIN SELECT RAISE(ABORT, 'api_keys says which keys existed: revoke the key instead'); END
        """
    )
    op.execute(
        """
        CREATE TRIGGER api_keys_no_update BEFORE UPDATE ON api_keys
        WHEN NOT (
              NEW.key_id IS OLD.key_id AND NEW.key_hash IS OLD.key_hash
          AND NEW.trust_headers IS OLD.trust_headers AND NEW.read_only IS OLD.read_only
          AND NEW.user_is IS OLD.user_is AND NEW.expires_at IS OLD.expires_at
          AND NEW.created_at IS OLD.created_at AND NEW.created_by IS OLD.created_by
          AND (OLD.revoked_at IS NULL OR (NEW.revoked_at IS OLD.revoked_at AND NEW.revoked_by IS OLD.revoked_by))
          AND (
                (NEW.user_id IS OLD.user_id AND NEW.name IS OLD.name)
             OR (NEW.user_id LIKE 'erased:%' AND NEW.name IS '' AND NEW.revoked_at IS NOT NULL)
          )
        )
        BEGIN SELECT RAISE(ABORT, 'a key can only be revoked: make another one instead'); END
        """
    )
    op.execute(
        """
        CREATE VIEW keys AS
        SELECT
            key_id                                           AS key_id,
            'key:' || key_id                                 AS actor,
            name                                             AS name,
            user_id                                          AS user_id,
            trust_headers                                    AS trust_headers,
            read_only                                        AS read_only,
            user_is                                          AS user_is,
            created_at                                       AS created_at,
            created_by                                       AS created_by,
            expires_at                                       AS expires_at,
            revoked_at                                       AS revoked_at,
            revoked_by                                       AS revoked_by,
            coalesce(min(revoked_at, expires_at), revoked_at, expires_at) AS valid_until,
            last_used_at                                     AS last_used_at
        FROM api_keys
        """
    )


def downgrade() -> None:
    raise NotImplementedError("a ledger is append-only: restore a backup made by the older version instead")

"""What auditors read of erasures: a view of them, and a row in the history of what was erased.

A memory that was erased in part keeps its ids, so its life ends with a row of its own. Of an erased person only a
pseudonym is left: their erasure stands in ``erasures`` alone. A question whose embedding failed is a failed call, of
the model that was active: the search itself names none then.
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ERASURES = """
CREATE VIEW erasures AS
SELECT
    begun.position                                   AS position,
    begun.event_id                                   AS erasure_id,
    begun.recorded_at                                AS recorded_at,
    begun.user_id                                    AS user_id,
    CASE begun.type
      WHEN 'UserErased' THEN 'person'
      ELSE                   begun.payload ->> '$.scope'
    END                                              AS scope,
    CASE begun.type
      WHEN 'UserErased' THEN (SELECT count(*) FROM events AS gone
                              WHERE gone.user_id = begun.user_id AND gone.type = 'TurnRecorded')
      ELSE                   begun.payload ->> '$.memories'
    END                                              AS memories,
    CASE begun.type
      WHEN 'UserErased' THEN (SELECT count(*) FROM events AS gone WHERE gone.user_id = begun.user_id)
      ELSE                   begun.payload ->> '$.events'
    END                                              AS events,
    begun.payload ->> '$.positions'                  AS positions,
    coalesce(begun.payload ->> '$.reason', begun.payload ->> '$.origin.reason', done.payload ->> '$.origin.reason')
                                                     AS reason,
    coalesce(begun.payload ->> '$.origin.actor', done.payload ->> '$.origin.actor')           AS actor,
    coalesce(begun.payload ->> '$.origin.route', done.payload ->> '$.origin.route')           AS route,
    coalesce(begun.payload ->> '$.origin.client', done.payload ->> '$.origin.client')         AS client,
    coalesce(begun.payload ->> '$.origin.request_id', done.payload ->> '$.origin.request_id') AS request_id,
    done.recorded_at                                 AS completed_at
FROM events AS begun
LEFT JOIN events AS done
       ON done.causation_id = begun.event_id AND done.type = 'ErasureCompleted' AND done.salt <> ''
WHERE begun.type IN ('MemoriesErased', 'UserErased') AND (begun.type = 'UserErased' OR begun.salt <> '')
"""

_LAST_OF_A_MEMORY = """
UNION ALL
SELECT
    gone.event_id                                    AS memory_id,
    gone.user_id                                     AS user_id,
    begun.position                                   AS position,
    begun.recorded_at                                AS recorded_at,
    'erased'                                         AS what,
    coalesce(begun.payload ->> '$.reason', begun.payload ->> '$.origin.reason') AS text,
    begun.payload ->> '$.origin.actor'               AS actor,
    begun.payload ->> '$.origin.request_id'          AS request_id,
    gone.correlation_id                              AS correlation_id
FROM events AS gone
JOIN events AS begun
  ON begun.event_id = gone.payload ->> '$.erased_by' AND +begun.type = 'MemoriesErased'
 AND +begun.user_id = gone.user_id
WHERE gone.type = 'TurnRecorded' AND gone.salt = ''"""

_CHANGE = """
UNION ALL
SELECT
    begun.position                                   AS position,
    begun.recorded_at                                AS recorded_at,
    begun.user_id                                    AS user_id,
    begun.conversation_id                            AS conversation_id,
    NULL                                             AS memory_id,
    'erased'                                         AS what,
    (begun.payload ->> '$.scope') || ': ' || (begun.payload ->> '$.memories') || ' memories, '
        || (begun.payload ->> '$.events') || ' events' AS text,
    coalesce(begun.payload ->> '$.reason', begun.payload ->> '$.origin.reason') AS reason,
    begun.payload ->> '$.origin.actor'               AS actor,
    begun.payload ->> '$.origin.route'               AS route,
    begun.payload ->> '$.origin.client'              AS client,
    begun.payload ->> '$.origin.request_id'          AS request_id
FROM events AS begun
WHERE begun.type = 'MemoriesErased' AND begun.salt <> ''"""

_EMBEDDING_FAILED = (
    "payload ->> '$.degraded_code' IN ('embedding_failed', 'embedding_unavailable', 'embedding_rejected', "
    "'embedding_misfit')"
)
_SEARCHES = (
    (
        "payload ->> '$.embedding_model' AS model,",
        """coalesce(payload ->> '$.embedding_model',
            (SELECT active.payload ->> '$.model' FROM events AS active
             WHERE active.user_id IN (events.user_id, '') AND active.type = 'EmbeddingModelActivated'
               AND active.position < events.position
             ORDER BY active.position DESC LIMIT 1)) AS model,""",
    ),
    ("payload ->> '$.outcome' = 'degraded' AS failed,", f"coalesce({_EMBEDDING_FAILED}, 0) AS failed,"),
    (
        "AND payload ->> '$.embedding_model' IS NOT NULL",
        f"AND (payload ->> '$.embedding_model' IS NOT NULL OR {_EMBEDDING_FAILED})",
    ),
)


def upgrade() -> None:
    connection = op.get_bind()

    def sql_of(view: str) -> str:
        asked = "SELECT sql FROM sqlite_schema WHERE type = 'view' AND name = ?"
        return str(connection.exec_driver_sql(asked, (view,)).scalar_one())

    changed = {"memory_history": sql_of("memory_history") + _LAST_OF_A_MEMORY, "changes": sql_of("changes") + _CHANGE}
    usage = sql_of("usage_by_month")
    for old, new in _SEARCHES:
        assert usage.count(old) == 1, "revision 0004 has another usage_by_month"
        usage = usage.replace(old, new)
    for name, sql in (changed | {"usage_by_month": usage}).items():
        connection.exec_driver_sql(f"DROP VIEW {name}")
        connection.exec_driver_sql(sql)
    connection.exec_driver_sql(_ERASURES.strip())


def downgrade() -> None:
    raise NotImplementedError("a ledger is append-only: restore a backup made by the older version instead")

"""An index by which the exchanges of a client's history are found among the recorded turns; tokens of calls of tools.

Turns of before keys were recorded have none, and are not found by it. A damaged payload has none either.
An answer that calls tools is an event of its own, and costs what any answer costs: ``usage_by_month`` counts it too.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_CALLS_OF_TOOLS = """WITH tools AS MATERIALIZED (
    SELECT
        recorded_at                AS recorded_at,
        user_id                    AS user_id,
        'answer'                   AS stage,
        payload ->> '$.model'      AS model,
        0                          AS failed,
        payload ->> '$.usage.prompt_tokens' AS prompt_tokens,
        payload ->> '$.usage.completion_tokens' AS completion_tokens
    FROM events
    WHERE likelihood(type = 'ToolsCalled', 0.01) AND salt <> ''
      AND (payload ->> '$.origin.route' IS 'opm import') = 0
), answers AS MATERIALIZED ("""


def upgrade() -> None:
    op.execute(
        """
        CREATE INDEX events_exchange_key ON events (
            user_id, CASE WHEN json_valid(payload) THEN payload ->> '$.exchange_key' END
        ) WHERE type = 'TurnRecorded' AND salt <> ''
        """
    )
    connection = op.get_bind()
    view: str = connection.exec_driver_sql("SELECT sql FROM sqlite_schema WHERE name = 'usage_by_month'").scalar_one()
    for old, new in (
        ("WITH answers AS MATERIALIZED (", _CALLS_OF_TOOLS),
        ("SELECT * FROM answers", "SELECT * FROM answers\n    UNION ALL SELECT * FROM tools"),
    ):
        assert view.count(old) == 1, "revision 0004 has another usage_by_month"
        view = view.replace(old, new)
    connection.exec_driver_sql("DROP VIEW usage_by_month")
    connection.exec_driver_sql(view)


def downgrade() -> None:
    raise NotImplementedError("a ledger is append-only: restore a backup made by the older version instead")

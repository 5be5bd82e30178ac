"""What auditors read: views over the events, and five indices that hold the figures of the decisions.

A view is a saved query: it costs nothing until it is asked, and it says what the events say. Blanked events
(``salt = ''``) are in none. Payloads of every schema are read; schema 1 knew the dense ranking only, which stands for
the fused one. These rules keep the views quick on a large ledger, with SQLite's statistics and without:

- No view but ``conversations`` has an aggregate, DISTINCT or LIMIT around it. So SQLite flattens it, and a filter by
  user, answer or memory reaches the indices of the table.
- What few questions ask for, such as counts of verdicts, is a subquery in its column and runs only when selected.
- ``likelihood`` tells the planner that one event in five is of a type, or it takes an index on the type for selective.
  The unary ``+`` before the user and the type of an event found by its correlation id keeps it to that index.
- In ``candidates`` the verdicts become one JSON object per answer, by memory, in which each candidate is looked up. A
  join would read every verdict for every candidate.

Questions over a whole ledger (how often, how long, how many tokens) would parse every decision. Partial expression
indices hold their figures instead, and SQLite answers without reading an event (docs/decisions/0017). An index follows
what it indexes by itself, also into an erasure, which a table of figures would not. Of a person it holds the user's id
only.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

GATE_FIGURES = """
CREATE INDEX events_gate_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.model', payload ->> '$.strategy', payload ->> '$.outcome', payload ->> '$.latency_ms',
    payload ->> '$.usage.prompt_tokens', payload ->> '$.usage.completion_tokens'
) WHERE type = 'GateDecided' AND salt <> ''
"""

RERANK_FIGURES = """
CREATE INDEX events_rerank_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.model', payload ->> '$.strategy', payload ->> '$.outcome', payload ->> '$.latency_ms',
    payload ->> '$.usage.prompt_tokens', payload ->> '$.usage.completion_tokens'
) WHERE type = 'RerankDecided' AND salt <> ''
"""

RETRIEVAL_FIGURES = """
CREATE INDEX events_retrieval_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.outcome', payload ->> '$.degraded_code', payload ->> '$.embedding_model',
    payload ->> '$.embed_ms', payload ->> '$.search_ms', payload ->> '$.lexical_ms'
) WHERE type = 'RetrievalRecorded' AND salt <> ''
"""

TURN_FIGURES = """
CREATE INDEX events_turn_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.model', payload ->> '$.timings_ms.first_token', payload ->> '$.timings_ms.answer',
    payload ->> '$.timings_ms.total', payload ->> '$.usage.prompt_tokens', payload ->> '$.usage.completion_tokens'
) WHERE type = 'TurnRecorded' AND salt <> ''
"""

SUMMARY_FIGURES = """
CREATE INDEX events_summary_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.model', payload ->> '$.usage.prompt_tokens', payload ->> '$.usage.completion_tokens'
) WHERE type = 'SummaryRecorded' AND salt <> ''
"""

TURNS = """
CREATE VIEW turns AS
SELECT
    turn.position                                    AS position,
    turn.event_id                                    AS memory_id,
    turn.correlation_id                              AS correlation_id,
    turn.user_id                                     AS user_id,
    turn.conversation_id                             AS conversation_id,
    turn.recorded_at                                 AS recorded_at,
    turn.payload ->> '$.turn_id'                     AS turn_id,
    turn.payload ->> '$.ts'                          AS ts,
    turn.payload ->> '$.user'                        AS user,
    turn.payload ->> '$.assistant'                   AS assistant,
    turn.payload ->> '$.client_system'               AS client_system,
    turn.payload ->> '$.imported_from'               AS imported_from,
    turn.payload ->> '$.model'                       AS model,
    turn.payload ->> '$.finish_reason'               AS finish_reason,
    turn.payload ->> '$.usage.prompt_tokens'         AS prompt_tokens,
    turn.payload ->> '$.usage.completion_tokens'     AS completion_tokens,
    turn.payload ->> '$.prompt.layout'               AS layout,
    turn.payload ->> '$.prompt.system_version'       AS system_version,
    turn.payload ->> '$.prompt.budget_tokens'        AS budget_tokens,
    turn.payload ->> '$.prompt.messages_hash'        AS messages_hash,
    turn.payload ->> '$.timings_ms.first_token'      AS first_token_ms,
    turn.payload ->> '$.timings_ms.answer'           AS answer_ms,
    turn.payload ->> '$.timings_ms.total'            AS total_ms
FROM events AS turn
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> ''
"""

FAILED_TURNS = """
CREATE VIEW failed_turns AS
SELECT
    turn.position                                    AS position,
    turn.event_id                                    AS event_id,
    turn.correlation_id                              AS correlation_id,
    turn.user_id                                     AS user_id,
    turn.conversation_id                             AS conversation_id,
    turn.recorded_at                                 AS recorded_at,
    turn.payload ->> '$.ts'                          AS ts,
    turn.payload ->> '$.user'                        AS user,
    turn.payload ->> '$.partial_assistant'           AS partial_assistant,
    turn.payload ->> '$.model'                       AS model,
    turn.payload ->> '$.code'                        AS code,
    turn.payload ->> '$.status'                      AS status,
    turn.payload ->> '$.error'                       AS error,
    turn.payload ->> '$.timings_ms.total'            AS total_ms
FROM events AS turn
WHERE turn.type = 'TurnFailed' AND turn.salt <> ''
"""

SUMMARIES = """
CREATE VIEW summaries AS
SELECT
    said.position                                    AS position,
    said.event_id                                    AS event_id,
    said.causation_id                                AS memory_id,
    said.user_id                                     AS user_id,
    said.conversation_id                             AS conversation_id,
    said.recorded_at                                 AS recorded_at,
    said.payload ->> '$.turn_id'                     AS turn_id,
    CASE said.type
      WHEN 'MemoryEdited'    THEN 'edited'
      WHEN 'SummaryRecorded' THEN 'model'
      ELSE 'failed'
    END                                              AS source,
    said.payload ->> '$.summary'                     AS summary,
    said.payload ->> '$.model'                       AS model,
    said.payload ->> '$.prompt_version'              AS prompt_version,
    said.payload ->> '$.attempts'                    AS attempts,
    said.payload ->> '$.error'                       AS error,
    said.payload ->> '$.usage.prompt_tokens'         AS prompt_tokens,
    said.payload ->> '$.usage.completion_tokens'     AS completion_tokens
FROM events AS said
WHERE said.type IN ('SummaryRecorded', 'SummaryFailed', 'MemoryEdited') AND said.salt <> ''
"""

MEMORIES = """
CREATE VIEW memories AS
SELECT
    turn.position                                    AS position,
    turn.event_id                                    AS memory_id,
    turn.correlation_id                              AS correlation_id,
    turn.user_id                                     AS user_id,
    turn.conversation_id                             AS conversation_id,
    turn.payload ->> '$.turn_id'                     AS turn_id,
    turn.payload ->> '$.ts'                          AS ts,
    turn.payload ->> '$.user'                        AS user,
    turn.payload ->> '$.assistant'                   AS assistant,
    said.payload ->> '$.summary'                     AS summary,
    CASE said.type
      WHEN 'MemoryEdited'    THEN 'edited'
      WHEN 'SummaryRecorded' THEN 'model'
    END                                              AS summary_source,
    CASE said.type
      WHEN 'MemoryEdited'    THEN said.recorded_at
    END                                              AS edited_at,
    withdrawn.recorded_at                            AS forgotten_at,
    withdrawn.position IS NOT NULL                   AS forgotten,
    withdrawn.payload ->> '$.reason'                 AS forgotten_reason
FROM events AS turn
LEFT JOIN events AS said ON said.position = coalesce(
    (SELECT max(edit.position) FROM events AS edit
     WHERE edit.causation_id = turn.event_id AND edit.type = 'MemoryEdited' AND +edit.user_id = turn.user_id),
    (SELECT max(model.position) FROM events AS model
     WHERE model.causation_id = turn.event_id AND model.type = 'SummaryRecorded' AND +model.user_id = turn.user_id))
LEFT JOIN events AS withdrawn ON withdrawn.position =
    (SELECT min(word.position) FROM events AS word
     WHERE word.causation_id = turn.event_id AND word.type = 'MemoryForgotten' AND +word.user_id = turn.user_id)
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> ''
"""

CONVERSATIONS = """
CREATE VIEW conversations AS
SELECT
    talk.user_id                                     AS user_id,
    talk.conversation_id                             AS conversation_id,
    talk.turns                                       AS turns,
    talk.failed_turns                                AS failed_turns,
    talk.forgotten                                   AS forgotten,
    talk.first_at                                    AS first_at,
    talk.last_at                                     AS last_at,
    opening.payload ->> '$.user'                     AS title
FROM (
    SELECT
        user_id,
        conversation_id,
        count(*) FILTER (WHERE type = 'TurnRecorded')                             AS turns,
        count(*) FILTER (WHERE type = 'TurnFailed')                               AS failed_turns,
        count(DISTINCT causation_id) FILTER (WHERE type = 'MemoryForgotten')      AS forgotten,
        min(recorded_at) FILTER (WHERE type <> 'MemoryForgotten')                 AS first_at,
        max(recorded_at) FILTER (WHERE type <> 'MemoryForgotten')                 AS last_at,
        min(position) FILTER (WHERE type = 'TurnRecorded')                        AS opening_position
    FROM events
    WHERE type IN ('TurnRecorded', 'TurnFailed', 'MemoryForgotten') AND salt <> ''
    GROUP BY user_id, conversation_id
) AS talk
LEFT JOIN events AS opening ON opening.position = talk.opening_position
"""

RETRIEVALS = """
CREATE VIEW retrievals AS
SELECT
    asked.position                                   AS position,
    asked.event_id                                   AS event_id,
    asked.correlation_id                             AS correlation_id,
    asked.user_id                                    AS user_id,
    asked.conversation_id                            AS conversation_id,
    asked.recorded_at                                AS recorded_at,
    asked.payload ->> '$.query'                      AS query,
    asked.payload ->> '$.outcome'                    AS outcome,
    asked.payload ->> '$.degraded_code'              AS degraded_code,
    asked.payload ->> '$.degraded_reason'            AS degraded_reason,
    CASE
      WHEN asked.schema_version > 1 THEN asked.payload ->> '$.mode'
      WHEN asked.payload ->> '$.outcome' = 'ok' THEN 'dense'
    END                                              AS mode,
    asked.payload ->> '$.fusion'                     AS fusion,
    asked.payload ->> '$.time_range'                 AS time_range,
    asked.payload ->> '$.embedding_model'            AS embedding_model,
    asked.payload ->> '$.dimensions'                 AS dimensions,
    asked.payload ->> '$.index_position'             AS index_position,
    json_array_length(asked.payload, '$.window')     AS window_turns,
    json_array_length(asked.payload, '$.candidates') AS candidates,
    (SELECT count(*) FROM json_each(asked.payload, '$.candidates') AS candidate
     WHERE candidate.value ->> '$.excluded' IS NOT NULL) AS excluded,
    asked.payload ->> '$.embed_ms'                   AS embed_ms,
    asked.payload ->> '$.search_ms'                  AS search_ms,
    coalesce(asked.payload ->> '$.lexical_ms', 0.0)  AS lexical_ms,
    asked.payload ->> '$.knobs'                      AS knobs
FROM events AS asked
WHERE likelihood(asked.type = 'RetrievalRecorded', 0.2) AND asked.salt <> ''
"""

GATE_DECISIONS = """
CREATE VIEW gate_decisions AS
SELECT
    gate.position                                    AS position,
    gate.event_id                                    AS event_id,
    gate.correlation_id                              AS correlation_id,
    gate.user_id                                     AS user_id,
    gate.conversation_id                             AS conversation_id,
    gate.recorded_at                                 AS recorded_at,
    gate.payload ->> '$.strategy'                    AS strategy,
    gate.payload ->> '$.outcome'                     AS outcome,
    gate.payload ->> '$.note'                        AS note,
    gate.payload ->> '$.model'                       AS model,
    gate.payload ->> '$.prompt_version'              AS prompt_version,
    gate.payload ->> '$.keep_max'                    AS keep_max,
    gate.payload ->> '$.score_rule'                  AS score_rule,
    json_array_length(gate.payload, '$.verdicts')    AS candidates,
    (SELECT count(*) FROM json_each(gate.payload, '$.verdicts') AS verdict
     WHERE verdict.value ->> '$.keep')               AS kept,
    (SELECT count(*) FROM json_each(gate.payload, '$.verdicts') AS verdict
     WHERE verdict.value ->> '$.over_limit')         AS over_limit,
    gate.payload ->> '$.raw_answer'                  AS raw_answer,
    gate.payload ->> '$.usage.prompt_tokens'         AS prompt_tokens,
    gate.payload ->> '$.usage.completion_tokens'     AS completion_tokens,
    gate.payload ->> '$.latency_ms'                  AS latency_ms
FROM events AS gate
WHERE likelihood(gate.type = 'GateDecided', 0.2) AND gate.salt <> ''
"""

RERANK_DECISIONS = """
CREATE VIEW rerank_decisions AS
SELECT
    rerank.position                                  AS position,
    rerank.event_id                                  AS event_id,
    rerank.correlation_id                            AS correlation_id,
    rerank.user_id                                   AS user_id,
    rerank.conversation_id                           AS conversation_id,
    rerank.recorded_at                               AS recorded_at,
    rerank.payload ->> '$.strategy'                  AS strategy,
    rerank.payload ->> '$.outcome'                   AS outcome,
    rerank.payload ->> '$.note'                      AS note,
    rerank.payload ->> '$.model'                     AS model,
    rerank.payload ->> '$.prompt_version'            AS prompt_version,
    rerank.payload ->> '$.retrieve_k'                AS retrieve_k,
    json_array_length(rerank.payload, '$.order')     AS candidates,
    rerank.payload ->> '$.named'                     AS named,
    json_array_length(rerank.payload, '$.replayed')  AS replayed,
    rerank.payload ->> '$.raw_answer'                AS raw_answer,
    rerank.payload ->> '$.usage.prompt_tokens'       AS prompt_tokens,
    rerank.payload ->> '$.usage.completion_tokens'   AS completion_tokens,
    rerank.payload ->> '$.latency_ms'                AS latency_ms
FROM events AS rerank
WHERE likelihood(rerank.type = 'RerankDecided', 0.2) AND rerank.salt <> ''
"""

CANDIDATES = """
CREATE VIEW candidates AS
SELECT
    asked.correlation_id                             AS correlation_id,
    asked.position                                   AS retrieval_position,
    asked.user_id                                    AS user_id,
    asked.conversation_id                            AS conversation_id,
    asked.recorded_at                                AS recorded_at,
    asked.payload ->> '$.query'                      AS query,
    candidate.value ->> '$.memory_id'                AS memory_id,
    candidate.value ->> '$.turn_position'            AS memory_position,
    candidate.value ->> '$.conversation_id'          AS memory_conversation_id,
    candidate.value ->> '$.turn_id'                  AS memory_turn_id,
    CASE asked.schema_version
      WHEN 1 THEN candidate.value ->> '$.dense_rank'
      ELSE        candidate.value ->> '$.rank'
    END                                              AS rank,
    CASE asked.schema_version
      WHEN 1 THEN candidate.value ->> '$.dense_score'
      ELSE        candidate.value ->> '$.score'
    END                                              AS score,
    candidate.value ->> '$.dense_rank'               AS dense_rank,
    candidate.value ->> '$.dense_score'              AS dense_score,
    candidate.value ->> '$.lexical_rank'             AS lexical_rank,
    candidate.value ->> '$.lexical_score'            AS lexical_score,
    candidate.value ->> '$.matched'                  AS matched,
    candidate.value ->> '$.summary_position'         AS summary_position,
    candidate.value ->> '$.excluded'                 AS excluded,
    json_extract(verdicts.value, '$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.keep'
                                                     AS gate_keep,
    json_extract(verdicts.value, '$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.over_limit'
                                                     AS gate_over_limit,
    json_extract(verdicts.value, '$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.reason'
                                                     AS gate_reason,
    (SELECT place.key + 1 FROM json_each(rerank.payload, '$.order') AS place
     WHERE place.value = candidate.value ->> '$.memory_id')
                                                     AS rerank_place,
    CASE
      WHEN candidate.value ->> '$.excluded' IS NOT NULL
        THEN 'excluded'
      WHEN NOT json_extract(verdicts.value, '$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.keep'
        THEN 'dropped'
      WHEN candidate.value ->> '$.memory_id' IN (SELECT value FROM json_each(turn.payload, '$.replayed'))
        THEN 'replayed'
      WHEN candidate.value ->> '$.memory_id' IN (SELECT value FROM json_each(turn.payload, '$.summarised'))
        THEN 'summary_only'
      ELSE 'not_picked'
    END                                              AS fate
FROM events AS asked
LEFT JOIN events AS gate
       ON gate.correlation_id = asked.correlation_id AND +gate.type = 'GateDecided'
      AND +gate.user_id = asked.user_id
LEFT JOIN events AS rerank
       ON rerank.correlation_id = asked.correlation_id AND +rerank.type = 'RerankDecided'
      AND +rerank.user_id = asked.user_id
LEFT JOIN events AS turn
       ON turn.correlation_id = asked.correlation_id AND +turn.type = 'TurnRecorded'
      AND +turn.user_id = asked.user_id
CROSS JOIN json_each(json_array((
    SELECT json_group_object(verdict.value ->> '$.memory_id', json(verdict.value))
    FROM json_each(gate.payload, '$.verdicts') AS verdict))) AS verdicts
CROSS JOIN json_each(asked.payload, '$.candidates') AS candidate
WHERE likelihood(asked.type = 'RetrievalRecorded', 0.2) AND asked.salt <> ''
"""

MEMORY_USES = """
CREATE VIEW memory_uses AS
SELECT
    used.value                                       AS memory_id,
    turn.correlation_id                              AS correlation_id,
    turn.position                                    AS answer_position,
    turn.user_id                                     AS user_id,
    turn.conversation_id                             AS conversation_id,
    turn.recorded_at                                 AS recorded_at,
    turn.payload ->> '$.turn_id'                     AS turn_id,
    CASE part.key
      WHEN 'replayed'   THEN 'replayed'
      WHEN 'summarised' THEN 'summary_only'
      WHEN 'neighbours' THEN 'neighbour'
      WHEN 'window'     THEN 'window'
    END                                              AS role,
    used.key + 1                                     AS place,
    (SELECT CASE asked.schema_version
              WHEN 1 THEN candidate.value ->> '$.dense_score'
              ELSE        candidate.value ->> '$.score'
            END
     FROM events AS asked JOIN json_each(asked.payload, '$.candidates') AS candidate
     WHERE asked.correlation_id = turn.correlation_id AND +asked.type = 'RetrievalRecorded'
       AND +asked.user_id = turn.user_id AND candidate.value ->> '$.memory_id' = used.value) AS score,
    (SELECT candidate.value ->> '$.dense_score'
     FROM events AS asked JOIN json_each(asked.payload, '$.candidates') AS candidate
     WHERE asked.correlation_id = turn.correlation_id AND +asked.type = 'RetrievalRecorded'
       AND +asked.user_id = turn.user_id AND candidate.value ->> '$.memory_id' = used.value) AS dense_score
FROM events AS turn
JOIN json_each(turn.payload) AS part ON part.key IN ('replayed', 'summarised', 'neighbours', 'window')
JOIN json_each(part.value) AS used
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> ''
"""

INDICES = (GATE_FIGURES, RERANK_FIGURES, RETRIEVAL_FIGURES, TURN_FIGURES, SUMMARY_FIGURES)
VIEWS = (
    TURNS,
    FAILED_TURNS,
    SUMMARIES,
    MEMORIES,
    CONVERSATIONS,
    RETRIEVALS,
    CANDIDATES,
    GATE_DECISIONS,
    RERANK_DECISIONS,
    MEMORY_USES,
)


def upgrade() -> None:
    for statement in (*INDICES, *VIEWS):
        op.execute(statement)


def downgrade() -> None:
    raise NotImplementedError("a ledger is append-only: restore a backup made by the older version instead")

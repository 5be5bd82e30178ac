-- The views and the table of revision 0004; 0004_audit_record.py says why they are as they are.

-- Reads and refused calls: no events, and their rows go after a time.
CREATE TABLE access_log (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    request_id TEXT NOT NULL,
    actor TEXT,
    client TEXT,
    route TEXT NOT NULL,
    status INTEGER NOT NULL,
    user_id TEXT
);

-- The figures' indices of 0003, each also with whether its event was imported: then nothing was decided, waited for or
-- paid for here.

DROP INDEX events_gate_figures;

CREATE INDEX events_gate_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.model', payload ->> '$.strategy', payload ->> '$.outcome', payload ->> '$.latency_ms',
    payload ->> '$.usage.prompt_tokens', payload ->> '$.usage.completion_tokens',
    payload ->> '$.origin.route' IS 'opm import'
) WHERE type = 'GateDecided' AND salt <> '';

DROP INDEX events_rerank_figures;

CREATE INDEX events_rerank_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.model', payload ->> '$.strategy', payload ->> '$.outcome', payload ->> '$.latency_ms',
    payload ->> '$.usage.prompt_tokens', payload ->> '$.usage.completion_tokens',
    payload ->> '$.origin.route' IS 'opm import'
) WHERE type = 'RerankDecided' AND salt <> '';

DROP INDEX events_retrieval_figures;

CREATE INDEX events_retrieval_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.outcome', payload ->> '$.degraded_code', payload ->> '$.embedding_model',
    payload ->> '$.embed_ms', payload ->> '$.search_ms', payload ->> '$.lexical_ms',
    payload ->> '$.origin.route' IS 'opm import'
) WHERE type = 'RetrievalRecorded' AND salt <> '';

DROP INDEX events_turn_figures;

CREATE INDEX events_turn_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.model', payload ->> '$.timings_ms.first_token', payload ->> '$.timings_ms.answer',
    payload ->> '$.timings_ms.total', payload ->> '$.usage.prompt_tokens', payload ->> '$.usage.completion_tokens',
    payload ->> '$.imported_from'
) WHERE type = 'TurnRecorded' AND salt <> '';

DROP INDEX events_summary_figures;

CREATE INDEX events_summary_figures ON events (
    type, recorded_at, user_id,
    payload ->> '$.model', payload ->> '$.usage.prompt_tokens', payload ->> '$.usage.completion_tokens',
    payload ->> '$.origin.route' IS 'opm import'
) WHERE type = 'SummaryRecorded' AND salt <> '';

-- One row per question that was answered.
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
    turn.payload ->> '$.timings_ms.total'            AS total_ms,
    turn.payload ->> '$.call.endpoint' AS endpoint,
    turn.payload ->> '$.call.answered_by' AS answered_by,
    turn.payload ->> '$.call.fingerprint' AS fingerprint,
    turn.payload ->> '$.call.attempts' AS attempts,
    turn.payload ->> '$.call.messages_hash' AS sent_hash,
    turn.payload ->> '$.call.request' AS request,
    turn.payload ->> '$.call.dialect' AS dialect,
    turn.payload ->> '$.origin.actor' AS actor,
    turn.payload ->> '$.origin.route' AS route,
    turn.payload ->> '$.origin.client' AS client,
    turn.payload ->> '$.origin.request_id' AS request_id
FROM events AS turn
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> '';

-- One row per question that got no answer. What the chat model was shown is there where it was asked.
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
    turn.payload ->> '$.timings_ms.total'            AS total_ms,
    turn.payload ->> '$.usage.prompt_tokens'         AS prompt_tokens,
    turn.payload ->> '$.usage.completion_tokens'     AS completion_tokens,
    turn.payload ->> '$.prompt.layout'               AS layout,
    turn.payload ->> '$.prompt.system_version'       AS system_version,
    turn.payload ->> '$.prompt.messages_hash'        AS messages_hash,
    turn.payload ->> '$.call.endpoint' AS endpoint,
    turn.payload ->> '$.call.answered_by' AS answered_by,
    turn.payload ->> '$.call.fingerprint' AS fingerprint,
    turn.payload ->> '$.call.attempts' AS attempts,
    turn.payload ->> '$.call.messages_hash' AS sent_hash,
    turn.payload ->> '$.call.request' AS request,
    turn.payload ->> '$.call.dialect' AS dialect,
    turn.payload ->> '$.origin.actor' AS actor,
    turn.payload ->> '$.origin.route' AS route,
    turn.payload ->> '$.origin.client' AS client,
    turn.payload ->> '$.origin.request_id' AS request_id,
    turn.payload ->> '$.origin.route' IS 'opm import'  AS imported
FROM events AS turn
WHERE turn.type = 'TurnFailed' AND turn.salt <> '';

-- One row per summary of a turn, by a model or a person, and per failed attempt.
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
    said.payload ->> '$.usage.completion_tokens'     AS completion_tokens,
    said.payload ->> '$.asked.question_chars'        AS question_chars,
    said.payload ->> '$.asked.answer_chars'          AS answer_chars,
    said.payload ->> '$.call.endpoint'               AS endpoint,
    said.payload ->> '$.call.answered_by'            AS answered_by,
    said.payload ->> '$.call.fingerprint'            AS fingerprint,
    said.payload ->> '$.call.messages_hash'          AS sent_hash,
    said.payload ->> '$.call.request'                AS request,
    said.payload ->> '$.call.dialect'                AS dialect,
    said.payload ->> '$.origin.actor' AS actor,
    said.payload ->> '$.origin.route' AS route,
    said.payload ->> '$.origin.client' AS client,
    said.payload ->> '$.origin.request_id' AS request_id,
    said.payload ->> '$.origin.route' IS 'opm import'  AS imported
FROM events AS said
WHERE said.type IN ('SummaryRecorded', 'SummaryFailed', 'MemoryEdited') AND said.salt <> '';

-- One row per search of memory.
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
    asked.payload ->> '$.knobs'                      AS knobs,
    asked.payload ->> '$.origin.route' IS 'opm import'  AS imported
FROM events AS asked
WHERE likelihood(asked.type = 'RetrievalRecorded', 0.2) AND asked.salt <> '';

-- One row per decision on what to keep.
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
    gate.payload ->> '$.asked.candidates'            AS asked,
    gate.payload ->> '$.asked.line_chars'            AS line_chars,
    gate.payload ->> '$.asked.question_chars'        AS question_chars,
    (SELECT count(*) FROM json_each(gate.payload, '$.verdicts') AS verdict
     WHERE verdict.value ->> '$.keep')               AS kept,
    (SELECT count(*) FROM json_each(gate.payload, '$.verdicts') AS verdict
     WHERE verdict.value ->> '$.over_limit')         AS over_limit,
    gate.payload ->> '$.raw_answer'                  AS raw_answer,
    gate.payload ->> '$.usage.prompt_tokens'         AS prompt_tokens,
    gate.payload ->> '$.usage.completion_tokens'     AS completion_tokens,
    gate.payload ->> '$.latency_ms'                  AS latency_ms,
    gate.payload ->> '$.call.endpoint' AS endpoint,
    gate.payload ->> '$.call.answered_by' AS answered_by,
    gate.payload ->> '$.call.fingerprint' AS fingerprint,
    gate.payload ->> '$.call.attempts' AS attempts,
    gate.payload ->> '$.call.messages_hash' AS sent_hash,
    gate.payload ->> '$.call.request' AS request,
    gate.payload ->> '$.call.dialect' AS dialect,
    gate.payload ->> '$.origin.request_id'           AS request_id,
    gate.payload ->> '$.origin.route' IS 'opm import'  AS imported
FROM events AS gate
WHERE likelihood(gate.type = 'GateDecided', 0.2) AND gate.salt <> '';

-- One row per decision on what to replay.
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
    rerank.payload ->> '$.asked.candidates'          AS asked,
    rerank.payload ->> '$.asked.line_chars'          AS line_chars,
    rerank.payload ->> '$.asked.question_chars'      AS question_chars,
    rerank.payload ->> '$.named'                     AS named,
    json_array_length(rerank.payload, '$.replayed')  AS replayed,
    rerank.payload ->> '$.raw_answer'                AS raw_answer,
    rerank.payload ->> '$.usage.prompt_tokens'       AS prompt_tokens,
    rerank.payload ->> '$.usage.completion_tokens'   AS completion_tokens,
    rerank.payload ->> '$.latency_ms'                AS latency_ms,
    rerank.payload ->> '$.call.endpoint' AS endpoint,
    rerank.payload ->> '$.call.answered_by' AS answered_by,
    rerank.payload ->> '$.call.fingerprint' AS fingerprint,
    rerank.payload ->> '$.call.attempts' AS attempts,
    rerank.payload ->> '$.call.messages_hash' AS sent_hash,
    rerank.payload ->> '$.call.request' AS request,
    rerank.payload ->> '$.call.dialect' AS dialect,
    rerank.payload ->> '$.origin.request_id'         AS request_id,
    rerank.payload ->> '$.origin.route' IS 'opm import'  AS imported
FROM events AS rerank
WHERE likelihood(rerank.type = 'RerankDecided', 0.2) AND rerank.salt <> '';

-- One row per memory proposed for a question. `verdicts` and `shown` are one JSON object each per answer, by memory.
-- Their keys are quoted, because older shells take a key that begins with a digit for a place in an array.
-- What a gate had no room to ask about is not_asked: by its place, or in older events by the reason that it was given.
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
    verdicts.value -> ('$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.asked'
                                                     AS gate_asked,
    CASE
      WHEN verdicts.value -> ('$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.asked' IS NOT 0
        THEN verdicts.value -> ('$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.keep'
    END                                              AS gate_keep,
    verdicts.value -> ('$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.over_limit'
                                                     AS gate_over_limit,
    verdicts.value -> ('$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.reason'
                                                     AS gate_reason,
    (SELECT place.key + 1 FROM json_each(rerank.payload, '$.order') AS place
     WHERE place.value = candidate.value ->> '$.memory_id')
                                                     AS rerank_place,
    CASE shown.value ->> ('$."' || (candidate.value ->> '$.memory_id') || '"')
      WHEN 'replayed'   THEN 'replayed'
      WHEN 'summarised' THEN 'summary'
      WHEN 'neighbours' THEN 'neighbor'
      WHEN 'window'     THEN 'window'
      ELSE 'not_shown'
    END                                              AS shown_as,
    CASE
      WHEN shown.value ->> ('$."' || (candidate.value ->> '$.memory_id') || '"') = 'replayed'
        THEN 'replayed'
      WHEN shown.value ->> ('$."' || (candidate.value ->> '$.memory_id') || '"') = 'summarised'
        THEN 'summary_only'
      WHEN shown.value ->> ('$."' || (candidate.value ->> '$.memory_id') || '"') = 'neighbours'
        THEN 'neighbour'
      WHEN candidate.value ->> '$.excluded' IS NOT NULL
        THEN 'excluded'
      WHEN shown.value ->> ('$."' || (candidate.value ->> '$.memory_id') || '"') = 'window'
        THEN 'window'
      WHEN verdicts.value -> ('$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.keep' IS NOT 0
        THEN 'not_picked'
      WHEN verdicts.value -> ('$."' || (candidate.value ->> '$.memory_id') || '"') ->> '$.asked' = 0
        THEN 'not_asked'
      ELSE 'dropped'
    END                                              AS fate,
    asked.payload ->> '$.origin.route' IS 'opm import'  AS imported
FROM events AS asked
LEFT JOIN events AS gate
       ON gate.correlation_id = asked.correlation_id AND +gate.type = 'GateDecided'
      AND +gate.user_id = asked.user_id
LEFT JOIN events AS rerank
       ON rerank.correlation_id = asked.correlation_id AND +rerank.type = 'RerankDecided'
      AND +rerank.user_id = asked.user_id
LEFT JOIN events AS turn
       ON turn.correlation_id = asked.correlation_id AND +turn.type IN ('TurnRecorded', 'TurnFailed')
      AND +turn.user_id = asked.user_id
CROSS JOIN json_each(json_array((
    SELECT json_group_object(verdict.value ->> '$.memory_id', json_set(verdict.value, '$.asked', CASE
        WHEN gate.payload ->> '$.model' IS NULL
          THEN NULL
        WHEN gate.payload ->> '$.asked' IS NOT NULL
          THEN verdict.value ->> '$.n' <= gate.payload ->> '$.asked.candidates'
        ELSE verdict.value ->> '$.reason' IS NOT 'not asked about: the gate''s prompt had no room for it'
    END))
    FROM json_each(gate.payload, '$.verdicts') AS verdict))) AS verdicts
CROSS JOIN json_each(json_array((
    SELECT json_group_object(used.value, part.key)
    FROM json_each(turn.payload) AS part
    JOIN json_each(part.value) AS used
    WHERE part.key IN ('replayed', 'summarised', 'neighbours', 'window')))) AS shown
CROSS JOIN json_each(asked.payload, '$.candidates') AS candidate
WHERE likelihood(asked.type = 'RetrievalRecorded', 0.2) AND asked.salt <> '';

-- One row per memory in each answer that it served, with the text that it was shown by. Schema 1 did not record which
-- summary that was: most likely the one that held before the answer.
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
    CASE part.key
      WHEN 'summarised' THEN 'summary'
      WHEN 'neighbours' THEN 'neighbor'
      ELSE part.key
    END                                              AS shown_as,
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
       AND +asked.user_id = turn.user_id AND candidate.value ->> '$.memory_id' = used.value) AS dense_score,
    (SELECT coalesce(said.payload ->> '$.summary',
                     (memory.payload ->> '$.user') || char(10) || (memory.payload ->> '$.assistant'))
     FROM events AS memory
     LEFT JOIN events AS said ON said.position = (
         SELECT CASE asked.schema_version
                  WHEN 1 THEN coalesce(
                      (SELECT max(edit.position) FROM events AS edit
                       WHERE edit.causation_id = used.value AND edit.type = 'MemoryEdited'
                         AND +edit.user_id = turn.user_id AND +edit.position < turn.position),
                      (SELECT max(made.position) FROM events AS made
                       WHERE made.causation_id = used.value AND made.type = 'SummaryRecorded'
                         AND +made.user_id = turn.user_id AND +made.position < turn.position))
                  ELSE candidate.value ->> '$.summary_position'
                END
         FROM events AS asked JOIN json_each(asked.payload, '$.candidates') AS candidate
         WHERE asked.correlation_id = turn.correlation_id AND +asked.type = 'RetrievalRecorded'
           AND +asked.user_id = turn.user_id AND candidate.value ->> '$.memory_id' = used.value
           AND part.key = 'summarised')
     WHERE memory.event_id = used.value AND +memory.user_id = turn.user_id) AS shown_text
FROM events AS turn
JOIN json_each(turn.payload) AS part ON part.key IN ('replayed', 'summarised', 'neighbours', 'window')
JOIN json_each(part.value) AS used
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> '';

-- A row for each text that a memory was known by, with the time from which and until which it held. A person's
-- correction takes precedence over a model's summary, before and after it; after a withdrawal there is none.
CREATE VIEW memory_as_of AS
SELECT
    turn.event_id                                    AS memory_id,
    turn.user_id                                     AS user_id,
    turn.conversation_id                             AS conversation_id,
    turn.payload ->> '$.turn_id'                     AS turn_id,
    turn.payload ->> '$.ts'                          AS ts,
    turn.payload ->> '$.user'                        AS user,
    turn.payload ->> '$.assistant'                   AS assistant,
    NULL                                             AS summary,
    NULL                                             AS summary_source,
    turn.position                                    AS from_position,
    turn.recorded_at                                 AS valid_from,
    ended.position                                   AS until_position,
    ended.recorded_at                                AS valid_until
FROM events AS turn
LEFT JOIN events AS ended ON ended.position = (
    SELECT min(next.position) FROM events AS next
    WHERE next.causation_id = turn.event_id AND +next.position > turn.position AND +next.user_id = turn.user_id
      AND (next.type IN ('MemoryEdited', 'MemoryForgotten')
           OR next.type = 'SummaryRecorded' AND NOT EXISTS (
        SELECT 1 FROM events AS edit
        WHERE edit.causation_id = turn.event_id AND edit.type = 'MemoryEdited'
          AND +edit.user_id = turn.user_id AND +edit.position < next.position)))
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> ''
UNION ALL
SELECT
    turn.event_id                                    AS memory_id,
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
    said.position                                    AS from_position,
    said.recorded_at                                 AS valid_from,
    ended.position                                   AS until_position,
    ended.recorded_at                                AS valid_until
FROM events AS turn
JOIN events AS said
  ON said.causation_id = turn.event_id AND said.type IN ('MemoryEdited', 'SummaryRecorded')
 AND +said.user_id = turn.user_id
LEFT JOIN events AS ended ON ended.position = (
    SELECT min(next.position) FROM events AS next
    WHERE next.causation_id = turn.event_id AND +next.position > said.position AND +next.user_id = turn.user_id
      AND (next.type IN ('MemoryEdited', 'MemoryForgotten')
           OR next.type = 'SummaryRecorded' AND NOT EXISTS (
        SELECT 1 FROM events AS edit
        WHERE edit.causation_id = turn.event_id AND edit.type = 'MemoryEdited'
          AND +edit.user_id = turn.user_id AND +edit.position < next.position)))
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> ''
  AND (said.type = 'MemoryEdited' OR NOT EXISTS (
        SELECT 1 FROM events AS edit
        WHERE edit.causation_id = turn.event_id AND edit.type = 'MemoryEdited'
          AND +edit.user_id = turn.user_id AND +edit.position < said.position))
  AND NOT EXISTS (
    SELECT 1 FROM events AS word
    WHERE word.causation_id = turn.event_id AND word.type = 'MemoryForgotten'
      AND +word.user_id = turn.user_id AND +word.position < said.position);

-- A row for each thing that happened to a memory, its uses in answers included.
CREATE VIEW memory_history AS
SELECT
    change.event_id                                  AS memory_id,
    change.user_id                                   AS user_id,
    change.position                                  AS position,
    change.recorded_at                               AS recorded_at,
    CASE change.type
      WHEN 'TurnRecorded'    THEN CASE WHEN change.payload ->> '$.imported_from' IS NULL THEN 'said' ELSE 'imported' END
      WHEN 'SummaryRecorded' THEN 'summarised'
      WHEN 'SummaryFailed'   THEN 'summary_failed'
      WHEN 'MemoryEdited'    THEN 'corrected'
      WHEN 'MemoryForgotten' THEN 'forgotten'
    END                                        AS what,
    CASE change.type
      WHEN 'TurnRecorded' THEN (change.payload ->> '$.user') || char(10) || (change.payload ->> '$.assistant')
      ELSE change.payload ->> '$.summary'
    END                                   AS text,
    change.payload ->> '$.origin.actor'              AS actor,
    change.payload ->> '$.origin.request_id'         AS request_id,
    change.correlation_id                            AS correlation_id
FROM events AS change
WHERE likelihood(change.type = 'TurnRecorded', 0.2) AND change.salt <> ''
UNION ALL
SELECT
    change.causation_id                              AS memory_id,
    change.user_id                                   AS user_id,
    change.position                                  AS position,
    change.recorded_at                               AS recorded_at,
    CASE change.type
      WHEN 'TurnRecorded'    THEN CASE WHEN change.payload ->> '$.imported_from' IS NULL THEN 'said' ELSE 'imported' END
      WHEN 'SummaryRecorded' THEN 'summarised'
      WHEN 'SummaryFailed'   THEN 'summary_failed'
      WHEN 'MemoryEdited'    THEN 'corrected'
      WHEN 'MemoryForgotten' THEN 'forgotten'
    END                                        AS what,
    coalesce(change.payload ->> '$.summary', change.payload ->> '$.reason', change.payload ->> '$.error') AS text,
    change.payload ->> '$.origin.actor'              AS actor,
    change.payload ->> '$.origin.request_id'         AS request_id,
    change.correlation_id                            AS correlation_id
FROM events AS change
WHERE change.type IN ('SummaryRecorded', 'SummaryFailed', 'MemoryEdited', 'MemoryForgotten') AND change.salt <> ''
  AND EXISTS (
    SELECT 1 FROM events AS turn
    WHERE turn.event_id = change.causation_id AND +turn.user_id = change.user_id AND +turn.type = 'TurnRecorded')
UNION ALL
SELECT
    used.value                                       AS memory_id,
    turn.user_id                                     AS user_id,
    turn.position                                    AS position,
    turn.recorded_at                                 AS recorded_at,
    CASE part.key
      WHEN 'replayed'   THEN 'used as replayed'
      WHEN 'summarised' THEN 'used as summary'
      WHEN 'neighbours' THEN 'used as neighbor'
    END                                              AS what,
    turn.payload ->> '$.user'                        AS text,
    turn.payload ->> '$.origin.actor'                AS actor,
    turn.payload ->> '$.origin.request_id'           AS request_id,
    turn.correlation_id                              AS correlation_id
FROM events AS turn
JOIN json_each(turn.payload) AS part ON part.key IN ('replayed', 'summarised', 'neighbours')
JOIN json_each(part.value) AS used
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> '';

-- One row per event that changed what is remembered.
CREATE VIEW changes AS
SELECT
    change.position                                  AS position,
    change.recorded_at                               AS recorded_at,
    change.user_id                                   AS user_id,
    change.conversation_id                           AS conversation_id,
    CASE change.type
      WHEN 'TurnRecorded' THEN change.event_id
      ELSE change.causation_id
    END                                              AS memory_id,
    CASE change.type
      WHEN 'TurnRecorded'    THEN CASE WHEN change.payload ->> '$.imported_from' IS NULL THEN 'said' ELSE 'imported' END
      WHEN 'SummaryRecorded' THEN 'summarised'
      WHEN 'SummaryFailed'   THEN 'summary_failed'
      WHEN 'MemoryEdited'    THEN 'corrected'
      WHEN 'MemoryForgotten' THEN 'forgotten'
    END                                        AS what,
    CASE change.type
      WHEN 'TurnRecorded' THEN (change.payload ->> '$.user') || char(10) || (change.payload ->> '$.assistant')
      ELSE change.payload ->> '$.summary'
    END                                   AS text,
    coalesce(change.payload ->> '$.reason', change.payload ->> '$.origin.reason') AS reason,
    change.payload ->> '$.origin.actor' AS actor,
    change.payload ->> '$.origin.route' AS route,
    change.payload ->> '$.origin.client' AS client,
    change.payload ->> '$.origin.request_id' AS request_id
FROM events AS change
WHERE change.type IN ('TurnRecorded', 'SummaryRecorded', 'MemoryEdited', 'MemoryForgotten') AND change.salt <> '';

-- One row per model, prompts or settings that came into use.
CREATE VIEW activations AS
SELECT
    now.position                                     AS position,
    now.recorded_at                                  AS recorded_at,
    now.user_id                                      AS user_id,
    CASE now.type
      WHEN 'EmbeddingModelActivated' THEN 'embedding_model'
      WHEN 'PromptsActivated'        THEN 'prompts'
      WHEN 'SettingsActivated'       THEN 'settings'
    END                                              AS what,
    CASE now.type
      WHEN 'EmbeddingModelActivated' THEN now.payload ->> '$.model'
      WHEN 'PromptsActivated'        THEN now.payload ->> '$.versions'
      WHEN 'SettingsActivated'       THEN now.payload ->> '$.settings'
    END                                              AS value,
    now.payload ->> '$.dimensions'                   AS dimensions,
    now.payload ->> '$.base_url'                     AS base_url,
    now.payload ->> '$.texts'                        AS texts,
    now.payload ->> '$.origin.actor'                 AS actor,
    now.payload ->> '$.origin.route'                 AS route
FROM events AS now
WHERE now.type IN ('EmbeddingModelActivated', 'PromptsActivated', 'SettingsActivated') AND now.salt <> '';

-- The access log.
CREATE VIEW access AS
SELECT
    entry.id                                         AS id,
    entry.at                                         AS at,
    entry.request_id                                 AS request_id,
    entry.actor                                      AS actor,
    entry.client                                     AS client,
    entry.route                                      AS route,
    entry.status                                     AS status,
    entry.status IN (401, 403)                       AS refused,
    entry.user_id                                    AS user_id
FROM access_log AS entry;

-- Calls and tokens by month, person, stage and model. Imported turns cost nothing and are left out; of an embedding
-- call no tokens are recorded. The figures' indices hold what is read, but for what failed; SQLite reads them alone only
-- where nothing is summed up in the same SELECT.
CREATE VIEW usage_by_month AS
WITH answers AS MATERIALIZED (
    SELECT
        recorded_at                AS recorded_at,
        user_id                    AS user_id,
        'answer'                   AS stage,
        payload ->> '$.model'      AS model,
        0                          AS failed,
        payload ->> '$.usage.prompt_tokens' AS prompt_tokens,
        payload ->> '$.usage.completion_tokens' AS completion_tokens
    FROM events
    WHERE likelihood(type = 'TurnRecorded', 0.2) AND salt <> ''
      AND payload ->> '$.imported_from' IS NULL
), failures AS MATERIALIZED (
    SELECT
        recorded_at                AS recorded_at,
        user_id                    AS user_id,
        'answer'                   AS stage,
        payload ->> '$.model'      AS model,
        1                          AS failed,
        payload ->> '$.usage.prompt_tokens' AS prompt_tokens,
        payload ->> '$.usage.completion_tokens' AS completion_tokens
    FROM events
    WHERE likelihood(type = 'TurnFailed', 0.2) AND salt <> ''
      AND (payload ->> '$.origin.route' IS 'opm import') = 0
), gates AS MATERIALIZED (
    SELECT
        recorded_at                AS recorded_at,
        user_id                    AS user_id,
        'gate'                     AS stage,
        payload ->> '$.model'      AS model,
        payload ->> '$.outcome' = 'fallback' AS failed,
        payload ->> '$.usage.prompt_tokens' AS prompt_tokens,
        payload ->> '$.usage.completion_tokens' AS completion_tokens
    FROM events
    WHERE likelihood(type = 'GateDecided', 0.2) AND salt <> ''
      AND (payload ->> '$.origin.route' IS 'opm import') = 0
      AND payload ->> '$.model' IS NOT NULL
), reranks AS MATERIALIZED (
    SELECT
        recorded_at                AS recorded_at,
        user_id                    AS user_id,
        'rerank'                   AS stage,
        payload ->> '$.model'      AS model,
        payload ->> '$.outcome' = 'fallback' AS failed,
        payload ->> '$.usage.prompt_tokens' AS prompt_tokens,
        payload ->> '$.usage.completion_tokens' AS completion_tokens
    FROM events
    WHERE likelihood(type = 'RerankDecided', 0.2) AND salt <> ''
      AND (payload ->> '$.origin.route' IS 'opm import') = 0
      AND payload ->> '$.model' IS NOT NULL
), summed_up AS MATERIALIZED (
    SELECT
        recorded_at                AS recorded_at,
        user_id                    AS user_id,
        'summary'                  AS stage,
        payload ->> '$.model'      AS model,
        0                          AS failed,
        payload ->> '$.usage.prompt_tokens' AS prompt_tokens,
        payload ->> '$.usage.completion_tokens' AS completion_tokens
    FROM events
    WHERE likelihood(type = 'SummaryRecorded', 0.2) AND salt <> ''
      AND (payload ->> '$.origin.route' IS 'opm import') = 0
      AND payload ->> '$.model' <> 'imported'
), not_summed_up AS MATERIALIZED (
    SELECT
        recorded_at                AS recorded_at,
        user_id                    AS user_id,
        'summary'                  AS stage,
        payload ->> '$.model'      AS model,
        1                          AS failed,
        payload ->> '$.usage.prompt_tokens' AS prompt_tokens,
        payload ->> '$.usage.completion_tokens' AS completion_tokens
    FROM events
    WHERE likelihood(type = 'SummaryFailed', 0.2) AND salt <> ''
      AND (payload ->> '$.origin.route' IS 'opm import') = 0
), searches AS MATERIALIZED (
    SELECT
        recorded_at                AS recorded_at,
        user_id                    AS user_id,
        'embed'                    AS stage,
        payload ->> '$.embedding_model' AS model,
        payload ->> '$.outcome' = 'degraded' AS failed,
        NULL                       AS prompt_tokens,
        NULL                       AS completion_tokens
    FROM events
    WHERE likelihood(type = 'RetrievalRecorded', 0.2) AND salt <> ''
      AND (payload ->> '$.origin.route' IS 'opm import') = 0
      AND payload ->> '$.embedding_model' IS NOT NULL
)
SELECT
    substr(recorded_at, 1, 7)                        AS month,
    user_id                                          AS user_id,
    stage                                            AS stage,
    model                                            AS model,
    count(*)                                         AS calls,
    sum(failed)                                      AS failed,
    sum(prompt_tokens)                               AS prompt_tokens,
    sum(completion_tokens)                           AS completion_tokens
FROM (
    SELECT * FROM answers
    UNION ALL SELECT * FROM failures
    UNION ALL SELECT * FROM gates
    UNION ALL SELECT * FROM reranks
    UNION ALL SELECT * FROM summed_up
    UNION ALL SELECT * FROM not_summed_up
    UNION ALL SELECT * FROM searches
)
GROUP BY month, user_id, stage, model;

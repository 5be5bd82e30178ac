-- The views and the index of revision 0007; 0007_branches.py says why they are as they are.

-- The turns of a conversation, for whoever passes over them without reading them. json_valid lets a payload be written
-- that is not JSON, which only damage does.
CREATE INDEX events_branch ON events (
    user_id, conversation_id, version, event_id,
    CASE WHEN json_valid(payload) THEN payload ->> '$.turn_id' END,
    CASE WHEN json_valid(payload) THEN payload ->> '$.follows' END,
    CASE WHEN json_valid(payload) THEN payload ->> '$.exchange_key' END
) WHERE type = 'TurnRecorded' AND salt <> '';

-- One row per time that a memory was hidden, with what took that back. An event that was blanked with the answer it came
-- with goes on hiding another turn, so payloads that an erasure of a part left count too.
CREATE VIEW hidings AS
SELECT
    hidden.causation_id                              AS memory_id,
    hidden.user_id                                   AS user_id,
    hidden.conversation_id                           AS conversation_id,
    CASE hidden.type
      WHEN 'MemoryForgotten' THEN 'forgotten'
      WHEN 'TurnSuperseded'  THEN 'superseded'
    END                                              AS hidden_by,
    hidden.payload ->> '$.reason'                    AS reason,
    hidden.position                                  AS from_position,
    hidden.recorded_at                               AS hidden_at,
    (SELECT min(back.position) FROM events AS back
     WHERE back.causation_id = hidden.causation_id
       AND back.type = CASE hidden.type WHEN 'MemoryForgotten' THEN 'MemoryRestored' ELSE 'TurnRestored' END
       AND +back.user_id = hidden.user_id AND back.position > hidden.position)
                                                     AS until_position
FROM events AS hidden
WHERE hidden.type IN ('MemoryForgotten', 'TurnSuperseded') AND hidden.payload <> '{}';

-- One row per remembered turn, as it is today. Of several events that hide it in the same way, the first one counts.
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
    withdrawn.payload ->> '$.reason'                 AS forgotten_reason,
    replaced.recorded_at                             AS superseded_at,
    replaced.position IS NOT NULL                    AS superseded,
    replaced.payload ->> '$.reason'                  AS superseded_reason
FROM events AS turn
LEFT JOIN events AS said ON said.position = coalesce(
    (SELECT max(edit.position) FROM events AS edit
     WHERE edit.causation_id = turn.event_id AND edit.type = 'MemoryEdited' AND +edit.user_id = turn.user_id),
    (SELECT max(model.position) FROM events AS model
     WHERE model.causation_id = turn.event_id AND model.type = 'SummaryRecorded' AND +model.user_id = turn.user_id))
LEFT JOIN events AS withdrawn ON withdrawn.position =
    (SELECT min(now.from_position) FROM hidings AS now
     WHERE now.memory_id = turn.event_id AND +now.user_id = turn.user_id
       AND now.hidden_by = 'forgotten' AND now.until_position IS NULL)
LEFT JOIN events AS replaced ON replaced.position =
    (SELECT min(now.from_position) FROM hidings AS now
     WHERE now.memory_id = turn.event_id AND +now.user_id = turn.user_id
       AND now.hidden_by = 'superseded' AND now.until_position IS NULL)
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> '';

-- One row per conversation in which something was asked.
CREATE VIEW conversations AS
SELECT
    talk.user_id                                     AS user_id,
    talk.conversation_id                             AS conversation_id,
    talk.turns                                       AS turns,
    talk.failed_turns                                AS failed_turns,
    (SELECT count(DISTINCT now.memory_id) FROM hidings AS now
     WHERE now.user_id = talk.user_id AND now.conversation_id = talk.conversation_id
       AND now.hidden_by = 'forgotten' AND now.until_position IS NULL)
                                                     AS forgotten,
    (SELECT count(DISTINCT now.memory_id) FROM hidings AS now
     WHERE now.user_id = talk.user_id AND now.conversation_id = talk.conversation_id
       AND now.hidden_by = 'superseded' AND now.until_position IS NULL)
                                                     AS superseded,
    talk.first_at                                    AS first_at,
    talk.last_at                                     AS last_at,
    opening.payload ->> '$.user'                     AS title
FROM (
    SELECT
        user_id,
        conversation_id,
        count(*) FILTER (WHERE type = 'TurnRecorded')        AS turns,
        count(*) FILTER (WHERE type = 'TurnFailed')          AS failed_turns,
        min(recorded_at)                                     AS first_at,
        max(recorded_at)                                     AS last_at,
        min(position) FILTER (WHERE type = 'TurnRecorded')   AS opening_position
    FROM events
    WHERE type IN ('TurnRecorded', 'TurnFailed') AND salt <> ''
    GROUP BY user_id, conversation_id
) AS talk
LEFT JOIN events AS opening ON opening.position = talk.opening_position;

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
    asked.payload ->> '$.origin.route' IS 'opm import'  AS imported,
    (SELECT min(now.hidden_by) FROM hidings AS now
     WHERE now.memory_id = candidate.value ->> '$.memory_id' AND +now.user_id = asked.user_id
       AND now.until_position IS NULL)               AS hidden_by
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

-- A row for each text that a memory was known by, with the time from which and until which it held. A person's
-- correction takes precedence over a model's summary, before and after it. While a memory is hidden there is none; what
-- brings it back begins another row.
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
      AND (next.type IN ('MemoryEdited', 'MemoryForgotten', 'MemoryRestored', 'TurnSuperseded', 'TurnRestored')
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
    since.position                                   AS from_position,
    since.recorded_at                                AS valid_from,
    ended.position                                   AS until_position,
    ended.recorded_at                                AS valid_until
FROM events AS turn
JOIN events AS since
  ON since.causation_id = turn.event_id
 AND since.type IN ('MemoryEdited', 'SummaryRecorded', 'MemoryRestored', 'TurnRestored')
 AND +since.user_id = turn.user_id
LEFT JOIN events AS said ON said.position = coalesce(
    (SELECT max(edit.position) FROM events AS edit
     WHERE edit.causation_id = turn.event_id AND edit.type = 'MemoryEdited'
       AND +edit.user_id = turn.user_id AND edit.position <= since.position),
    (SELECT max(made.position) FROM events AS made
     WHERE made.causation_id = turn.event_id AND made.type = 'SummaryRecorded'
       AND +made.user_id = turn.user_id AND made.position <= since.position))
LEFT JOIN events AS ended ON ended.position = (
    SELECT min(next.position) FROM events AS next
    WHERE next.causation_id = turn.event_id AND +next.position > since.position AND +next.user_id = turn.user_id
      AND (next.type IN ('MemoryEdited', 'MemoryForgotten', 'MemoryRestored', 'TurnSuperseded', 'TurnRestored')
           OR next.type = 'SummaryRecorded' AND NOT EXISTS (
        SELECT 1 FROM events AS edit
        WHERE edit.causation_id = turn.event_id AND edit.type = 'MemoryEdited'
          AND +edit.user_id = turn.user_id AND +edit.position < next.position)))
WHERE likelihood(turn.type = 'TurnRecorded', 0.2) AND turn.salt <> ''
  AND (since.type <> 'SummaryRecorded' OR NOT EXISTS (
        SELECT 1 FROM events AS edit
        WHERE edit.causation_id = turn.event_id AND edit.type = 'MemoryEdited'
          AND +edit.user_id = turn.user_id AND +edit.position < since.position))
  AND NOT EXISTS (
    SELECT 1 FROM hidings AS held
    WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.from_position <= since.position
      AND (held.until_position IS NULL OR held.until_position > since.position));

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
      WHEN 'MemoryRestored'  THEN 'restored'
      WHEN 'TurnSuperseded'  THEN 'superseded'
      WHEN 'TurnRestored'    THEN 'returned_to'
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
      WHEN 'MemoryRestored'  THEN 'restored'
      WHEN 'TurnSuperseded'  THEN 'superseded'
      WHEN 'TurnRestored'    THEN 'returned_to'
    END                                        AS what,
    coalesce(change.payload ->> '$.summary', change.payload ->> '$.reason', change.payload ->> '$.error') AS text,
    change.payload ->> '$.origin.actor'              AS actor,
    change.payload ->> '$.origin.request_id'         AS request_id,
    change.correlation_id                            AS correlation_id
FROM events AS change
WHERE change.type IN ('SummaryRecorded', 'SummaryFailed', 'MemoryEdited', 'MemoryForgotten', 'MemoryRestored',
                      'TurnSuperseded', 'TurnRestored')
  AND change.salt <> ''
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
      WHEN 'MemoryRestored'  THEN 'restored'
      WHEN 'TurnSuperseded'  THEN 'superseded'
      WHEN 'TurnRestored'    THEN 'returned_to'
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
WHERE change.type IN ('TurnRecorded', 'SummaryRecorded', 'MemoryEdited', 'MemoryForgotten', 'MemoryRestored',
                      'TurnSuperseded', 'TurnRestored')
  AND change.salt <> '';

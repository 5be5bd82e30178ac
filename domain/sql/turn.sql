-- What one chat turn asks of memory. Its cost must not grow with the history: no statement here may walk all events
-- or all of a user's turns. A unary + keeps SQLite's planner from using an index on that column.
--
-- :as_of is a position of the ledger. The answer is the one that was true when the event there was the last one; give
-- 4611686018427387904 (2 to the 62) for today's.
--
-- :chars_max bounds what is read of a turn: the payload of one that has more characters is NULL, and long_turns gives
-- it with shortened texts. Give 4611686018427387904 for whole texts.
--
-- A turn is hidden while a person has forgotten it or its conversation has gone on without it. The view hidings says
-- from which event to which; it has no row for most turns.
--
-- Where many turns are read, all come in one row, as a JSON array of arrays: the driver lets go of Python's interpreter
-- at every row, and the threads of a busy service then wait for each other sixty times
-- (docs/decisions/0013-few-threads-and-few-rows.md).

-- name: recent_turns
-- The newest turns of a conversation, each with its newest summary; hidden ones are left out. In no order.
-- What a person wrote stands, even where a model's summary came after it, hence the coalesce.
-- +position: nearly all turns are below :as_of, so the index on positions would walk them all.
-- INDEXED BY: a conversation may have left many turns behind, and this index tells them without reading them.
SELECT json_group_array(json_array(position, event_id, conversation_id, schema_version, payload,
                                   summary_version, summary, summary_type, summary_position))
FROM (
    SELECT turn.position,
           turn.event_id,
           turn.conversation_id,
           turn.schema_version,
           CASE WHEN length(turn.payload) <= :chars_max THEN turn.payload END AS payload,
           summary.schema_version AS summary_version,
           summary.payload AS summary,
           summary.type AS summary_type,
           summary.position AS summary_position
    FROM events AS turn INDEXED BY events_branch
    LEFT JOIN events AS summary ON summary.position = coalesce(
        (SELECT max(position) FROM events
         WHERE causation_id = turn.event_id AND type = 'MemoryEdited' AND user_id = turn.user_id AND position <= :as_of),
        (SELECT max(position) FROM events
         WHERE causation_id = turn.event_id AND type = 'SummaryRecorded' AND user_id = turn.user_id AND position <= :as_of)
    )
    WHERE turn.user_id = :user_id
      AND turn.conversation_id = :conversation_id
      AND turn.type = 'TurnRecorded'
      AND turn.salt <> ''
      AND +turn.position <= :as_of
      AND (:before_turn IS NULL
           OR CASE WHEN json_valid(turn.payload) THEN json_extract(turn.payload, '$.turn_id') END < :before_turn)
      AND NOT EXISTS (
        SELECT 1 FROM hidings AS held
        WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.from_position <= :as_of
          AND coalesce(held.until_position, :as_of + 1) > :as_of
      )
    ORDER BY turn.version DESC
    LIMIT :count
);

-- name: memories
-- A user's turns at the positions in the JSON array :positions, each with its newest summary, in no order. What is
-- not this user's turn, or is hidden, is left out.
-- All events about these turns are grouped first, by keys alone: for sixty turns that is quicker than asking of each
-- which summary is the newest, and of a memory that was edited a hundred times one text is read.
SELECT json_group_array(json_array(
           turn.position, turn.event_id, turn.conversation_id, turn.schema_version,
           CASE WHEN length(turn.payload) <= :chars_max THEN turn.payload END,
           summary.schema_version, summary.payload, summary.type, summary.position))
FROM (
    SELECT found.position,
           coalesce(
               max(CASE WHEN about.type = 'MemoryEdited' THEN about.position END),
               max(CASE WHEN about.type = 'SummaryRecorded' THEN about.position END)
           ) AS summary_position
    FROM events AS found
    LEFT JOIN events AS about
      ON about.causation_id = found.event_id
     AND +about.type IN ('SummaryRecorded', 'MemoryEdited')
     AND +about.user_id = found.user_id
     AND about.position <= :as_of
    WHERE found.position IN (SELECT value FROM json_each(:positions))
      AND +found.type = 'TurnRecorded'
      AND found.salt <> ''
      AND +found.user_id = :user_id
      AND +found.position <= :as_of
      AND NOT EXISTS (
        SELECT 1 FROM hidings AS held
        WHERE held.memory_id = found.event_id AND +held.user_id = found.user_id AND held.from_position <= :as_of
          AND coalesce(held.until_position, :as_of + 1) > :as_of
      )
    GROUP BY found.position
) AS remembered
JOIN events AS turn ON turn.position = remembered.position
LEFT JOIN events AS summary ON summary.position = remembered.summary_position;

-- name: neighbors
-- The turns at most :reach before or after a user's turns at :positions (a JSON array), each in its own
-- conversation, as "memories" gives them. The turns asked about may be among them.
-- "asked" is not filtered by user, or SQLite walks all events of that user; whose turns come back is asked of "found".
SELECT json_group_array(json_array(
           turn.position, turn.event_id, turn.conversation_id, turn.schema_version,
           CASE WHEN length(turn.payload) <= :chars_max THEN turn.payload END,
           summary.schema_version, summary.payload, summary.type, summary.position))
FROM (
    SELECT found.position,
           coalesce(
               max(CASE WHEN about.type = 'MemoryEdited' THEN about.position END),
               max(CASE WHEN about.type = 'SummaryRecorded' THEN about.position END)
           ) AS summary_position
    FROM events AS found
    LEFT JOIN events AS about
      ON about.causation_id = found.event_id
     AND +about.type IN ('SummaryRecorded', 'MemoryEdited')
     AND +about.user_id = found.user_id
     AND about.position <= :as_of
    WHERE found.position IN (
        SELECT beside.position
        FROM events AS asked
        JOIN events AS beside
          ON beside.position IN (
              SELECT step.position FROM events AS step
              WHERE step.user_id = asked.user_id AND step.conversation_id = asked.conversation_id
                AND step.type = 'TurnRecorded' AND step.version < asked.version
              ORDER BY step.version DESC LIMIT :reach)
          OR beside.position IN (
              SELECT step.position FROM events AS step
              WHERE step.user_id = asked.user_id AND step.conversation_id = asked.conversation_id
                AND step.type = 'TurnRecorded' AND step.version > asked.version
              ORDER BY step.version LIMIT :reach)
        WHERE asked.position IN (SELECT value FROM json_each(:positions))
    )
      AND +found.type = 'TurnRecorded'
      AND found.salt <> ''
      AND +found.user_id = :user_id
      AND +found.position <= :as_of
      AND NOT EXISTS (
        SELECT 1 FROM hidings AS held
        WHERE held.memory_id = found.event_id AND +held.user_id = found.user_id AND held.from_position <= :as_of
          AND coalesce(held.until_position, :as_of + 1) > :as_of
      )
    GROUP BY found.position
) AS remembered
JOIN events AS turn ON turn.position = remembered.position
LEFT JOIN events AS summary ON summary.position = remembered.summary_position;

-- name: long_turns
-- The payloads of the turns at :positions (a JSON array), with question and answer each shortened to :chars_max
-- characters as domain/excerpt.py does it, and whether one of them was. The '' makes a text of it again.
SELECT json_group_array(json_array(
           position,
           '' || json_set(payload,
               '$.user', CASE WHEN length(user) <= :chars_max THEN user
                   ELSE substr(user, 1, :chars_max * 2 / 3) || ' […] ' ||
                        substr(user, length(user) - (:chars_max - :chars_max * 2 / 3) + 1) END,
               '$.assistant', CASE WHEN length(assistant) <= :chars_max THEN assistant
                   ELSE substr(assistant, 1, :chars_max * 2 / 3) || ' […] ' ||
                        substr(assistant, length(assistant) - (:chars_max - :chars_max * 2 / 3) + 1) END),
           max(length(user), length(assistant)) > :chars_max))
FROM (
    SELECT position, payload, json_extract(payload, '$.user') AS user, json_extract(payload, '$.assistant') AS assistant
    FROM events
    WHERE position IN (SELECT value FROM json_each(:positions)) AND json_valid(payload)
);

-- name: positions_beside
-- For each turn at :positions (a JSON array), the positions of up to :reach turns before and after it in its
-- conversation, as a JSON array each. Hidden turns count.
-- Not filtered by user, or SQLite walks all events of that user: the reader drops what is somebody else's.
SELECT json_group_array(json_array(
       turn.position,
       turn.user_id,
       json((SELECT json_group_array(position) FROM (
           SELECT step.position FROM events AS step
           WHERE step.user_id = turn.user_id AND step.conversation_id = turn.conversation_id
             AND step.type = 'TurnRecorded' AND step.version < turn.version AND step.position <= :as_of
           ORDER BY step.version DESC LIMIT :reach))),
       json((SELECT json_group_array(position) FROM (
           SELECT step.position FROM events AS step
           WHERE step.user_id = turn.user_id AND step.conversation_id = turn.conversation_id
             AND step.type = 'TurnRecorded' AND step.version > turn.version AND step.position <= :as_of
           ORDER BY step.version LIMIT :reach)))))
FROM events AS turn
WHERE turn.position IN (SELECT value FROM json_each(:positions));

-- name: branch
-- Every turn of a conversation, hidden or not, in order; and, as a second array, which of them are hidden by what.
-- INDEXED BY: this index holds all of it. Any other would read every turn of the conversation.
SELECT (
           SELECT json_group_array(json_array(position, event_id, version, turn_id, follows, exchange_key))
           FROM (
               SELECT position, event_id, version,
                      coalesce(CAST(CASE WHEN json_valid(payload) THEN payload ->> '$.turn_id' END AS INTEGER), 0)
                          AS turn_id,
                      CAST(CASE WHEN json_valid(payload) THEN payload ->> '$.follows' END AS TEXT) AS follows,
                      CAST(CASE WHEN json_valid(payload) THEN payload ->> '$.exchange_key' END AS TEXT) AS exchange_key
               FROM events INDEXED BY events_branch
               WHERE user_id = :user_id AND conversation_id = :conversation_id AND type = 'TurnRecorded' AND salt <> ''
               ORDER BY version
           )
       ) AS turns,
       (
           SELECT json_group_array(json_array(memory_id, hidden_by))
           FROM hidings
           WHERE user_id = :user_id AND until_position IS NULL
             AND memory_id IN (
                 SELECT event_id FROM events INDEXED BY events_branch
                 WHERE user_id = :user_id AND conversation_id = :conversation_id AND type = 'TurnRecorded' AND salt <> ''
             )
       ) AS hidden;

-- name: memory_state
-- Up to which event a user's memory and its embedding model have changed, how many people were erased, and where the
-- erasure of a part of anybody's memory last began or ended.
-- One subquery per type: asked for several types at once, SQLite walks all their events instead of taking the last.
SELECT max(
           (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'TurnRecorded'),
           (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'SummaryRecorded'),
           (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'MemoryEdited'),
           (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'MemoryForgotten'),
           (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'MemoryRestored'),
           (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'TurnSuperseded'),
           (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'TurnRestored')
       ) AS facets_at,
       max(
           (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'EmbeddingModelActivated'),
           (SELECT coalesce(max(position), 0) FROM events WHERE user_id = '' AND type = 'EmbeddingModelActivated')
       ) AS activated_at,
       (SELECT count(*) FROM events WHERE type = 'UserErased') AS begun,
       (SELECT count(*) FROM events WHERE type = 'UserErased' AND salt <> '') AS unfinished,
       max(
           (SELECT coalesce(max(position), 0) FROM events WHERE type = 'MemoriesErased'),
           (SELECT coalesce(max(position), 0) FROM events WHERE type = 'ErasureCompleted')
       ) AS parts_at;

-- name: active_embedding_model
-- What was activated last for a user or for everybody (the system's own stream, whose ids are empty).
SELECT *
FROM events
WHERE user_id IN ('', :user_id)
  AND type = 'EmbeddingModelActivated'
  AND conversation_id = ''
  AND position <= :as_of
ORDER BY position DESC
LIMIT 1;

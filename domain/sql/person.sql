-- What people ask of their own memory, or have asked for them: one by one, all of it, import and erasure.

-- name: memory
-- A user's memory by its id, with its newest summary, unless it is hidden.
SELECT turn.position,
       turn.event_id,
       turn.conversation_id,
       turn.schema_version,
       turn.payload,
       summary.schema_version AS summary_version,
       summary.payload AS summary,
       summary.type AS summary_type,
       summary.position AS summary_position
FROM events AS turn
LEFT JOIN events AS summary ON summary.position = coalesce(
    (SELECT max(position) FROM events
     WHERE causation_id = turn.event_id AND type = 'MemoryEdited' AND user_id = turn.user_id),
    (SELECT max(position) FROM events
     WHERE causation_id = turn.event_id AND type = 'SummaryRecorded' AND user_id = turn.user_id)
)
WHERE turn.event_id = :memory_id
  AND turn.user_id = :user_id
  AND turn.type = 'TurnRecorded'
  AND turn.salt <> ''
  AND NOT EXISTS (
    SELECT 1 FROM hidings AS held
    WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.until_position IS NULL
  );

-- name: memories_before
-- A user's memories before a position, newest first, without hidden ones: the pages of the memory list.
SELECT turn.position,
       turn.event_id,
       turn.conversation_id,
       turn.schema_version,
       turn.payload,
       summary.schema_version AS summary_version,
       summary.payload AS summary,
       summary.type AS summary_type,
       summary.position AS summary_position
FROM events AS turn
LEFT JOIN events AS summary ON summary.position = coalesce(
    (SELECT max(position) FROM events
     WHERE causation_id = turn.event_id AND type = 'MemoryEdited' AND user_id = turn.user_id),
    (SELECT max(position) FROM events
     WHERE causation_id = turn.event_id AND type = 'SummaryRecorded' AND user_id = turn.user_id)
)
WHERE turn.user_id = :user_id
  AND turn.type = 'TurnRecorded'
  AND turn.salt <> ''
  AND turn.position < :position
  AND NOT EXISTS (
    SELECT 1 FROM hidings AS held
    WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.until_position IS NULL
  )
ORDER BY turn.position DESC
LIMIT :count;

-- name: place_of
-- Where a user's turn stands, hidden or not: its conversation, that one's last version, and what hides it now.
SELECT turn.position,
       turn.conversation_id,
       EXISTS (
         SELECT 1 FROM hidings AS held
         WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id
           AND held.hidden_by = 'forgotten' AND held.until_position IS NULL
       ) AS forgotten,
       EXISTS (
         SELECT 1 FROM hidings AS held
         WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id
           AND held.hidden_by = 'superseded' AND held.until_position IS NULL
       ) AS superseded,
       CASE WHEN json_valid(turn.payload) THEN json_extract(turn.payload, '$.turn_id') ELSE 0 END AS turn_id,
       (SELECT max(version) FROM events
        WHERE user_id = turn.user_id AND conversation_id = turn.conversation_id) AS head_version
FROM events AS turn
WHERE turn.event_id = :memory_id
  AND turn.user_id = :user_id
  AND turn.type = 'TurnRecorded'
  AND turn.salt <> '';

-- name: owner_of
-- Whose memory has this id.
SELECT user_id
FROM events
WHERE event_id = :memory_id AND type = 'TurnRecorded' AND salt <> '';

-- name: owners_of_events
-- Whose the events in the JSON array :event_ids are.
SELECT event_id, user_id
FROM events
WHERE event_id IN (SELECT value FROM json_each(:event_ids));

-- name: positions_of_events
-- Where the events in the JSON array :event_ids stand.
SELECT event_id, position
FROM events
WHERE event_id IN (SELECT value FROM json_each(:event_ids));

-- name: has_event
-- Whether an event of this id stands in the ledger.
SELECT 1
FROM events
WHERE event_id = :event_id;

-- name: extent_of
-- How many events a user has, and in how many conversations; the user's own stream, whose id is empty, is none.
SELECT count(*) AS events,
       count(DISTINCT CASE WHEN conversation_id <> '' THEN conversation_id END) AS conversations
FROM events
WHERE user_id = :user_id;

-- name: version_of
-- The last version of a conversation, 0 where it has no event.
SELECT coalesce(max(version), 0) AS version
FROM events
WHERE user_id = :user_id AND conversation_id = :conversation_id;

-- name: stored_of_user
-- The next rows of one user after a position, in order, column by column as they are stored.
-- The page of positions is chosen from keys alone: else every page would be sorted out of complete rows.
SELECT position, event_id, user_id, conversation_id, version, type, schema_version, recorded_at,
       correlation_id, causation_id, payload, salt, identity_hash, payload_hash, prev_hash, hash
FROM events
WHERE position IN (
    SELECT position FROM events
    WHERE user_id = :user_id AND position > :position
    ORDER BY position
    LIMIT :count
)
ORDER BY position;

-- name: imported_turns
-- What a conversation has from a source: question, answer, the source's ids of their messages as a JSON array, and
-- whether the person has forgotten the turn.
SELECT json_extract(turn.payload, '$.user') AS user,
       json_extract(turn.payload, '$.assistant') AS assistant,
       coalesce(json_extract(turn.payload, '$.source_ids'), '[]') AS source_ids,
       EXISTS (
         SELECT 1 FROM hidings AS held
         WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id
           AND held.hidden_by = 'forgotten' AND held.until_position IS NULL
       ) AS forgotten
FROM events AS turn
WHERE turn.user_id = :user_id
  AND turn.conversation_id = :conversation_id
  AND turn.type = 'TurnRecorded'
  AND turn.salt <> ''
  AND CASE WHEN json_valid(turn.payload) THEN json_extract(turn.payload, '$.imported_from') END = :source;

-- name: hidings_of
-- What hides a user's memories in the JSON array :memory_ids now, in order.
SELECT held.memory_id, held.hidden_by, cause.event_id
FROM hidings AS held
JOIN events AS cause ON cause.position = held.from_position
WHERE held.memory_id IN (SELECT value FROM json_each(:memory_ids))
  AND +held.user_id = :user_id
  AND held.until_position IS NULL
ORDER BY held.from_position;

-- name: erasures_begun
-- The erasures that are not finished, in order: their events still name their users.
SELECT user_id, event_id
FROM events
WHERE type = 'UserErased' AND salt <> ''
ORDER BY position;

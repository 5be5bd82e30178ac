-- What a person is shown again of their conversations.
-- Here and elsewhere json_valid keeps one damaged payload from failing the whole statement.

-- name: users
-- The people who have memories, whose last one was recorded last first. Hidden ones do not count.
-- Of all turns it reads the index of their figures alone; of hidden ones there are few.
SELECT talk.user_id,
       talk.turns - coalesce(held.turns, 0) AS memories,
       talk.last_recorded_at
FROM (
    SELECT user_id, count(*) AS turns, max(recorded_at) AS last_recorded_at
    FROM events
    WHERE type = 'TurnRecorded' AND salt <> ''
    GROUP BY user_id
) AS talk
LEFT JOIN (
    SELECT turn.user_id, count(DISTINCT turn.position) AS turns
    FROM hidings AS held
    JOIN events AS turn ON turn.event_id = held.memory_id AND +turn.user_id = held.user_id
    WHERE held.until_position IS NULL AND turn.type = 'TurnRecorded' AND turn.salt <> ''
    GROUP BY turn.user_id
) AS held ON held.user_id = talk.user_id
WHERE memories > 0
ORDER BY talk.last_recorded_at DESC, talk.user_id
LIMIT :count;

-- name: conversations
-- A user's conversations, the one used last first. One of which every turn is hidden is not among them.
-- Title and time are read for the conversations of the page alone, hence the subquery.
SELECT page.conversation_id,
       page.turns,
       CASE WHEN json_valid(last_turn.payload) THEN json_extract(last_turn.payload, '$.ts') END AS last_ts,
       last_turn.recorded_at AS last_recorded_at,
       CASE WHEN json_valid(first_turn.payload) THEN json_extract(first_turn.payload, '$.user') END AS title
FROM (
    SELECT turn.conversation_id,
           max(turn.position) AS last_position,
           min(turn.position) AS first_position,
           count(*) AS turns
    FROM events AS turn
    WHERE turn.user_id = :user_id
      AND turn.type = 'TurnRecorded'
      AND turn.salt <> ''
      AND NOT EXISTS (
        SELECT 1 FROM hidings AS held
        WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.until_position IS NULL
      )
    GROUP BY turn.conversation_id
    ORDER BY last_position DESC
    LIMIT :count
) AS page
JOIN events AS last_turn ON last_turn.position = page.last_position
JOIN events AS first_turn ON first_turn.position = page.first_position
ORDER BY page.last_position DESC;

-- name: answers_at
-- The turn, retrieval, gate and rerank of each answer whose turn stands at one of :positions (a JSON array).
-- Found by position and by correlation id; the + keeps the planner from the index on users.
SELECT turn.position, part.position AS part_position, part.type, part.schema_version, part.payload
FROM events AS turn
JOIN events AS part ON part.correlation_id = turn.correlation_id AND +part.user_id = turn.user_id
WHERE turn.position IN (SELECT value FROM json_each(:positions))
  AND +turn.user_id = :user_id
  AND +turn.type = 'TurnRecorded'
  AND part.salt <> ''
  AND +part.type IN ('TurnRecorded', 'RetrievalRecorded', 'GateDecided', 'RerankDecided');

-- name: positions_of
-- Where a user's events in the JSON array :event_ids stand.
-- +user_id: else all events of the user are walked in search of these.
SELECT position
FROM events
WHERE event_id IN (SELECT value FROM json_each(:event_ids)) AND +user_id = :user_id;

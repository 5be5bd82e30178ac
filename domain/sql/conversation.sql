-- What a request that comes with a client's own history asks: to which recorded turns does it go on?

-- name: turns_by_exchange
-- A user's turns whose exchange is one of :keys (a JSON array), see TurnRecorded.exchange_key. The key is written as the
-- index has it.
SELECT position, event_id AS memory_id, conversation_id, version,
       CASE WHEN json_valid(payload) THEN payload ->> '$.exchange_key' END AS key
FROM events INDEXED BY events_exchange_key
WHERE user_id = :user_id
  AND type = 'TurnRecorded'
  AND salt <> ''
  AND CASE WHEN json_valid(payload) THEN payload ->> '$.exchange_key' END IN (SELECT value FROM json_each(:keys));

-- name: newest_turn
-- The newest turn of a conversation that is not hidden.
SELECT turn.position, turn.event_id AS memory_id
FROM events AS turn
WHERE turn.user_id = :user_id
  AND turn.conversation_id = :conversation_id
  AND turn.type = 'TurnRecorded'
  AND turn.salt <> ''
  AND NOT EXISTS (
    SELECT 1 FROM hidings AS held
    WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.until_position IS NULL
  )
ORDER BY turn.version DESC
LIMIT 1;

-- name: newest_answer
-- The event with which the last answer of a conversation ended, whatever became of it.
SELECT *
FROM events
WHERE user_id = :user_id
  AND conversation_id = :conversation_id
  AND type IN ('TurnRecorded', 'TurnFailed', 'ToolsCalled')
  AND salt <> ''
ORDER BY version DESC
LIMIT 1;

-- name: tools_called
-- The last :count answers of a user that called tools.
SELECT *
FROM events
WHERE user_id = :user_id
  AND type = 'ToolsCalled'
  AND salt <> ''
ORDER BY position DESC
LIMIT :count;

-- name: turn_of_request
-- The turn of a user that was recorded with a request's key, if it is among the last 100: clients ask again at once.
SELECT *
FROM (
    SELECT *
    FROM events
    WHERE user_id = :user_id
      AND type = 'TurnRecorded'
      AND salt <> ''
    ORDER BY position DESC
    LIMIT 100
)
WHERE payload ->> '$.request_key' = :request_key
ORDER BY position DESC
LIMIT 1;

-- name: turns_followed
-- A turn of a user and at most :count - 1 of those before it on its branch, newest first; forgotten ones are left out.
-- A turn that does not say which one it follows was recorded before turns did, or imported: then it is the one before
-- it in the conversation. In the conversation :shared many chats begin, so what comes before a turn there is not of its.
WITH RECURSIVE branch (event_id, depth) AS (
    VALUES (:event_id, 1)
    UNION ALL
    SELECT CASE
               WHEN NOT json_valid(turn.payload) THEN NULL
               WHEN turn.payload ->> '$.follows' IS NOT NULL THEN turn.payload ->> '$.follows'
               WHEN turn.payload ->> '$.exchange_key' IS NULL THEN (
                   SELECT event_id FROM events
                   WHERE user_id = turn.user_id
                     AND conversation_id = turn.conversation_id
                     AND type = 'TurnRecorded'
                     AND version < turn.version
                     AND salt <> ''
                   ORDER BY version DESC LIMIT 1)
           END,
           branch.depth + 1
    FROM branch
    JOIN events AS turn ON turn.event_id = branch.event_id
    WHERE branch.depth < :count
      AND turn.user_id = :user_id
      AND turn.conversation_id <> :shared
      AND turn.type = 'TurnRecorded'
      AND turn.salt <> ''
)
SELECT turn.*
FROM branch
JOIN events AS turn ON turn.event_id = branch.event_id
WHERE turn.user_id = :user_id
  AND turn.type = 'TurnRecorded'
  AND turn.salt <> ''
  AND (
    SELECT type FROM events
    WHERE causation_id = turn.event_id
      AND user_id = turn.user_id
      AND type IN ('MemoryForgotten', 'MemoryRestored')
    ORDER BY position DESC LIMIT 1
  ) IS NOT 'MemoryForgotten'
ORDER BY branch.depth;

-- name: is_withdrawn
-- Whether an answer of a user, by the id of its event, was deleted or forgotten, and not restored since.
SELECT (
    SELECT type FROM events
    WHERE causation_id = :event_id
      AND user_id = :user_id
      AND type IN ('MemoryForgotten', 'MemoryRestored', 'ResponseDeleted')
    ORDER BY position DESC LIMIT 1
) IN ('MemoryForgotten', 'ResponseDeleted') AS withdrawn;

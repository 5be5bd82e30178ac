-- What a request that comes with a client's own history asks: to which recorded turns does it go on?

-- name: turns_by_exchange
-- A user's turns whose exchange is one of :keys (a JSON array), see TurnRecorded.exchange_key.
SELECT position, event_id AS memory_id, conversation_id, version, payload ->> '$.exchange_key' AS key
FROM events
WHERE user_id = :user_id
  AND type = 'TurnRecorded'
  AND salt <> ''
  AND payload ->> '$.exchange_key' IS NOT NULL
  AND payload ->> '$.exchange_key' IN (SELECT value FROM json_each(:keys));

-- name: newest_turn
-- The newest turn of a conversation that is not hidden, and whether it was asked with a history of the client's own.
SELECT turn.position,
       turn.event_id AS memory_id,
       json_type(turn.payload, '$.from_client.history') = 'array' AS resent,
       turn.payload ->> '$.origin.client' AS client
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

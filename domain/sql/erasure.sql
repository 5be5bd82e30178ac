-- The blanking of an erased person's events, or of a part of their memory. The triggers let an UPDATE pass only where
-- the person's stream has a UserErased event, and only one that takes payload, salt and ids; or where it has a
-- MemoriesErased event that lists the position, and only one that takes payload and salt and names that event.

-- name: next_conversation_to_blank
-- The conversation to blank next, and the first version it has left under the user's id. One that an interrupted
-- run left half done begins late, and comes first.
SELECT conversation_id, min(version) AS first_version
FROM events
WHERE user_id = :user_id AND conversation_id <> ''
GROUP BY conversation_id
ORDER BY first_version DESC, conversation_id
LIMIT 1;

-- name: count_blanked_conversations
-- How many conversations already stand under the pseudonym.
SELECT count(DISTINCT conversation_id)
FROM events
WHERE user_id = :pseudonym AND conversation_id <> '';

-- name: blank_conversation
-- Blank a conversation's events below a version.
UPDATE events
SET payload = '{}', salt = '', user_id = :pseudonym, conversation_id = :number
WHERE user_id = :user_id AND conversation_id = :conversation_id AND version < :end_version;

-- name: blank_own_stream
-- Blank what is left of a user, the UserErased event excepted.
UPDATE events
SET payload = '{}', salt = '', user_id = :pseudonym
WHERE user_id = :user_id AND type <> 'UserErased';

-- name: blank_erasure
-- Blank the UserErased event itself, last: once the trigger does not find it, it lets no further event pass.
UPDATE events
SET payload = '{}', salt = '', user_id = :pseudonym
WHERE user_id = :user_id AND type = 'UserErased';

-- name: blank_positions
-- Blank a user's events at the positions in the JSON array :positions. :blank names the MemoriesErased event.
UPDATE events
SET payload = :blank, salt = ''
WHERE position IN (SELECT value FROM json_each(:positions)) AND +user_id = :user_id AND salt <> '';

-- name: positions_of_memories
-- Where everything stands that belongs to a user's turns in the JSON array :memory_ids and is left: the turns, what is
-- about them, and what led to their answers.
SELECT position FROM events
WHERE event_id IN (SELECT value FROM json_each(:memory_ids)) AND +user_id = :user_id AND salt <> ''
UNION
SELECT position FROM events
WHERE causation_id IN (SELECT value FROM json_each(:memory_ids))
  AND +user_id = :user_id AND conversation_id <> '' AND salt <> ''
UNION
SELECT part.position
FROM events AS turn
JOIN events AS part ON part.correlation_id = turn.correlation_id AND +part.user_id = turn.user_id
WHERE turn.event_id IN (SELECT value FROM json_each(:memory_ids)) AND +turn.user_id = :user_id
  AND part.conversation_id <> '' AND part.salt <> ''
ORDER BY position;

-- name: positions_of_conversation
-- Where the events of a conversation stand that are left.
SELECT position
FROM events
WHERE user_id = :user_id AND conversation_id = :conversation_id AND salt <> ''
ORDER BY position;

-- name: positions_before
-- Where the events of a user's conversations stand that are left and were recorded before :moment, or say that what
-- they are of took place before it, or are about such a turn.
SELECT position
FROM events
WHERE user_id = :user_id AND conversation_id <> '' AND salt <> ''
  AND (recorded_at < :moment
       OR (type IN ('TurnRecorded', 'TurnFailed') AND julianday(payload ->> '$.ts') < julianday(:moment)))
UNION
SELECT about.position
FROM events AS turn
JOIN events AS about
  ON (about.causation_id = turn.event_id OR about.correlation_id = turn.correlation_id)
 AND +about.user_id = turn.user_id AND about.conversation_id <> '' AND about.salt <> ''
WHERE turn.user_id = :user_id AND turn.type = 'TurnRecorded' AND turn.salt <> ''
  AND (turn.recorded_at < :moment OR julianday(turn.payload ->> '$.ts') < julianday(:moment))
ORDER BY position;

-- name: conversations_at
-- The conversations of a user that have an event at one of the positions in the JSON array :positions.
SELECT DISTINCT conversation_id
FROM events
WHERE position IN (SELECT value FROM json_each(:positions)) AND +user_id = :user_id
ORDER BY conversation_id;

-- name: events_of_user_after
-- The next events of a user after a position, in order, of the types in the JSON array :types, that are left.
-- The page of positions is chosen from keys alone: else every page would be sorted out of complete rows.
SELECT *
FROM events
WHERE position IN (
    SELECT position FROM events
    WHERE user_id = :user_id AND type IN (SELECT value FROM json_each(:types)) AND position > :position
    ORDER BY position
    LIMIT :count
)
ORDER BY position;

-- name: all_users_after
-- The next users of whom anything is kept, in the order of their ids. The system's own stream is nobody's.
SELECT DISTINCT user_id
FROM events
WHERE user_id > :user_id AND user_id NOT LIKE 'erased:%'
ORDER BY user_id
LIMIT :count;

-- name: is_completed
-- Whether an erasure is done in every file.
SELECT 1
FROM events
WHERE causation_id = :event_id AND type = 'ErasureCompleted';

-- name: parts_begun
-- The erasures of a part of somebody's memory that are not completed, in order.
SELECT *
FROM events AS begun
WHERE type = 'MemoriesErased' AND salt <> ''
  AND NOT EXISTS (
    SELECT 1 FROM events WHERE causation_id = begun.event_id AND type = 'ErasureCompleted'
  )
ORDER BY position;

-- The blanking of an erased person's events. The triggers let an UPDATE pass only where the person's stream has a
-- UserErased event, and only one that takes payload, salt and ids.

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

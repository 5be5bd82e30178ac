-- The events as they are stored: where the ledger ends, how it is written, and how it is walked from end to end.

-- name: head
-- The last event's position and hash.
SELECT position, hash
FROM events
ORDER BY position DESC
LIMIT 1;

-- name: stream_head
-- The last version of a conversation and the number of its last turn that can be read, NULL where there is none.
SELECT (SELECT max(version) FROM events
        WHERE user_id = :user_id AND conversation_id = :conversation_id) AS version,
       (SELECT json_extract(payload, '$.turn_id') FROM events
        WHERE user_id = :user_id AND conversation_id = :conversation_id AND type = 'TurnRecorded'
          AND salt <> '' AND json_valid(payload)
        ORDER BY version DESC LIMIT 1) AS turn_id;

-- name: is_event_of
-- Whether an event is a user's. After an erasure, of the person or of this event, it no longer is.
SELECT 1
FROM events
WHERE event_id = :event_id AND user_id = :user_id AND salt <> '';

-- name: insert_event
-- The only INSERT into the table. The triggers refuse a row that does not follow the last one.
INSERT INTO events (
    position, event_id, user_id, conversation_id, version, type, schema_version, recorded_at,
    correlation_id, causation_id, payload, salt, identity_hash, payload_hash, prev_hash, hash
) VALUES (
    :position, :event_id, :user_id, :conversation_id, :version, :type, :schema_version, :recorded_at,
    :correlation_id, :causation_id, :payload, :salt, :identity_hash, :payload_hash, :prev_hash, :hash
);

-- name: hash_at
-- The hash of the event at a position.
SELECT hash
FROM events
WHERE position = :position;

-- name: is_anchor
-- Whether a user's event at a position has this hash: what was made of the events up to it is still true.
SELECT 1
FROM events
WHERE position = :position AND user_id = :user_id AND hash = :hash;

-- name: belongs
-- Whether the event at a position is a user's. After an erasure it no longer is.
SELECT 1
FROM events
WHERE position = :position AND user_id = :user_id;

-- name: event_at
-- The event at a position.
SELECT *
FROM events
WHERE position = :position;

-- name: events_after
-- The next events after a position, in order, of the types in the JSON array :types, or of all where that is NULL.
-- The table is walked in its order: what is asked for are types of which there are many.
SELECT *
FROM events
WHERE position > :position
  AND (:types IS NULL OR type IN (SELECT value FROM json_each(:types)))
ORDER BY position
LIMIT :count;

-- name: stored_after
-- The next rows after a position, in order, column by column as they are stored.
SELECT position, event_id, user_id, conversation_id, version, type, schema_version, recorded_at,
       correlation_id, causation_id, payload, salt, identity_hash, payload_hash, prev_hash, hash
FROM events
WHERE position > :position
ORDER BY position
LIMIT :count;

-- name: stored_in_stream
-- The next rows of one conversation after a version, in order.
SELECT position, event_id, user_id, conversation_id, version, type, schema_version, recorded_at,
       correlation_id, causation_id, payload, salt, identity_hash, payload_hash, prev_hash, hash
FROM events
WHERE user_id = :user_id AND conversation_id = :conversation_id AND version > :version
ORDER BY version
LIMIT :count;

-- name: heads_after
-- The next conversations in the order of their ids, each with the version and hash of its last event.
-- The walk begins at ('', '', 0), before the system's own stream, and goes on behind the last conversation's newest
-- version.
SELECT head.user_id, head.conversation_id, head.version, events.hash
FROM (
    SELECT user_id, conversation_id, max(version) AS version
    FROM events
    WHERE (user_id, conversation_id, version) > (:user_id, :conversation_id, :version)
    GROUP BY user_id, conversation_id
    ORDER BY user_id, conversation_id
    LIMIT :count
) AS head
JOIN events
  ON events.user_id = head.user_id
 AND events.conversation_id = head.conversation_id
 AND events.version = head.version
ORDER BY head.user_id, head.conversation_id;

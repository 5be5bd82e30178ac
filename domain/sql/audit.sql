-- Questions about what was: how one answer came about, and what memory looked like at a position of the ledger.
-- People ask these at a command line; no turn does.

-- name: events_of_answer
-- The events of one chat completion, in order.
SELECT *
FROM events
WHERE correlation_id = :correlation_id
ORDER BY position;

-- name: events_named
-- The events whose ids are in the JSON array :event_ids.
SELECT *
FROM events
WHERE event_id IN (SELECT value FROM json_each(:event_ids));

-- name: events_at
-- The events at the positions in the JSON array :positions.
SELECT *
FROM events
WHERE position IN (SELECT value FROM json_each(:positions));

-- name: summaries_about
-- The summaries of a turn and the failed attempts at one, in order; those of an imported turn have no correlation id.
-- The two + leave the planner the index on causation_id.
SELECT *
FROM events
WHERE causation_id = :memory_id
  AND +type IN ('SummaryRecorded', 'SummaryFailed')
  AND +user_id = :user_id
ORDER BY position;

-- name: count_blanked
-- How many events up to a position were blanked.
SELECT count(*)
FROM events
WHERE salt = '' AND position <= :until;

-- name: last_question
-- The event with which a user's newest turn ended, answered or not.
-- One subquery per type: asked for both at once, SQLite reads and sorts all turns of the user.
SELECT *
FROM events
WHERE position = max(
    (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'TurnRecorded' AND salt <> ''),
    (SELECT coalesce(max(position), 0) FROM events WHERE user_id = :user_id AND type = 'TurnFailed' AND salt <> '')
);

-- name: changes_after
-- What became after a position of the memories in the JSON array :memory_ids of a user, in order.
-- The three + leave the planner the index on causation_id: it finds the few events about these memories.
SELECT *
FROM events
WHERE causation_id IN (SELECT value FROM json_each(:memory_ids))
  AND +type IN ('MemoryEdited', 'MemoryForgotten', 'MemoryRestored', 'TurnSuperseded', 'TurnRestored')
  AND +user_id = :user_id
  AND +position > :position
ORDER BY position;

-- name: prompts_newest_first
-- Every activation of prompts, newest first.
SELECT *
FROM events
WHERE user_id = '' AND conversation_id = '' AND type = 'PromptsActivated'
ORDER BY version DESC;

-- name: position_before
-- The position of the last event recorded before a moment (ISO 8601 in UTC, as the column has it).
SELECT position
FROM events
WHERE recorded_at < :moment
ORDER BY position DESC
LIMIT 1;

-- name: recorded_at
-- When the event at a position was recorded.
SELECT recorded_at
FROM events
WHERE position = :position;

-- name: has_events
-- Whether anything was ever recorded of a user.
SELECT 1
FROM events
WHERE user_id = :user_id
LIMIT 1;

-- name: retrievals
-- The next searches of a user's memory in (:position, :until], in order; blanked ones are left out.
SELECT *
FROM events
WHERE user_id = :user_id
  AND type = 'RetrievalRecorded'
  AND position > :position
  AND position <= :until
  AND salt <> ''
ORDER BY position
LIMIT :count;

-- name: count_retrievals
-- How many searches of a user's memory stand in (:position, :until].
SELECT count(*)
FROM events
WHERE user_id = :user_id
  AND type = 'RetrievalRecorded'
  AND position > :position
  AND position <= :until
  AND salt <> '';

-- name: events_of_user
-- The next events of a user in (:position, :until], in order; blanked ones are left out.
SELECT *
FROM events
WHERE position IN (
    SELECT position FROM events
    WHERE user_id = :user_id AND position > :position AND position <= :until AND salt <> ''
    ORDER BY position
    LIMIT :count
)
ORDER BY position;

-- name: activations_until
-- What came into use for everybody or for a user up to a position, in order.
SELECT *
FROM events
WHERE user_id IN ('', :user_id)
  AND conversation_id = ''
  AND type IN ('EmbeddingModelActivated', 'PromptsActivated', 'SettingsActivated')
  AND position <= :until
  AND salt <> ''
ORDER BY position;

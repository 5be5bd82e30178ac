-- What is asked by those who follow the ledger: the indices, the summarizer, a rebuild.

-- name: facet_texts
-- The next events, of all users, that change by which texts memories can be found, in order. "hidden" says that the
-- memory was withdrawn or left behind, "overruled" that a person's edit stands above this summary. An event that brings
-- a memory back comes with the texts that it is found by again, and counts even where the erasure of another turn has
-- blanked it: it has no text of its own.
-- The page of positions is chosen from keys alone: chosen and completed at once, every page would be sorted out of
-- complete rows of all that follows, and reading a million memories would take hours.
-- +type: the rows are walked as they lie; the index by type is not in the order of positions.
SELECT event.position,
       event.user_id,
       event.type,
       event.schema_version,
       event.payload,
       event.salt,
       turn.position AS turn_position,
       EXISTS (
           SELECT 1 FROM hidings AS held
           WHERE held.memory_id = CASE WHEN event.type = 'TurnRecorded' THEN event.event_id ELSE event.causation_id END
             AND +held.user_id = event.user_id AND held.from_position <= :as_of
             AND coalesce(held.until_position, :as_of + 1) > :as_of
       ) AS hidden,
       event.type = 'SummaryRecorded' AND EXISTS (
           SELECT 1 FROM events
           WHERE causation_id = event.causation_id
             AND type = 'MemoryEdited' AND user_id = event.user_id AND position <= :as_of
       ) AS overruled,
       turn.schema_version AS turn_version,
       CASE WHEN event.type NOT IN ('TurnRecorded', 'SummaryRecorded', 'MemoryEdited') THEN turn.salt END AS turn_salt,
       CASE WHEN event.type IN ('MemoryRestored', 'TurnRestored') THEN turn.payload END AS turn,
       summary.schema_version AS summary_version,
       summary.payload AS summary,
       summary.type AS summary_type,
       summary.position AS summary_position
FROM (
    SELECT position FROM events
    WHERE +type IN ('TurnRecorded', 'SummaryRecorded', 'MemoryEdited', 'MemoryForgotten', 'MemoryRestored', 'TurnSuperseded',
                   'TurnRestored')
      AND position > :position AND position <= :as_of
    ORDER BY position
    LIMIT :count
) AS page
JOIN events AS event ON event.position = page.position
LEFT JOIN events AS turn
  ON turn.event_id = event.causation_id
 AND turn.user_id = event.user_id
 AND turn.type = 'TurnRecorded'
 AND event.type <> 'TurnRecorded'
LEFT JOIN events AS summary
  ON event.type IN ('MemoryRestored', 'TurnRestored')
 AND summary.salt <> ''
 AND summary.position = coalesce(
     (SELECT max(position) FROM events
      WHERE causation_id = event.causation_id AND type = 'MemoryEdited'
        AND user_id = event.user_id AND position <= :as_of),
     (SELECT max(position) FROM events
      WHERE causation_id = event.causation_id AND type = 'SummaryRecorded'
        AND user_id = event.user_id AND position <= :as_of))
ORDER BY page.position;

-- name: facet_texts_of_user
-- The same of one user, whose events of these types an index has.
SELECT event.position,
       event.user_id,
       event.type,
       event.schema_version,
       event.payload,
       event.salt,
       turn.position AS turn_position,
       EXISTS (
           SELECT 1 FROM hidings AS held
           WHERE held.memory_id = CASE WHEN event.type = 'TurnRecorded' THEN event.event_id ELSE event.causation_id END
             AND +held.user_id = event.user_id AND held.from_position <= :as_of
             AND coalesce(held.until_position, :as_of + 1) > :as_of
       ) AS hidden,
       event.type = 'SummaryRecorded' AND EXISTS (
           SELECT 1 FROM events
           WHERE causation_id = event.causation_id
             AND type = 'MemoryEdited' AND user_id = event.user_id AND position <= :as_of
       ) AS overruled,
       turn.schema_version AS turn_version,
       CASE WHEN event.type NOT IN ('TurnRecorded', 'SummaryRecorded', 'MemoryEdited') THEN turn.salt END AS turn_salt,
       CASE WHEN event.type IN ('MemoryRestored', 'TurnRestored') THEN turn.payload END AS turn,
       summary.schema_version AS summary_version,
       summary.payload AS summary,
       summary.type AS summary_type,
       summary.position AS summary_position
FROM (
    SELECT position FROM events
    WHERE user_id = :user_id
      AND type IN ('TurnRecorded', 'SummaryRecorded', 'MemoryEdited', 'MemoryForgotten', 'MemoryRestored', 'TurnSuperseded',
                   'TurnRestored')
      AND position > :position AND position <= :as_of
    ORDER BY position
    LIMIT :count
) AS page
JOIN events AS event ON event.position = page.position
LEFT JOIN events AS turn
  ON turn.event_id = event.causation_id
 AND turn.user_id = event.user_id
 AND turn.type = 'TurnRecorded'
 AND event.type <> 'TurnRecorded'
LEFT JOIN events AS summary
  ON event.type IN ('MemoryRestored', 'TurnRestored')
 AND summary.salt <> ''
 AND summary.position = coalesce(
     (SELECT max(position) FROM events
      WHERE causation_id = event.causation_id AND type = 'MemoryEdited'
        AND user_id = event.user_id AND position <= :as_of),
     (SELECT max(position) FROM events
      WHERE causation_id = event.causation_id AND type = 'SummaryRecorded'
        AND user_id = event.user_id AND position <= :as_of))
ORDER BY page.position;

-- name: count_events
-- How many events of the types in the JSON array :types stand after a position, of all users. Blanked ones do not count.
SELECT count(*)
FROM events
WHERE type IN (SELECT value FROM json_each(:types)) AND salt <> '' AND position > :position;

-- name: count_events_of_user
-- The same of one user.
SELECT count(*)
FROM events
WHERE user_id = :user_id
  AND type IN (SELECT value FROM json_each(:types)) AND salt <> '' AND position > :position;

-- name: count_hidden_turns
-- How many turns are hidden, of one user, or of all where :user_id is NULL.
SELECT count(DISTINCT turn.position)
FROM hidings AS held
JOIN events AS turn ON turn.event_id = held.memory_id AND +turn.user_id = held.user_id
WHERE (:user_id IS NULL OR held.user_id = :user_id)
  AND held.until_position IS NULL
  AND turn.type = 'TurnRecorded'
  AND turn.salt <> '';

-- name: turns_without_summary
-- The next turns after a position that are not hidden and that nobody has summarised or edited yet, in order; and the
-- earlier ones that were brought back after it. "since" is the event that recorded or brought back the turn.
-- Two questions whose answers are merged: asked for all these types at once, SQLite would sort all turns that follow.
-- CROSS JOIN and the unary + keep it from walking all turns to find the few that were brought back.
SELECT turn.*, turn.position AS since
FROM events AS turn
WHERE turn.type = 'TurnRecorded'
  AND turn.position > :position
  AND turn.salt <> ''
  AND NOT EXISTS (
    SELECT 1 FROM events AS about
    WHERE about.causation_id = turn.event_id
      AND about.type IN ('SummaryRecorded', 'MemoryEdited')
      AND about.user_id = turn.user_id
  )
  AND NOT EXISTS (
    SELECT 1 FROM hidings AS held
    WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.until_position IS NULL
  )
UNION ALL
SELECT turn.*, back.position AS since
FROM events AS back
CROSS JOIN events AS turn ON turn.event_id = back.causation_id AND +turn.user_id = back.user_id
WHERE back.type IN ('MemoryRestored', 'TurnRestored')
  AND back.position > :position
  AND +turn.type = 'TurnRecorded'
  AND +turn.position <= :position
  AND turn.salt <> ''
  AND NOT EXISTS (
    SELECT 1 FROM events AS about
    WHERE about.causation_id = turn.event_id
      AND about.type IN ('SummaryRecorded', 'MemoryEdited')
      AND about.user_id = turn.user_id
  )
  AND NOT EXISTS (
    SELECT 1 FROM hidings AS held
    WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.until_position IS NULL
  )
ORDER BY since
LIMIT :count;

-- name: count_turns_without_summary
-- How many turns the statement above has, counted to at most so many.
SELECT count(*) AS lacking
FROM (
  SELECT turn.position
  FROM events AS turn
  WHERE turn.type = 'TurnRecorded'
    AND turn.position > :position
    AND turn.salt <> ''
    AND NOT EXISTS (
      SELECT 1 FROM events AS about
      WHERE about.causation_id = turn.event_id
        AND about.type IN ('SummaryRecorded', 'MemoryEdited')
        AND about.user_id = turn.user_id
    )
    AND NOT EXISTS (
      SELECT 1 FROM hidings AS held
      WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.until_position IS NULL
    )
  UNION ALL
  SELECT DISTINCT turn.position
  FROM events AS back
  CROSS JOIN events AS turn ON turn.event_id = back.causation_id AND +turn.user_id = back.user_id
  WHERE back.type IN ('MemoryRestored', 'TurnRestored')
    AND back.position > :position
    AND +turn.type = 'TurnRecorded'
    AND +turn.position <= :position
    AND turn.salt <> ''
    AND NOT EXISTS (
      SELECT 1 FROM events AS about
      WHERE about.causation_id = turn.event_id
        AND about.type IN ('SummaryRecorded', 'MemoryEdited')
        AND about.user_id = turn.user_id
    )
    AND NOT EXISTS (
      SELECT 1 FROM hidings AS held
      WHERE held.memory_id = turn.event_id AND +held.user_id = turn.user_id AND held.until_position IS NULL
    )
  LIMIT :count
);

-- name: newest_of_type
-- The last event of a type.
SELECT *
FROM events
WHERE type = :type
ORDER BY position DESC
LIMIT 1;

-- name: models_activated
-- Every activation of an embedding model, for anybody, in order.
SELECT *
FROM events
WHERE type = 'EmbeddingModelActivated' AND salt <> ''
ORDER BY position;

-- name: users_after
-- The next users that have memories, in the order of their ids; the erased have none.
SELECT DISTINCT user_id
FROM events
WHERE user_id > :user_id AND type = 'TurnRecorded' AND salt <> ''
ORDER BY user_id
LIMIT :count;

-- name: streams_of
-- The ids of a user's conversations, in order. That of the user's own stream is empty.
SELECT DISTINCT conversation_id
FROM events
WHERE user_id = :user_id
ORDER BY conversation_id;

-- name: erasures
-- The events by which people were erased. One whose salt is left has yet to be blanked itself, which comes last.
SELECT event_id, salt
FROM events
WHERE type = 'UserErased';

-- name: erasure_ids
-- The ids of the events by which people, or parts of their memory, were erased.
SELECT event_id
FROM events
WHERE type IN ('UserErased', 'MemoriesErased');

-- name: parts_at
-- Where the erasure of a part of anybody's memory last began or ended, 0 where there was none.
SELECT max(
    (SELECT coalesce(max(position), 0) FROM events WHERE type = 'MemoriesErased'),
    (SELECT coalesce(max(position), 0) FROM events WHERE type = 'ErasureCompleted')
) AS position;

-- What has this user corrected or withdrawn, and how many answers had been given with it by then?
--
-- A withdrawn memory stays in the ledger and goes into no later answer; one whose words are to go as well needs an
-- erasure. Answers in which the recent window alone showed it are not counted. Cut: the newest 200 corrections and
-- withdrawals, of all times.
--
--   .param set :user "'ann'"
--
-- Answer, of the small synthetic ledger:
--
--   recorded_at                  what       words                                    answers_before  ts                           they_said
--   2025-01-23T10:26:03.736981Z  withdrawn  no longer true                           3               2025-01-10T10:01:18.650534Z  Please remember about my cat: Miso eats not…
--   2025-01-22T13:28:53.978096Z  corrected  That was last year and no longer holds.  2               2025-01-13T11:28:05.971823Z  Please remember about my cat: Miso eats not…
--   2025-01-05T20:53:05.388687Z  withdrawn  no longer true                           0               2025-01-05T20:53:05.388687Z  Please remember about my thesis: chapter fo…
WITH changed AS MATERIALIZED (
    SELECT
        position,
        recorded_at,
        causation_id AS memory_id,
        CASE type
          WHEN 'MemoryEdited'   THEN 'corrected'
          WHEN 'MemoryRestored' THEN 'taken back'
          ELSE 'withdrawn'
        END                                                                AS what,
        coalesce(payload ->> '$.summary', payload ->> '$.reason')          AS words
    FROM events
    WHERE user_id = :user AND type IN ('MemoryEdited', 'MemoryForgotten', 'MemoryRestored') AND salt <> ''
    ORDER BY position DESC
    LIMIT 200
),
uses AS MATERIALIZED (
    SELECT memory_id, answer_position FROM memory_uses
    WHERE user_id = :user AND role <> 'window' AND memory_id IN (SELECT memory_id FROM changed)
)
SELECT
    changed.recorded_at,
    changed.what,
    changed.words,
    count(uses.memory_id) AS answers_before,
    memories.ts,
    memories.user         AS they_said
FROM changed
JOIN memories USING (memory_id)
LEFT JOIN uses ON uses.memory_id = changed.memory_id AND uses.answer_position < changed.position
GROUP BY changed.position
ORDER BY changed.position DESC;

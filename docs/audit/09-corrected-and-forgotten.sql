-- What has this user corrected or withdrawn, and how many answers had been given with it by then?
--
-- A withdrawn memory stays in the ledger and goes into no later answer; one whose words are to go as well needs an
-- erasure.
--
--   .param set :user "'ann'"
--
-- Answer, of the small synthetic ledger:
--
--   recorded_at                  what       words                                    answers_before  ts                           they_said
--   2025-01-27T16:06:13.858823Z  corrected  That was last year and no longer holds.  10              2025-01-04T15:59:56.787744Z  Please remember about my thesis: chapter fo…
--   2025-01-17T08:44:08.301427Z  corrected  That was last year and no longer holds.  3               2025-01-05T03:02:01.289690Z  What do you know about my knee? It was said…
--   2025-01-15T22:00:09.419452Z  withdrawn  no longer true                           0               2025-01-15T15:28:42.148248Z  Please remember about my car: the winter ty…
WITH changed AS MATERIALIZED (
    SELECT recorded_at, memory_id, 'corrected' AS what, summary AS words
    FROM summaries WHERE user_id = :user AND source = 'edited'
    UNION ALL
    SELECT forgotten_at, memory_id, 'withdrawn', forgotten_reason
    FROM memories WHERE user_id = :user AND forgotten
),
uses AS MATERIALIZED (
    SELECT memory_id, recorded_at FROM memory_uses
    WHERE user_id = :user AND role <> 'window' AND memory_id IN (SELECT memory_id FROM changed)
)
SELECT
    changed.recorded_at,
    changed.what,
    changed.words,
    (SELECT count(*) FROM uses
     WHERE uses.memory_id = changed.memory_id AND uses.recorded_at < changed.recorded_at) AS answers_before,
    memories.ts,
    memories.user AS they_said
FROM changed
JOIN memories USING (memory_id)
ORDER BY changed.recorded_at DESC
LIMIT 200;

-- Why did this answer mention X?
--
-- What the answer was shown that holds the word: the replayed exchanges, the summaries, their neighbours and the recent
-- window. `score` is the one by which the search proposed the memory, also where the window showed it anyway. The texts
-- are those of today: a summary may have been corrected since.
--
--   .param set :answer "'chatcmpl-3abbd6bee4be423faa5e744aeb2632ee'"
--   .param set :word "'porto'"     (empty: everything that was shown)
--
-- Answer, of the small synthetic ledger:
--
--   role      place  score     ts                           they_said                                     was_answered                                  summary
--   replayed  5      0.013889  2025-01-17T08:44:08.301427Z  What do you know about my sister? It was sa…  You told me that Ruth moved to Porto. It wa…  About the sister: Ruth moved to Porto.
SELECT
    memory_uses.role,
    memory_uses.place,
    memory_uses.score,
    memories.ts,
    memories.user      AS they_said,
    memories.assistant AS was_answered,
    memories.summary
FROM memory_uses
JOIN memories USING (memory_id)
WHERE memory_uses.correlation_id = :answer
  AND instr(
        lower(memories.user || ' ' || memories.assistant || ' ' || coalesce(memories.summary, '')),
        lower(coalesce(:word, ''))) > 0
ORDER BY memory_uses.role, memory_uses.place;

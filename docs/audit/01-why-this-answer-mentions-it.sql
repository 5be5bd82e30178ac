-- Why did this answer mention X?
--
-- What the answer was shown that holds the word: the replayed exchanges, the summaries, their neighbours and the recent
-- window. `score` is the one by which the search proposed the memory, also where the window showed it anyway.
-- `shown_that_day` is the text that the answer was shown, in which the word is looked for; `summary_today` is what the
-- memory is known by now. Uncut: all that was shown.
--
--   .param set :answer "'chatcmpl-abee24bc1bca4549a67303d46323bcdc'"
--   .param set :word "'tuna'"     (empty: everything that was shown)
--
-- Answer, of the small synthetic ledger:
--
--   role      place  score     ts                           shown_that_day                                summary_today                               edited_at                    forgotten_at
--   replayed  5      0.011236  2025-01-13T11:28:05.971823Z  Please remember about my cat: Miso eats not…  That was last year and no longer holds.     2025-01-22T13:28:53.978096Z
--   window    5      0.011628  2025-01-21T10:36:48.997488Z  Please remember about my cat: Miso eats not…  About the cat: Miso eats nothing but tuna.
SELECT
    memory_uses.role,
    memory_uses.place,
    memory_uses.score,
    memories.ts,
    memory_uses.shown_text AS shown_that_day,
    memories.summary       AS summary_today,
    memories.edited_at,
    memories.forgotten_at
FROM memory_uses
JOIN memories USING (memory_id)
WHERE memory_uses.correlation_id = :answer
  AND instr(lower(memory_uses.shown_text), lower(coalesce(:word, ''))) > 0
ORDER BY memory_uses.role, memory_uses.place;

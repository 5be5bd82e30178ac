-- Which answers rest on a memory that was corrected or withdrawn later?
--
-- What to tell the person when it matters: the answer, what it was shown of the memory, and what became of that memory.
-- An answer that only the recent window showed it to is left out. The newest answer first. Cut: the first 200, of all times.
--
--   .param set :user "'ann'"
--
-- Answer, of the small synthetic ledger:
--
--   ts                           they_asked                                    was_answered                                  role          shown_that_day                                changed_at                   changed_position  what       words                                    correlation_id
--   2025-01-22T13:28:53.978096Z  Please remember about my thesis: chapter fo…  I have noted that chapter four still lacks …  replayed      Please remember about my cat: Miso eats not…  2025-01-22T13:28:53.978096Z  442               corrected  That was last year and no longer holds.  chatcmpl-2c04a4ebc57649f99578f4b928caf517
--   2025-01-22T03:01:39.684539Z  Please remember about my car: the winter ty…  I have noted that the winter tyres are in t…  replayed      Please remember about my cat: Miso eats not…  2025-01-22T13:28:53.978096Z  442               corrected  That was last year and no longer holds.  chatcmpl-abee24bc1bca4549a67303d46323bcdc
--   2025-01-21T18:29:23.827685Z  What do you know about my bread? It was sai…  You told me that the starter wants rye, fed…  replayed      Please remember about my cat: Miso eats not…  2025-01-23T10:26:03.736981Z  463               forgotten  no longer true                           chatcmpl-927538194433453a93e4c3aa01c83b74
--   2025-01-20T10:14:03.970873Z  Please remember about my violin: the E stri…  I have noted that the E string is a Pirastr…  replayed      Please remember about my cat: Miso eats not…  2025-01-23T10:26:03.736981Z  463               forgotten  no longer true                           chatcmpl-f3ddfccc6e57493e84a8c6091892f5d7
--   2025-01-19T08:43:54.962243Z  What do you know about my thesis? It was sa…  You told me that chapter four still lacks i…  summary_only  About the cat: Miso eats nothing but tuna.    2025-01-23T10:26:03.736981Z  463               forgotten  no longer true                           chatcmpl-f992c51ce97f450aa4e583e6b1e2b36d
WITH changed AS MATERIALIZED (
    SELECT position, recorded_at, memory_id, what, text, reason
    FROM changes
    WHERE user_id = :user AND what IN ('corrected', 'forgotten')
),
rests AS MATERIALIZED (
    SELECT correlation_id, answer_position, memory_id, role, shown_text
    FROM memory_uses
    WHERE user_id = :user AND role <> 'window' AND memory_id IN (SELECT memory_id FROM changed)
)
SELECT
    turns.ts,
    turns.user                            AS they_asked,
    turns.assistant                       AS was_answered,
    rests.role,
    rests.shown_text                      AS shown_that_day,
    changed.recorded_at                   AS changed_at,
    min(changed.position)                 AS changed_position,
    changed.what,
    coalesce(changed.text, changed.reason) AS words,
    turns.correlation_id
FROM rests
JOIN changed ON changed.memory_id = rests.memory_id AND changed.position > rests.answer_position
JOIN turns ON turns.position = rests.answer_position
GROUP BY rests.answer_position, rests.memory_id, rests.role
ORDER BY rests.answer_position DESC, rests.memory_id
LIMIT 200;

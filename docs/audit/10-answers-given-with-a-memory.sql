-- Which answers were given with this memory?
--
-- What to look through when a memory turns out to be wrong. In the role `window` it was a turn of the same conversation
-- a moment ago, not something remembered. `shown_that_day` is the text that the answer was shown; imported answers are in
-- it too. Cut: the first 200, of all times.
--
--   .param set :memory "'6519153e-c0c8-4972-953d-c93e7e5c2a72'"
--
-- Answer, of the small synthetic ledger:
--
--   ts                           conversation_id  role          score     shown_that_day                                they_asked                                    was_answered                                  correlation_id
--   2025-01-14T07:07:02.485389Z  talk 1           window        0.605984  Please remember about my cat: Miso eats not…  What do you know about my sister?             You told me that Ruth moved to Porto. It wa…  chatcmpl-3f938eb7546147e38c1eca4c36f0ef56
--   2025-01-15T11:55:08.824808Z  talk 1           window        0.708874  Please remember about my cat: Miso eats not…  Please remember about my car: the winter ty…  I have noted that the winter tyres are in t…  chatcmpl-7a19dfa3c1da47bdb88e0c935686662a
--   2025-01-16T07:26:17.140863Z  talk 1           window                  Please remember about my cat: Miso eats not…  Please remember about my flat: the lease of…  I have noted that the lease of the flat end…  chatcmpl-276270782f5e4336a43b0e0ee24351ae
--   2025-01-17T06:32:35.303024Z  talk 1           window        0.012195  Please remember about my cat: Miso eats not…  What do you know about my violin? It was sa…  You told me that the E string is a Pirastro…  chatcmpl-2790c611c06d491cafc8b86c61f7f262
--   2025-01-19T08:43:54.962243Z  talk 1           window        0.011905  Please remember about my cat: Miso eats not…  What do you know about my thesis? It was sa…  You told me that chapter four still lacks i…  chatcmpl-f992c51ce97f450aa4e583e6b1e2b36d
--   2025-01-19T16:12:01.695942Z  talk 1           window        0.012195  Please remember about my cat: Miso eats not…  Please remember about my bread: the starter…  I have noted that the starter wants rye, fe…  chatcmpl-b24211ad2a99448f95169744dd037130
--   2025-01-22T03:01:39.684539Z  talk 1           replayed      0.011236  Please remember about my cat: Miso eats not…  Please remember about my car: the winter ty…  I have noted that the winter tyres are in t…  chatcmpl-abee24bc1bca4549a67303d46323bcdc
--   2025-01-22T13:28:53.978096Z  talk 1           replayed      0.016129  Please remember about my cat: Miso eats not…  Please remember about my thesis: chapter fo…  I have noted that chapter four still lacks …  chatcmpl-2c04a4ebc57649f99578f4b928caf517
--   2025-01-23T10:26:03.736981Z  talk 1           replayed      0.0125    Please remember about my cat: Miso eats not…  Please remember about my boat: the Alma lie…  I have noted that the Alma lies at pier sev…  chatcmpl-420dcab6566c427cb984e3d456cbeeee
--   2025-01-23T13:46:41.732163Z  talk 1           summary_only  0.014085  Please remember about my cat: Miso eats not…  Please remember about my thesis: chapter fo…  I have noted that chapter four still lacks …  chatcmpl-2513551dfd9c4c3cbc8169f91adb1407
--   ... 12 rows in all
SELECT
    turns.ts,
    turns.conversation_id,
    memory_uses.role,
    memory_uses.score,
    memory_uses.shown_text AS shown_that_day,
    turns.user      AS they_asked,
    turns.assistant AS was_answered,
    turns.correlation_id
FROM memory_uses
JOIN turns ON turns.position = memory_uses.answer_position
WHERE memory_uses.user_id = (SELECT user_id FROM memories WHERE memory_id = :memory)
  AND memory_uses.answer_position > (SELECT position FROM memories WHERE memory_id = :memory)
  AND memory_uses.memory_id = :memory
ORDER BY turns.position
LIMIT 200;

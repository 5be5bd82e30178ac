-- Which answers were given with this memory?
--
-- What to look through when a memory turns out to be wrong. In the role `window` it was a turn of the same conversation
-- a moment ago, not something remembered.
--
--   .param set :memory "'356f2690-7d7b-4390-955e-6f680869aaec'"
--
-- Answer, of the small synthetic ledger:
--
--   ts                           conversation_id  role          score     they_asked                                    was_answered                                  correlation_id
--   2025-01-05T16:39:24.009777Z  talk 1           window        0.723016  Please remember about my garden: the quince…  I have noted that the quince is to be cut b…  chatcmpl-9da207b1b41d4b39a6e26676a5357944
--   2025-01-06T02:25:37.769254Z  talk 1           window        0.878727  What do you know about my boat?               You told me that the Alma lies at pier seve…  chatcmpl-55ab4cdb24e04962b1ddd9c8dd72b693
--   2025-01-06T10:15:11.742118Z  talk 1           window        0.775572  What do you know about my flat? It was said…  You told me that the lease of the flat ends…  chatcmpl-03507d3742d742979363b22654e158ec
--   2025-01-07T15:26:15.448830Z  talk 1           window        0.825184  What do you know about my thesis? It was sa…  You told me that chapter four still lacks i…  chatcmpl-e4af9619db4a45a9a9adaad394ab2cc9
--   2025-01-08T03:11:05.748641Z  talk 1           window        0.777676  What do you know about my violin? It was sa…  You told me that the E string is a Pirastro…  chatcmpl-e14349470cda4ed5865dddf82eff975c
--   2025-01-09T00:18:37.205862Z  talk 1           window        0.715747  Please remember about my sister: Ruth moved…  I have noted that Ruth moved to Porto. It w…  chatcmpl-5f78fd5ba3ca407d81678e8ac83fe4bc
--   2025-01-13T05:21:55.761712Z  talk 1           replayed      0.782724  Please remember about my thesis: chapter fo…  I have noted that chapter four still lacks …  chatcmpl-b28892cc725d47239ba8edee5add5580
--   2025-01-13T11:53:25.897442Z  talk 1           replayed      0.723998  What do you know about my bread?              You told me that the starter wants rye, fed…  chatcmpl-77909b7737094629b969df729696b3b4
--   2025-01-16T06:43:51.945168Z  talk 1           replayed      0.849086  What do you know about my thesis? It was sa…  You told me that chapter four still lacks i…  chatcmpl-6c4330489f6145628537294d658efbb4
--   2025-01-23T23:46:08.572805Z  talk 2           summary_only  0.012987  What do you know about my flat? It was said…  You told me that the lease of the flat ends…  chatcmpl-221639a384cf454a94279b94e6921738
SELECT
    turns.ts,
    turns.conversation_id,
    memory_uses.role,
    memory_uses.score,
    turns.user      AS they_asked,
    turns.assistant AS was_answered,
    turns.correlation_id
FROM memory_uses
JOIN turns ON turns.position = memory_uses.answer_position
WHERE memory_uses.user_id = (SELECT user_id FROM memories WHERE memory_id = :memory)
  AND memory_uses.memory_id = :memory
ORDER BY turns.position
LIMIT 200;

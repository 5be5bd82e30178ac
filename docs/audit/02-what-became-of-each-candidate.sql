-- What was proposed for this answer, and what became of each proposal?
--
-- One row per candidate, best first, with its scores and places on the way. `gate_over_limit` is 1 where the gate
-- wanted to keep a memory and `gate_keep_max` cut it off.
--
--   .param set :answer "'chatcmpl-3abbd6bee4be423faa5e744aeb2632ee'"
--
-- Answer, of the small synthetic ledger:
--
--   rank  score     dense_rank  lexical_rank  fate      excluded  gate_over_limit  gate_reason  rerank_place  ts                           they_said
--   1     0.016393  1                         dropped             0                                           2025-01-17T16:54:17.778333Z  Please remember about my cat: Miso eats not…
--   2     0.016129  2                         dropped             0                                           2025-01-13T05:21:55.761712Z  Please remember about my thesis: chapter fo…
--   3     0.015873  3                         replayed            0                             3             2025-01-06T02:25:37.769254Z  What do you know about my boat?
--   4     0.015625  4                         dropped             0                                           2025-01-05T03:02:01.289690Z  What do you know about my knee? It was said…
--   5     0.015385  5                         dropped             0                                           2025-01-13T11:53:25.897442Z  What do you know about my bread?
--   6     0.015152  6                         dropped             0                                           2025-01-17T01:27:00.754169Z  What do you know about my flat?
--   7     0.014925  7           7             dropped             0                                           2025-01-15T07:51:51.012822Z  Please remember about my garden: the quince…
--   8     0.014706  8           8             dropped             0                                           2025-01-16T06:43:51.945168Z  What do you know about my thesis? It was sa…
--   9     0.014493  9           9             replayed            0                             4             2025-01-08T03:11:05.748641Z  What do you know about my violin? It was sa…
--   10    0.014286  10                        replayed            0                             1             2025-01-06T10:15:11.742118Z  What do you know about my flat? It was said…
--   ... 17 rows in all
SELECT
    candidates.rank,
    candidates.score,
    candidates.dense_rank,
    candidates.lexical_rank,
    candidates.fate,
    candidates.excluded,
    candidates.gate_over_limit,
    candidates.gate_reason,
    candidates.rerank_place,
    memories.ts,
    memories.user AS they_said
FROM candidates
JOIN memories USING (memory_id)
WHERE candidates.correlation_id = :answer
ORDER BY candidates.rank;

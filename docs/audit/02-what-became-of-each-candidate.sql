-- What was proposed for this answer, and what became of each proposal?
--
-- One row per candidate, best first, with its scores and places on the way. `gate_over_limit` is 1 where the gate
-- wanted to keep a memory and `gate_keep_max` cut it off, `gate_asked` is 0 where its prompt had no room to ask about it.
-- Uncut: all candidates of the answer.
--
--   .param set :answer "'chatcmpl-abee24bc1bca4549a67303d46323bcdc'"
--
-- Answer, of the small synthetic ledger:
--
--   rank  score     dense_rank  lexical_rank  gate_asked  fate      excluded       gate_over_limit  gate_reason  rerank_place  ts                           they_said
--   1     0.016393  1                         1           dropped                  0                                           2025-01-17T06:32:35.303024Z  What do you know about my violin? It was sa…
--   2     0.016129  2           2             1           replayed                 0                             2             2025-01-07T03:38:09.168898Z  What do you know about my sister? It was sa…
--   3     0.015873  3                                     excluded  recent_window                                              2025-01-19T23:18:07.374443Z  What do you know about my knee? It was said…
--   4     0.015625  4                         1           dropped                  0                                           2025-01-04T02:32:29.433780Z  Please remember about my flat: the lease of…
--   5     0.015385  5                         1           replayed                 0                             1             2025-01-12T03:12:34.334113Z  What do you know about my flat? It was said…
--   6     0.015152  6                         1           dropped                  0                                           2025-01-02T12:39:56.383990Z  Please remember about my violin: the E stri…
--   7     0.014925  7                         1           dropped                  0                                           2025-01-16T07:26:17.140863Z  Please remember about my flat: the lease of…
--   8     0.014706  8                         1           dropped                  0                                           2025-01-03T05:44:40.456361Z  Please remember about my garden: the quince…
--   9     0.014493  9                         1           dropped                  0                                           2025-01-09T10:32:34.731713Z  Please remember about my knee: the left kne…
--   10    0.014286  10          10            1           replayed                 0                             3             2025-01-15T11:55:08.824808Z  Please remember about my car: the winter ty…
--   ... 31 rows in all
SELECT
    candidates.rank,
    candidates.score,
    candidates.dense_rank,
    candidates.lexical_rank,
    candidates.gate_asked,
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

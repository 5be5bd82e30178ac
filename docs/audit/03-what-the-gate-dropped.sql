-- What did the gate drop for this user last week, and for which question?
--
-- The newest answer first, and in it what was ranked best.
--
--   .param set :user "'ann'"
--   .param set :since "'2025-01-22'"     (empty: seven days ago)
--   .param set :until "'2025-01-28'"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   recorded_at                  query                                         rank  score     gate_over_limit  gate_reason  dropped
--   2025-01-27T16:06:13.858823Z  What do you know about my flat?               1     0.016393  0                             What do you know about my sister? It was sa…
--   2025-01-27T16:06:13.858823Z  What do you know about my flat?               2     0.016129  0                             Please remember about my cat: Miso eats not…
--   2025-01-27T16:06:13.858823Z  What do you know about my flat?               4     0.015625  0                             What do you know about my sister? It was sa…
--   2025-01-27T16:06:13.858823Z  What do you know about my flat?               5     0.015385  0                             What do you know about my flat?
--   2025-01-27T16:06:13.858823Z  What do you know about my flat?               8     0.014706  0                             What do you know about my sister?
--   2025-01-27T16:06:13.858823Z  What do you know about my flat?               9     0.014493  0                             What do you know about my bread? It was sai…
--   2025-01-26T10:18:51.030822Z  Please remember about my boat: the Alma lie…  4     0.015625  0                             What do you know about my thesis? It was sa…
--   2025-01-26T10:18:51.030822Z  Please remember about my boat: the Alma lie…  7     0.014925  0                             What do you know about my garden? It was sa…
--   2025-01-26T10:18:51.030822Z  Please remember about my boat: the Alma lie…  8     0.014706  0                             What do you know about my flat? It was said…
--   2025-01-26T10:18:51.030822Z  Please remember about my boat: the Alma lie…  9     0.014493  0                             Please remember about my violin: the E stri…
--   ... 90 rows in all
SELECT
    candidates.recorded_at,
    candidates.query,
    candidates.rank,
    candidates.score,
    candidates.gate_over_limit,
    candidates.gate_reason,
    memories.user AS dropped
FROM candidates
JOIN memories USING (memory_id)
WHERE candidates.user_id = :user
  AND candidates.recorded_at >= coalesce(nullif(:since, ''), strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-7 days'))
  AND candidates.recorded_at < coalesce(nullif(:until, ''), '9999')
  AND candidates.fate = 'dropped'
ORDER BY candidates.retrieval_position DESC, candidates.rank
LIMIT 200;

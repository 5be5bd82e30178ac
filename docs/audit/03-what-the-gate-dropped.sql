-- What did the gate drop for this user last week, and for which question?
--
-- The newest answer first, and in it what was ranked best. What it was not asked about it did not drop; imported answers
-- are left out. Cut: the first 200 rows, of the last seven days unless another time is given.
--
--   .param set :user "'ann'"
--   .param set :since "'2025-01-22'"     (empty: seven days ago)
--   .param set :until "'2025-01-28'"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   recorded_at                  query                                         rank  score     gate_over_limit  gate_reason  dropped
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  1     0.016393  0                             Please remember about my flat: the lease of…
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  3     0.015873  0                             Please remember about my violin: the E stri…
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  4     0.015625  0                             What do you know about my bread? It was sai…
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  5     0.015385  0                             Please remember about my bread: the starter…
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  6     0.015152  0                             Please remember about my thesis: chapter fo…
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  7     0.014925  0                             Please remember about my car: the winter ty…
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  8     0.014706  0                             What do you know about my violin?
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  9     0.014493  0                             What do you know about my garden?
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  11    0.014085  0                             What do you know about my sister? It was sa…
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  12    0.013889  0                             What do you know about my flat? It was said…
--   ... 181 rows in all
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
  AND NOT candidates.imported
ORDER BY candidates.retrieval_position DESC, candidates.rank
LIMIT 200;

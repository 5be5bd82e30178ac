-- Where do gate and rerank disagree?
--
-- Without a rerank, the first K of what the gate kept would have been replayed, in its order (`gate_place`). Shown is each
-- kept memory for which the rerank decided otherwise: `lifted` into the first K, or `passed over` though it stood there.
-- Imported answers are left out. Cut: the first 200 rows, of the last seven days unless another time is given.
--
--   .param set :user "'ann'"
--   .param set :since "'2025-01-22'"     (empty: seven days ago)
--   .param set :until "''"               (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   recorded_at                  query                                         verdict      gate_place  rerank_place  retrieve_k  memory
--   2025-01-29T20:45:04.743715Z  Please remember about my cat: Miso eats not…  lifted       6           5             5           Please remember about my boat: the Alma lie…
--   2025-01-29T20:45:04.743715Z  Please remember about my cat: Miso eats not…  passed over  5           6             5           What do you know about my thesis? It was sa…
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  lifted       6           3             5           Please remember about my boat: the Alma lie…
--   2025-01-27T09:28:49.847525Z  Please remember about my cat: Miso eats not…  passed over  3           6             5           What do you know about my sister? It was sa…
--   2025-01-26T17:40:59.510447Z  Please remember about my garden: the quince…  lifted       10          3             5           What do you know about my bread? It was sai…
--   2025-01-26T17:40:59.510447Z  Please remember about my garden: the quince…  lifted       6           5             5           Please remember about my cat: Miso eats not…
--   2025-01-26T17:40:59.510447Z  Please remember about my garden: the quince…  passed over  4           6             5           Please remember about my cat: Miso eats not…
--   2025-01-26T17:40:59.510447Z  Please remember about my garden: the quince…  passed over  5           7             5           What do you know about my sister? It was sa…
--   2025-01-24T04:36:25.092066Z  What do you know about my violin?             lifted       6           3             5           What do you know about my flat? It was said…
--   2025-01-24T04:36:25.092066Z  What do you know about my violin?             passed over  5           6             5           What do you know about my violin?
--   ... 20 rows in all
WITH kept AS MATERIALIZED (
    SELECT
        rerank_decisions.recorded_at,
        rerank_decisions.retrieve_k,
        candidates.retrieval_position,
        candidates.query,
        candidates.memory_id,
        candidates.rank,
        candidates.rerank_place
    FROM rerank_decisions
    JOIN candidates USING (correlation_id)
    WHERE rerank_decisions.user_id = :user
      AND rerank_decisions.recorded_at
          >= coalesce(nullif(:since, ''), strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-7 days'))
      AND rerank_decisions.recorded_at < coalesce(nullif(:until, ''), '9999')
      AND rerank_decisions.outcome = 'ok'
      AND NOT rerank_decisions.imported
      AND candidates.gate_keep
),
placed AS (
    SELECT *, row_number() OVER (PARTITION BY retrieval_position ORDER BY rank) AS gate_place FROM kept
)
SELECT
    placed.recorded_at,
    placed.query,
    CASE WHEN placed.rerank_place <= placed.retrieve_k THEN 'lifted' ELSE 'passed over' END AS verdict,
    placed.gate_place,
    placed.rerank_place,
    placed.retrieve_k,
    memories.user AS memory
FROM placed
JOIN memories USING (memory_id)
WHERE (placed.gate_place <= placed.retrieve_k) <> (placed.rerank_place <= placed.retrieve_k)
ORDER BY placed.retrieval_position DESC, placed.rerank_place
LIMIT 200;

-- Where do gate and rerank disagree?
--
-- Without a rerank, the first K of what the gate kept would have been replayed, in its order (`gate_place`). Shown is each
-- kept memory for which the rerank decided otherwise: `lifted` into the first K, or `passed over` though it stood there.
--
--   .param set :user "'ann'"
--   .param set :since "'2025-01-22'"     (empty: seven days ago)
--   .param set :until "''"               (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   recorded_at                  query                                         verdict      gate_place  rerank_place  retrieve_k  memory
--   2025-01-26T10:18:51.030822Z  Please remember about my boat: the Alma lie…  lifted       6           3             5           Please remember about my thesis: chapter fo…
--   2025-01-26T10:18:51.030822Z  Please remember about my boat: the Alma lie…  passed over  3           6             5           Please remember about my sister: Ruth moved…
--   2025-01-23T23:46:08.572805Z  What do you know about my flat? It was said…  lifted       7           4             5           What do you know about my bread?
--   2025-01-23T23:46:08.572805Z  What do you know about my flat? It was said…  passed over  4           6             5           Please remember about my violin: the E stri…
--   2025-01-22T20:14:01.198082Z  Please remember about my flat: the lease of…  lifted       6           5             5           Please remember about my garden: the quince…
--   2025-01-22T20:14:01.198082Z  Please remember about my flat: the lease of…  passed over  1           6             5           What do you know about my flat? It was said…
WITH kept AS MATERIALIZED (
    SELECT
        correlation_id,
        memory_id,
        query,
        rank,
        rerank_place
    FROM candidates
    WHERE user_id = :user
      AND recorded_at >= coalesce(nullif(:since, ''), strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-7 days'))
      AND recorded_at < coalesce(nullif(:until, ''), '9999')
      AND gate_keep
),
placed AS (
    SELECT *, row_number() OVER (PARTITION BY correlation_id ORDER BY rank) AS gate_place FROM kept
)
SELECT
    rerank_decisions.recorded_at,
    placed.query,
    CASE WHEN placed.rerank_place <= rerank_decisions.retrieve_k THEN 'lifted' ELSE 'passed over' END AS verdict,
    placed.gate_place,
    placed.rerank_place,
    rerank_decisions.retrieve_k,
    memories.user AS memory
FROM placed
JOIN rerank_decisions USING (correlation_id)
JOIN memories USING (memory_id)
WHERE rerank_decisions.outcome = 'ok'
  AND (placed.gate_place <= rerank_decisions.retrieve_k) <> (placed.rerank_place <= rerank_decisions.retrieve_k)
ORDER BY rerank_decisions.position DESC, placed.rerank_place
LIMIT 200;

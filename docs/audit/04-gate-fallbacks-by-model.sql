-- How often does the gate fall back, by model?
--
-- A fallback is a decision that could not be had or read: the order of the ranking stood in. Decisions that were skipped
-- (no candidates, gate off) had no model to ask. Imported decisions are left out. Uncut: of the whole ledger unless a time
-- is given.
--
--   .param set :since "''"     (empty: from the beginning)
--   .param set :until "''"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   strategy  model          decisions  fallbacks  percent  mean_ms  longest_ms
--   llm       Qwen3-14B      39         1          2.56     376.0    765.0
--   llm       Mistral-Small  38         2          5.26     374.0    1060.0
--   llm       Qwen3-8B       18         0          0.0      345.0    752.0
WITH decisions AS MATERIALIZED (
    SELECT strategy, model, outcome, latency_ms
    FROM gate_decisions
    WHERE recorded_at >= coalesce(:since, '')
      AND recorded_at < coalesce(nullif(:until, ''), '9999')
      AND NOT imported
)
SELECT
    strategy,
    model,
    count(*)                                                                   AS decisions,
    count(*) FILTER (WHERE outcome = 'fallback')                               AS fallbacks,
    round(100.0 * count(*) FILTER (WHERE outcome = 'fallback') / count(*), 2)  AS percent,
    round(avg(latency_ms))                                                     AS mean_ms,
    round(max(latency_ms))                                                     AS longest_ms
FROM decisions
WHERE outcome <> 'skipped'
GROUP BY strategy, model
ORDER BY decisions DESC;

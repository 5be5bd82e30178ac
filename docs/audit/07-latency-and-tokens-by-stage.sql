-- How long does each stage take, and how many tokens does it cost?
--
-- Milliseconds at the median and the 95th percentile, tokens in all. `answer` contains `first token`, and `turn` all but
-- `summary`, for which nobody waits and whose time is not recorded. Imported turns and decisions are left out. Uncut: all
-- of the last thirty days unless another time is given.
--
--   .param set :since "'2025-01-01'"     (empty: thirty days ago)
--   .param set :until "''"               (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   stage             calls  p50_ms    p95_ms    prompt_tokens  completion_tokens
--   embed             116    8.791     17.204
--   search by vector  116    1.534     2.831
--   search by word    56     0.872     1.695
--   gate              95     350.993   636.091   93722          4159
--   rerank            30     265.312   365.102   27455          756
--   first token       115    288.374   733.386
--   answer            115    2306.994  5867.085  235471         23252
--   turn              115    2906.994  6467.085
--   summary           112                        37476          3811
WITH span AS MATERIALIZED (
    SELECT
        coalesce(nullif(:since, ''), strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-30 days')) AS since,
        coalesce(nullif(:until, ''), '9999')                                           AS until
),
searched AS MATERIALIZED (
    SELECT embed_ms, search_ms, lexical_ms FROM retrievals
    WHERE recorded_at >= (SELECT since FROM span) AND recorded_at < (SELECT until FROM span) AND outcome = 'ok'
      AND NOT imported
),
answered AS MATERIALIZED (
    SELECT first_token_ms, answer_ms, total_ms, prompt_tokens, completion_tokens FROM turns
    WHERE recorded_at >= (SELECT since FROM span) AND recorded_at < (SELECT until FROM span)
      AND imported_from IS NULL
),
calls AS MATERIALIZED (
    SELECT 1 AS place, 'embed' AS stage, embed_ms AS ms, NULL AS prompt_tokens, NULL AS completion_tokens FROM searched
    UNION ALL
    SELECT 2, 'search by vector', search_ms, NULL, NULL FROM searched
    UNION ALL
    SELECT 3, 'search by word', lexical_ms, NULL, NULL FROM searched WHERE lexical_ms > 0
    UNION ALL
    SELECT 4, 'gate', latency_ms, prompt_tokens, completion_tokens FROM gate_decisions
    WHERE recorded_at >= (SELECT since FROM span) AND recorded_at < (SELECT until FROM span) AND outcome <> 'skipped'
      AND NOT imported
    UNION ALL
    SELECT 5, 'rerank', latency_ms, prompt_tokens, completion_tokens FROM rerank_decisions
    WHERE recorded_at >= (SELECT since FROM span) AND recorded_at < (SELECT until FROM span) AND outcome <> 'skipped'
      AND NOT imported
    UNION ALL
    SELECT 6, 'first token', first_token_ms, NULL, NULL FROM answered
    UNION ALL
    SELECT 7, 'answer', answer_ms, prompt_tokens, completion_tokens FROM answered
    UNION ALL
    SELECT 8, 'turn', total_ms, NULL, NULL FROM answered
    UNION ALL
    SELECT 9, 'summary', NULL, prompt_tokens, completion_tokens FROM summaries
    WHERE recorded_at >= (SELECT since FROM span) AND recorded_at < (SELECT until FROM span) AND source = 'model'
      AND NOT imported AND model <> 'imported'
),
ranked AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY place ORDER BY ms) AS nth,
        count(*) OVER (PARTITION BY place)                 AS n
    FROM calls
)
SELECT
    stage,
    n                                                 AS calls,
    max(ms) FILTER (WHERE nth = (n + 1) / 2)          AS p50_ms,
    max(ms) FILTER (WHERE nth = (95 * n + 99) / 100)  AS p95_ms,
    sum(prompt_tokens)                                AS prompt_tokens,
    sum(completion_tokens)                            AS completion_tokens
FROM ranked
GROUP BY place, stage, n
ORDER BY place;

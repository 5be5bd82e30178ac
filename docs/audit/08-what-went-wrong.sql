-- How often was memory not searched, or no answer given, month by month, and why?
--
-- `percent` is of the month's questions.
--
--   .param set :since "''"     (empty: from the beginning)
--
-- Answer, of the small synthetic ledger:
--
--   month    what                 code                  times  percent
--   2025-01  memory not searched  model_mismatch        3      2.5
--   2025-01  no answer            upstream_timeout      3      2.5
--   2025-01  no answer            upstream_unreachable  1      0.83
WITH asked AS MATERIALIZED (
    SELECT substr(recorded_at, 1, 7) AS month, outcome, degraded_code
    FROM retrievals
    WHERE recorded_at >= coalesce(:since, '')
),
asked_by_month AS MATERIALIZED (
    SELECT month, count(*) AS questions FROM asked GROUP BY month
),
wrong AS (
    SELECT month, 'memory not searched' AS what, degraded_code AS code, count(*) AS times
    FROM asked WHERE outcome = 'degraded'
    GROUP BY month, degraded_code
    UNION ALL
    SELECT substr(recorded_at, 1, 7), 'no answer', code, count(*)
    FROM failed_turns
    WHERE recorded_at >= coalesce(:since, '')
    GROUP BY substr(recorded_at, 1, 7), code
)
SELECT month, what, code, times, round(100.0 * times / questions, 2) AS percent
FROM wrong
JOIN asked_by_month USING (month)
ORDER BY month, what, times DESC;

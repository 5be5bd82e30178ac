-- How often was memory not searched, or no answer given, month by month, and why?
--
-- `percent` is of the month's questions. Imported ones are left out. Uncut: of the whole ledger unless a time is given.
--
--   .param set :since "''"     (empty: from the beginning)
--
-- Answer, of the small synthetic ledger:
--
--   month    what                 code                  times  percent
--   2025-01  memory not searched  model_mismatch        2      1.68
--   2025-01  no answer            upstream_timeout      2      1.68
--   2025-01  no answer            upstream_unreachable  2      1.68
WITH searched AS MATERIALIZED (
    SELECT substr(recorded_at, 1, 7) AS month, outcome, degraded_code
    FROM retrievals
    WHERE recorded_at >= coalesce(:since, '') AND NOT imported
),
answered AS MATERIALIZED (
    SELECT substr(recorded_at, 1, 7) AS month
    FROM turns
    WHERE recorded_at >= coalesce(:since, '') AND imported_from IS NULL
),
failed AS MATERIALIZED (
    SELECT substr(recorded_at, 1, 7) AS month, code
    FROM failed_turns
    WHERE recorded_at >= coalesce(:since, '') AND NOT imported
),
asked AS MATERIALIZED (
    SELECT month, count(*) AS questions
    FROM (SELECT month FROM answered UNION ALL SELECT month FROM failed)
    GROUP BY month
),
wrong AS (
    SELECT month, 'memory not searched' AS what, degraded_code AS code, count(*) AS times
    FROM searched WHERE outcome = 'degraded'
    GROUP BY month, degraded_code
    UNION ALL
    SELECT month, 'no answer', code, count(*) FROM failed GROUP BY month, code
)
SELECT month, what, code, times, round(100.0 * times / questions, 2) AS percent
FROM wrong
LEFT JOIN asked USING (month)
ORDER BY month, what, times DESC;

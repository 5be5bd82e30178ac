-- How much does the gate keep, by month and model?
--
-- `decided` are the candidates that it decided about, and `percent_kept` is of these. Nobody decided about those for which
-- its prompt had no room (`not_asked`) and those which the recent window showed already or a newer one repeats
-- (`excluded`). `over_limit` it kept, and `gate_keep_max` cut them off. Decisions that fell back or were skipped are left
-- out, and so are imported ones. Uncut: of the whole ledger unless a time is given. Needs `audit.sqlite3`, see
-- docs/audit.md.
--
--   .param set :since "''"     (empty: from the beginning)
--   .param set :until "''"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   month    strategy  model          prompt_version  decisions  excluded  not_asked  decided  kept  over_limit  percent_kept
--   2025-01  llm       Qwen3-14B      1               37         208       0          407      126   0           30.96
--   2025-01  llm       Mistral-Small  1               36         178       0          791      237   3           29.96
--   2025-01  llm       Qwen3-8B       1               18         100       0          64       22    0           34.38
SELECT
    substr(recorded_at, 1, 7)                       AS month,
    strategy,
    model,
    prompt_version,
    count(*)                                        AS decisions,
    sum(excluded)                                   AS excluded,
    sum(not_asked)                                  AS not_asked,
    sum(decided)                                    AS decided,
    sum(kept)                                       AS kept,
    sum(over_limit)                                 AS over_limit,
    round(100.0 * sum(kept) / sum(decided), 2)      AS percent_kept
FROM audit_decisions
WHERE outcome = 'ok'
  AND recorded_at >= coalesce(:since, '')
  AND recorded_at < coalesce(nullif(:until, ''), '9999')
GROUP BY month, strategy, model, prompt_version
ORDER BY month, decisions DESC;

-- Do the scores of what is found and of what is replayed drift, by month and embedding model?
--
-- Cosine similarities: fused scores say a place only. `best` is the mean of each search's best candidate. A mean that
-- moves while the model stays tells of other questions or of a memory that grew; one that moves with the model is that
-- model's own scale, to which thresholds have to be set again. Imported searches are left out. Uncut: of the whole ledger
-- unless a time is given. Needs `audit.sqlite3`, see docs/audit.md.
--
--   .param set :since "''"     (empty: from the beginning)
--   .param set :until "''"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   month    embedding_model  searches  candidates  mean_of_candidates  best    replayed  mean_of_replayed
--   2025-01  bge-m3           113       1783        0.7409              0.7931  280       0.75
SELECT
    substr(recorded_at, 1, 7)                                          AS month,
    embedding_model,
    count(*)                                                           AS searches,
    sum(scored)                                                        AS candidates,
    round(sum(score_sum) / sum(scored), 4)                             AS mean_of_candidates,
    round(avg(score_best), 4)                                          AS best,
    sum(replayed_scored)                                               AS replayed,
    round(sum(replayed_score_sum) / sum(replayed_scored), 4)           AS mean_of_replayed
FROM audit_decisions
WHERE scored > 0
  AND recorded_at >= coalesce(:since, '')
  AND recorded_at < coalesce(nullif(:until, ''), '9999')
GROUP BY month, embedding_model
ORDER BY month, searches DESC;

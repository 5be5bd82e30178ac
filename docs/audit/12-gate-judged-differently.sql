-- Where did the gate judge the same memory differently for the same question?
--
-- The same model with the same prompt, at different times; what it kept and `gate_keep_max` cut off counts as kept.
-- `percent_of_pairs` says how often that is so, of all memories about which this gate was asked again for the same question.
-- The newest first. A correction in between is a good reason: `corrected` says that there was one. Imported decisions are
-- left out. Cut: the first 200, of all times. Needs `audit.sqlite3`, see docs/audit.md.
--
--   .param set :user "''"     (empty: everybody)
--
-- Answer, of the small synthetic ledger:
--
--   last_asked                   user_id  query                                         memory                                        times_kept  times_dropped  corrected  model          prompt_version  percent_of_pairs
--   2025-01-29T20:45:04.743715Z  ann      Please remember about my cat: Miso eats not…  Please remember about my violin: the E stri…  1           1              0          Mistral-Small  1               33.33
--   2025-01-29T20:45:04.743715Z  ann      Please remember about my cat: Miso eats not…  Please remember about my boat: the Alma lie…  1           1              0          Mistral-Small  1               33.33
--   2025-01-29T20:45:04.743715Z  ann      Please remember about my cat: Miso eats not…  What do you know about my garden?             1           1              0          Mistral-Small  1               33.33
--   2025-01-29T20:45:04.743715Z  ann      Please remember about my cat: Miso eats not…  What do you know about my sister? It was sa…  1           1              0          Mistral-Small  1               33.33
--   2025-01-29T20:45:04.743715Z  ann      Please remember about my cat: Miso eats not…  Please remember about my thesis: chapter fo…  1           1              0          Mistral-Small  1               33.33
--   2025-01-29T20:45:04.743715Z  ann      Please remember about my cat: Miso eats not…  Please remember about my car: the winter ty…  1           1              0          Mistral-Small  1               33.33
--   2025-01-27T18:04:33.615813Z  chen     What do you know about my sister? It was sa…  Please remember about my cat: Miso eats not…  1           1              0          Mistral-Small  1               33.33
--   2025-01-27T18:04:33.615813Z  chen     What do you know about my sister? It was sa…  What do you know about my bread? It was sai…  1           1              0          Mistral-Small  1               33.33
--   2025-01-27T18:04:33.615813Z  chen     What do you know about my sister? It was sa…  What do you know about my car? It was said …  1           1              0          Mistral-Small  1               33.33
--   2025-01-08T21:20:12.171413Z  ann      What do you know about my sister? It was sa…  What do you know about my flat? It was said…  1           2              0          Qwen3-8B       1               66.67
--   ... 11 rows in all
WITH again AS MATERIALIZED (
    SELECT judge, count(*) AS pairs, sum(kept BETWEEN 1 AND judged - 1) AS differently
    FROM audit_judged
    WHERE judged > 1
    GROUP BY judge
),
newest AS MATERIALIZED (
    SELECT *
    FROM audit_judged
    WHERE kept > 0 AND kept < judged
      AND (coalesce(:user, '') = '' OR question IN (SELECT question FROM audit_questions WHERE user_id = :user))
    ORDER BY last DESC
    LIMIT 200
)
SELECT
    asked.recorded_at                                      AS last_asked,
    asked.user_id,
    asked.query,
    said.user                                              AS memory,
    newest.kept                                            AS times_kept,
    newest.judged - newest.kept                            AS times_dropped,
    EXISTS (
      SELECT 1 FROM summaries
      WHERE summaries.memory_id = said.memory_id AND summaries.source = 'edited' AND summaries.user_id = said.user_id
    )                                                      AS corrected,
    audit_judges.model,
    audit_judges.prompt_version,
    round(100.0 * again.differently / again.pairs, 2)      AS percent_of_pairs
FROM newest
JOIN again USING (judge)
JOIN audit_judges USING (judge)
JOIN retrievals AS asked ON asked.position = newest.last
JOIN turns AS said ON said.position = newest.memory
ORDER BY newest.last DESC, newest.memory;

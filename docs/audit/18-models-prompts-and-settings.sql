-- Which models, prompts and settings were in use at a date?
--
-- What was activated last of each kind before it: for everybody (`user_id` is empty), and for single people. Texts of the
-- prompts are in the column `texts` of `activations`. Uncut.
--
--   .param set :at "'2025-01-15'"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   what             user_id  since                        value                                         dimensions  base_url  actor
--   embedding_model           2025-01-01T08:00:00.000000Z  bge-m3                                        1024
--   prompts                   2025-01-01T08:00:00.000000Z  {"CHAT_SYSTEM":"1"}
--   settings                  2025-01-01T08:00:00.000000Z  {"gate":"llm","gate_keep_max":12,"retrieve_…
WITH known AS MATERIALIZED (
    SELECT *, row_number() OVER (PARTITION BY user_id, what ORDER BY position DESC) AS nth
    FROM activations
    WHERE recorded_at <= coalesce(nullif(:at, ''), '9999')
)
SELECT what, user_id, recorded_at AS since, value, dimensions, base_url, actor
FROM known
WHERE nth = 1
ORDER BY user_id, what;

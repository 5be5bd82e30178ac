-- How many calls and tokens did each month, person, stage and model take?
--
-- Failed calls are counted, and so are tokens of answers that broke off, as far as the endpoint reported them. What was
-- imported cost nothing here and is left out. Uncut: of the whole ledger, or of one person.
--
--   .param set :user "''"     (empty: everybody)
--
-- Answer, of the small synthetic ledger:
--
--   month    user_id  stage    model          calls  failed  prompt_tokens  completion_tokens
--   2025-01  ann      answer   Mistral-Small  16     0       37223          2848
--   2025-01  ann      answer   Qwen3-14B      14     0       25510          3055
--   2025-01  ann      answer   Qwen3-8B       17     1       30120          2807
--   2025-01  ann      embed    bge-m3         46     0
--   2025-01  ann      gate     Mistral-Small  16     1       26071          625
--   2025-01  ann      gate     Qwen3-14B      13     1       9887           536
--   2025-01  ann      gate     Qwen3-8B       9      0       2383           371
--   2025-01  ann      rerank   Mistral-Small  11     0       9750           331
--   2025-01  ann      rerank   Qwen3-14B      2      0       1741           42
--   2025-01  ann      summary  Mistral-Small  16     1       5472           483
--   ... 36 rows in all
SELECT month, user_id, stage, model, calls, failed, prompt_tokens, completion_tokens
FROM usage_by_month
WHERE coalesce(:user, '') = '' OR user_id = :user
ORDER BY month, user_id, stage, model;

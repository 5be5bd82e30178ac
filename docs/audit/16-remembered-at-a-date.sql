-- What was remembered of this person at a date?
--
-- Each memory with the summary that held then, the oldest first. What was withdrawn by then is not there, and what was
-- erased is in no answer at all. Cut: the first 200.
--
--   .param set :user "'ann'"
--   .param set :at "'2025-01-15'"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   memory_id                             ts                           conversation_id  they_said                                     summary                                       summary_source  valid_from                   valid_until
--   fd22bb42-2252-4dbd-a43e-7740604d45f2  2023-11-28T08:00:00Z         earlier          Please remember about my thesis: chapter fo…                                                                2025-01-01T08:00:00.000000Z
--   8d84419f-94e0-4150-885f-041e8ff057bd  2025-01-02T00:23:07.728279Z  talk 1           What do you know about my flat? It was said…  About the flat: the lease of the flat ends …  model           2025-01-02T00:23:07.728279Z
--   7aea25ed-1ec8-4b55-b4d6-56a8c5c707f6  2025-01-02T12:39:56.383990Z  talk 1           Please remember about my violin: the E stri…  About the violin: the E string is a Pirastr…  model           2025-01-02T12:39:56.383990Z
--   63aca1dc-8714-4787-9b55-5b3bea362b07  2025-01-03T05:44:40.456361Z  talk 1           Please remember about my garden: the quince…  About the garden: the quince is to be cut b…  model           2025-01-03T05:44:40.456361Z
--   31ebcb2a-0e67-4e70-87f9-14461c29a054  2025-01-04T02:32:29.433780Z  talk 1           Please remember about my flat: the lease of…  About the flat: the lease of the flat ends …  model           2025-01-04T02:32:29.433780Z
--   a0b278dc-779a-4814-a218-d7c3c3967bd6  2025-01-04T08:03:16.298760Z  talk 1           Please remember about my boat: the Alma lie…  About the boat: the Alma lies at pier seven.  model           2025-01-04T08:03:16.298760Z
--   74f75d6b-e200-4375-b1e9-97a41e5a88b1  2025-01-06T03:32:59.498092Z  talk 1           What do you know about my boat? It was said…  About the boat: the Alma lies at pier seven.  model           2025-01-06T03:32:59.498092Z
--   58129e31-9847-4c85-bec2-eddddfd0ac1b  2025-01-06T16:13:49.387105Z  talk 1           What do you know about my garden?                                                                           2025-01-06T16:13:49.387105Z
--   b5b5cd67-1203-469d-b257-a56fb5bb2c15  2025-01-06T19:29:09.431417Z  talk 1           What do you know about my sister? It was sa…  About the sister: Ruth moved to Porto.        model           2025-01-06T19:29:09.431417Z
--   5c48a731-148a-4bd4-934d-0631bbd5e22b  2025-01-07T03:38:09.168898Z  talk 1           What do you know about my sister? It was sa…  About the sister: Ruth moved to Porto.        model           2025-01-07T03:38:09.168898Z
--   ... 22 rows in all
SELECT memory_id, ts, conversation_id, user AS they_said, summary, summary_source, valid_from, valid_until
FROM memory_as_of
WHERE user_id = :user
  AND valid_from <= coalesce(nullif(:at, ''), '9999')
  AND (valid_until IS NULL OR valid_until > coalesce(nullif(:at, ''), '9999'))
ORDER BY ts, from_position
LIMIT 200;

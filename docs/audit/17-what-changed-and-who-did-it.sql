-- What changed between two dates in what is remembered of this person, and who did it?
--
-- `actor` is the label of an API key or the account that ran a command; NULL where no keys are set, and for summaries,
-- which the service writes by itself. Erasures of a part are rows without a memory. Cut: the first 200, of the last seven days unless another time is given.
--
--   .param set :user "'ann'"
--   .param set :since "'2025-01-22'"     (empty: seven days ago)
--   .param set :until "'2025-01-24'"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   recorded_at                  what        memory_id                             text                                          reason          actor    route                      client  request_id
--   2025-01-22T03:01:39.684539Z  said        c741558e-f06b-41c9-9c9d-3a4660ab65e5  Please remember about my car: the winter ty…                  key:ann  POST /v1/chat/completions  page/1  req-ann-34
--   2025-01-22T03:01:39.684539Z  summarised  c741558e-f06b-41c9-9c9d-3a4660ab65e5  About the car: the winter tyres are in the …
--   2025-01-22T13:28:53.978096Z  said        470ad31e-ed69-4b34-80cf-0e7c63458a1e  Please remember about my thesis: chapter fo…                  key:ann  POST /v1/chat/completions  page/1  req-ann-35
--   2025-01-22T13:28:53.978096Z  summarised  470ad31e-ed69-4b34-80cf-0e7c63458a1e  About the thesis: chapter four still lacks …
--   2025-01-22T13:28:53.978096Z  corrected   6519153e-c0c8-4972-953d-c93e7e5c2a72  That was last year and no longer holds.                       key:ann  PATCH /v1/memories/{id}    page/1  req-ann-35
--   2025-01-23T10:26:03.736981Z  said        af15f5ec-cb4d-4534-b50b-47a52ed510d6  Please remember about my boat: the Alma lie…                  key:ann  POST /v1/chat/completions  page/1  req-ann-36
--   2025-01-23T10:26:03.736981Z  summarised  af15f5ec-cb4d-4534-b50b-47a52ed510d6  About the boat: the Alma lies at pier seven.
--   2025-01-23T10:26:03.736981Z  forgotten   dd6565fd-5f15-4930-b91e-a7ad447f92e7                                                no longer true  key:ann  PATCH /v1/memories/{id}    page/1  req-ann-36
--   2025-01-23T13:46:41.732163Z  said        ab51458d-b2d4-4f2b-bb0c-dde5e53e3bfb  Please remember about my thesis: chapter fo…                  key:ann  POST /v1/chat/completions  page/1  req-ann-37
SELECT recorded_at, what, memory_id, text, reason, actor, route, client, request_id
FROM changes
WHERE user_id = :user
  AND recorded_at >= coalesce(nullif(:since, ''), strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-7 days'))
  AND recorded_at < coalesce(nullif(:until, ''), '9999')
ORDER BY position
LIMIT 200;

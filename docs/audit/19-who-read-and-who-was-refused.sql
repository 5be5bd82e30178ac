-- Who read this person's memory, and who was refused?
--
-- Of the access log, which holds refused calls and, with `ACCESS_LOG=reads`, reads; its rows are removed after
-- `ACCESS_LOG_DAYS`. A refused call of which nobody knows whose memory it meant is shown to every question. Cut: the
-- newest 200, of what the log still has.
--
--   .param set :user "'ann'"     (empty: everybody)
--
-- Answer, of the small synthetic ledger:
--
--   at                           what     user_id  actor    client  route                      status  request_id
--   2025-01-04T08:00:00.000000Z  refused                    curl/8  POST /v1/chat/completions  401     req-c3
--   2025-01-03T08:00:00.000000Z  refused  ann      key:bob  curl/8  GET /v1/memories           403     req-b7
--   2025-01-02T08:00:00.000000Z  read     ann      key:ann  page/1  GET /v1/memories           200     req-a1
SELECT at, CASE WHEN refused THEN 'refused' ELSE 'read' END AS what, user_id, actor, client, route, status, request_id
FROM access
WHERE coalesce(:user, '') = '' OR user_id = :user OR (refused AND user_id IS NULL)
ORDER BY id DESC
LIMIT 200;

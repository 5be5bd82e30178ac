-- What was erased, by whom, when, and why?
--
-- One row per event that lists what was erased: of one memory, of a conversation, of what was older than a limit, or of a
-- person, who is a pseudonym afterwards. `completed_at` is empty while it is not done in every file. Cut: the newest 200,
-- of all times unless one is given.
--
--   .param set :user "''"               (empty: everybody)
--   .param set :since "'2025-01-01'"     (empty: from the first)
--   .param set :until "'2025-03-01'"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   recorded_at                  user_id  scope   memories  events  reason           actor        route      completed_at                 erasure_id
--   2025-02-10T08:00:00.000000Z  chen     memory  1         2       asked by letter  account:opm  opm erase  2025-02-10T08:00:00.000000Z  996ad860-2a9a-504f-8861-aeafd0b2ae29
SELECT recorded_at, user_id, scope, memories, events, reason, actor, route, completed_at, erasure_id
FROM erasures
WHERE (coalesce(:user, '') = '' OR user_id = :user)
  AND recorded_at >= coalesce(:since, '')
  AND recorded_at < coalesce(nullif(:until, ''), '9999')
ORDER BY position DESC
LIMIT 200;

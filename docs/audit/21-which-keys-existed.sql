-- Which keys let somebody in at a date, whom did each stand for, and who made it?
--
-- Of the keys that `opm keys` made; those of `API_KEYS` are in the environment and leave no trace but the `actor` of
-- events. `actor` is how events name a key, so what was done with one is found by it. A person who was erased is a
-- pseudonym here too. Uncut.
--
--   .param set :at "'2025-01-15'"     (empty: now)
--
-- Answer, of the small synthetic ledger:
--
--   actor         name        stands_for  trust_headers  read_only  created_at                   created_by   expires_at  revoked_at                   revoked_by
--   key:0a1b2c3d  laptop      ann         0              0          2025-01-02T08:00:00.000000Z  account:opm
--   key:1b2c3d4e  Open WebUI  anybody     1              0          2025-01-03T08:00:00.000000Z  account:opm              2025-01-21T08:00:00.000000Z  account:opm
SELECT actor, name, coalesce(user_id, 'anybody') AS stands_for, trust_headers, read_only,
       created_at, created_by, expires_at, revoked_at, revoked_by
FROM keys
WHERE created_at <= coalesce(nullif(:at, ''), strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
  AND (valid_until IS NULL OR valid_until > coalesce(nullif(:at, ''), strftime('%Y-%m-%dT%H:%M:%fZ', 'now')))
ORDER BY created_at, key_id;

-- The service's keys. The table holds their hashes; its triggers let a row be revoked and no more.

-- name: all_keys
-- Every key that was ever made, oldest first.
SELECT *
FROM api_keys
ORDER BY created_at, key_id;

-- name: add_key
-- Keep a key that was just made.
INSERT INTO api_keys
    (key_id, key_hash, name, user_id, trust_headers, read_only, user_is, created_at, created_by, expires_at)
VALUES
    (:key_id, :key_hash, :name, :user_id, :trust_headers, :read_only, :user_is, :created_at, :created_by, :expires_at);

-- name: revoke_key
-- Revoke a key; one that was revoked before stays as it is.
UPDATE api_keys
SET revoked_at = :at, revoked_by = :by
WHERE key_id = :key_id AND revoked_at IS NULL;

-- name: note_key_use
-- Note when a key was used. Several processes do it, each of what it saw.
UPDATE api_keys
SET last_used_at = :at
WHERE key_id = :key_id AND (last_used_at IS NULL OR last_used_at < :at);

-- name: erase_keys
-- Revoke the keys of an erased person, and take the person and the key's name out of them.
UPDATE api_keys
SET user_id = :pseudonym, name = '', revoked_at = coalesce(revoked_at, :at),
    revoked_by = CASE WHEN revoked_at IS NULL THEN 'erasure' ELSE revoked_by END
WHERE user_id = :user_id;

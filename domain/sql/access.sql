-- The access log: who read a person's memory, and who was refused. Its rows are no events; they go after a time.

-- name: add_access
-- Note a call; not one about a person of whom nothing is kept, who may have been erased since the call.
INSERT INTO access_log (at, request_id, actor, client, route, status, user_id)
SELECT :at, :request_id, :actor, :client, :route, :status, :user_id
WHERE :user_id IS NULL OR EXISTS (SELECT 1 FROM events WHERE user_id = :user_id);

-- name: prune_access
-- Remove what is older than a time.
DELETE FROM access_log
WHERE at < :oldest;

-- name: erase_access
-- Remove what is about an erased person. Whoever else read it is then unknown too.
DELETE FROM access_log
WHERE user_id = :user_id;

-- name: access_to
-- Who read a person's memory or was refused it between two times, in order.
SELECT at, actor, client, route, status, refused, request_id
FROM access
WHERE user_id = :user_id AND at >= :since AND at < :until
ORDER BY id;

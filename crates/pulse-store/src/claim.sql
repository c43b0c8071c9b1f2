-- Claims the tasks $1 that are due and not leased, by id, until they have $4 bytes; at least one. Tasks that crashed are
-- claimed only if $5, and nothing while there is a pause. Returns the claimed ones, and then the ids of the due ones that were not claimed.
WITH due AS (
    SELECT id, bytes, crashed, (SELECT count(*) > 0 FROM pause) AS paused FROM tasks
    WHERE id = ANY ($1) AND run_at + interval '0' <= now() AND lease_until IS NULL
    FOR UPDATE SKIP LOCKED
), sized AS (
    SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS bytes_before FROM due WHERE NOT paused AND ($5 OR NOT crashed)
), claimed AS (
    UPDATE tasks
    SET fencing_token = fencing_token + 1, worker = $2, started_at = now(),
        lease_until = now() + make_interval(secs => $3)
    WHERE tasks.id = ANY (ARRAY(SELECT id FROM sized WHERE bytes_before < $4::bigint))
    RETURNING *
)
SELECT id AS "id!", crashed AS "crashed!", false AS "paused!", user_id AS "user_id?", event_ids AS "event_ids?", bytes AS "bytes?",
       attempts AS "attempts?", max_attempts AS "max_attempts?", fencing_token AS "fencing_token?",
       created_at AS "created_at?", parent_id, traceparent, request_id
FROM claimed
UNION ALL
SELECT id, crashed, paused, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
FROM due WHERE (id IN (SELECT id FROM claimed)) IS NOT TRUE

-- The oldest due tasks of at most 64 users with an id below $1, about $2 in all, with the same share for each user.
-- PostgreSQL has no skip scan, so the recursion finds the next user in the index. It goes backwards: the first entries of
-- a user are those of settled tasks, which stay in the index as long as an older transaction runs. The scheduler knows a time
-- before which no unsettled task was due: the entries before it are skipped without reading their rows.
WITH RECURSIVE known AS MATERIALIZED (
    SELECT coalesce((SELECT due_from FROM gauges), '-infinity') AS due_from
), owners AS (
    (SELECT user_id, 1 AS number FROM tasks
     WHERE user_id < $1 AND run_at >= (SELECT due_from FROM known)
     ORDER BY user_id DESC LIMIT 1)
    UNION ALL
    SELECT next.user_id, owners.number + 1
    FROM owners
    CROSS JOIN LATERAL (
        SELECT user_id FROM tasks
        WHERE user_id < owners.user_id AND run_at >= (SELECT due_from FROM known)
        ORDER BY user_id DESC LIMIT 1
    ) AS next
    WHERE owners.number < 64
)
SELECT owners.user_id AS "user_id!", due.ids AS "ids!"
FROM owners
CROSS JOIN LATERAL (
    SELECT ARRAY(
        SELECT id FROM tasks
        WHERE user_id = owners.user_id AND run_at >= (SELECT due_from FROM known) AND run_at <= now()
              AND lease_until IS NULL
        ORDER BY run_at
        LIMIT GREATEST($2 / (SELECT count(*) FROM owners), 1)
    ) AS ids
) AS due

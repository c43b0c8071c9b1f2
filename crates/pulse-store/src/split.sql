-- Splits batches: completes their tasks and those of their events that have a result, and inserts a task, pending or
-- dead, for each of the other events.
WITH parents AS (
    DELETE FROM tasks
    WHERE id = ANY ($3) AND lease_until IS NOT NULL
          AND ((id, fencing_token) IN (SELECT * FROM unnest($3::uuid[], $4::bigint[]))) IS TRUE
    RETURNING *
), effects AS (
    UPDATE events
    SET processed = true, processed_at = now(), properties = effect.properties::jsonb, processing_error = NULL
    FROM unnest($5::uuid[], $6::bigint[], $7::timestamptz[], $8::text[])
         AS effect (task_id, event_id, created_at, properties)
    WHERE events.id = effect.event_id AND events.created_at = effect.created_at
          AND (effect.task_id IN (SELECT id FROM parents)) IS TRUE
), children AS MATERIALIZED (
    SELECT child.id AS child_id, child.event_id, child.bytes AS child_bytes, child.delay, child.attempt, child.is_dead,
           child.is_crashed, parents.attempts + (child.attempt IS NOT NULL)::int AS ended,
           CASE WHEN child.attempt IS NULL THEN errors ELSE errors || child.attempt END AS child_errors, parents.*
    FROM unnest($9::uuid[], $10::uuid[], $11::bigint[], $12::bigint[], $13::float8[], $14::jsonb[], $15::bool[],
                $16::bool[])
         AS child (parent_id, id, event_id, bytes, delay, attempt, is_dead, is_crashed)
    JOIN parents ON parents.id = child.parent_id
), new_tasks AS (
    INSERT INTO tasks (id, kind, user_id, event_ids, bytes, created_at, attempts, max_attempts, run_at, enqueued_at,
                       started_at, worker, crashed, parent_id, errors, traceparent, request_id)
    SELECT child_id, 'process_event', user_id, ARRAY[event_id], child_bytes, created_at, ended, max_attempts,
           now() + make_interval(secs => delay), NULL, started_at, worker, is_crashed, id, child_errors, traceparent,
           request_id
    FROM children WHERE NOT is_dead
), dead AS (
    INSERT INTO dead_tasks (id, kind, user_id, event_ids, bytes, created_at, attempts, max_attempts, started_at,
                            fencing_token, worker, parent_id, reason, errors, traceparent, request_id)
    SELECT child_id, 'process_event', user_id, ARRAY[event_id], child_bytes, created_at, ended, max_attempts, started_at,
           0, worker, id, attempt ->> 'reason', child_errors, traceparent, request_id
    FROM children WHERE is_dead
), marked AS (
    UPDATE events SET processing_error = children.attempt ->> 'error'
    FROM children
    WHERE children.is_dead AND events.id = children.event_id AND events.created_at = children.created_at
), counted AS (
    INSERT INTO throughput (writer, accepted, settled, busy_us)
    SELECT $1::text, (SELECT count(*) FROM children),
           (SELECT count(*) FROM parents) + (SELECT count(*) FROM children WHERE is_dead), $2::bigint
    WHERE $1 IS NOT NULL
    ON CONFLICT (writer) DO UPDATE
    SET accepted = throughput.accepted + excluded.accepted, settled = throughput.settled + excluded.settled,
        busy_us = throughput.busy_us + excluded.busy_us, updated_at = now()
)
INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, started_at, worker, children,
                          traceparent, request_id)
SELECT id, kind, user_id, event_ids, 'completed', attempts + 1, errors, created_at, started_at, worker,
       ARRAY(SELECT child_id FROM children WHERE children.id = parents.id ORDER BY event_id), traceparent, request_id
FROM parents
RETURNING id

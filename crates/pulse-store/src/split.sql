-- Splits batches: completes their tasks and those of their events that have a result, and inserts a task, pending or
-- dead, for each of the other events.
WITH parents AS (
    DELETE FROM tasks
    WHERE id = ANY ($4) AND lease_until IS NOT NULL
          AND ((id, fencing_token) IN (SELECT * FROM unnest($4::uuid[], $5::bigint[]))) IS TRUE
    RETURNING *
), effects AS (
    UPDATE events
    SET processed = true, processed_at = now(), properties = effect.properties::jsonb, processing_error = NULL
    FROM unnest($6::uuid[], $7::bigint[], $8::timestamptz[], $9::text[])
         AS effect (task_id, event_id, created_at, properties)
    WHERE events.id = effect.event_id AND events.created_at = effect.created_at
          AND (effect.task_id IN (SELECT id FROM parents)) IS TRUE
), children AS MATERIALIZED (
    SELECT child.id AS child_id, child.event_id, child.bytes AS child_bytes, child.delay, child.attempt, child.is_dead,
           child.is_crashed, parents.attempts + (child.attempt IS NOT NULL)::int AS ended,
           CASE WHEN child.attempt IS NULL THEN errors ELSE errors || child.attempt END AS child_errors, parents.*
    FROM unnest($10::uuid[], $11::uuid[], $12::bigint[], $13::bigint[], $14::float8[], $15::jsonb[], $16::bool[],
                $17::bool[])
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
    INSERT INTO throughput (period, start, writer, attempt_us, attempt_times, accepted, completed, completed_events, failed,
                            retried, dead, refused, completion_times)
    SELECT 'live', date_trunc('minute', now()), $1::text, $2::bigint, histogram($3::float8[]), children.tasks,
           parents.tasks, parents.events - children.tasks, children.failed, children.failed - children.dead,
           children.dead, cardinality($4::uuid[]) - parents.tasks, histogram(CASE WHEN $3 IS NOT NULL THEN parents.seconds END)
    FROM (SELECT count(*) AS tasks, coalesce(sum(cardinality(event_ids)), 0) AS events,
                 array_agg(extract(epoch FROM now() - created_at)::float8) AS seconds
          FROM parents) AS parents,
         (SELECT count(*) AS tasks, count(attempt) AS failed, count(*) FILTER (WHERE is_dead) AS dead
          FROM children) AS children
    ON CONFLICT (period, event_name, start, writer) DO UPDATE
    SET accepted = throughput.accepted + excluded.accepted, completed = throughput.completed + excluded.completed,
        completed_events = throughput.completed_events + excluded.completed_events,
        failed = throughput.failed + excluded.failed, retried = throughput.retried + excluded.retried,
        dead = throughput.dead + excluded.dead, refused = throughput.refused + excluded.refused,
        attempt_us = throughput.attempt_us + excluded.attempt_us,
        attempt_times = add_histograms(throughput.attempt_times, excluded.attempt_times),
        completion_times = add_histograms(throughput.completion_times, excluded.completion_times)
)
INSERT INTO task_history (id, kind, user_id, event_ids, outcome, attempts, errors, created_at, started_at, worker, children,
                          traceparent, request_id)
SELECT id, kind, user_id, event_ids, 'completed', attempts + 1, errors, created_at, started_at, worker,
       ARRAY(SELECT child_id FROM children WHERE children.id = parents.id ORDER BY event_id), traceparent, request_id
FROM parents
RETURNING id

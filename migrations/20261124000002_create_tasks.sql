-- additive: yes
-- Tasks: unsettled, settled and dead; idempotency keys.

-- Unsettled tasks only, so the table is as large as the backlog. A claim changes no indexed column and stays on its page
-- (a HOT update); the fill factor leaves room for it.
CREATE TABLE tasks (
    id            uuid        PRIMARY KEY,
    kind          text        NOT NULL CHECK (kind IN ('process_event', 'process_events_batch')),
    user_id       bigint      NOT NULL,
    event_ids     bigint[]    NOT NULL,
    bytes         bigint      NOT NULL,               -- of the events in a worker's memory; bounds a claim
    created_at    timestamptz NOT NULL DEFAULT now(), -- equals `created_at` of the task's events, and so finds their partition
    attempts      int         NOT NULL DEFAULT 0,     -- ended; a task that a worker releases uses none
    max_attempts  int         NOT NULL CHECK (max_attempts >= 1),
    run_at        timestamptz NOT NULL DEFAULT now(), -- not claimed before this time
    enqueued_at   timestamptz DEFAULT now(),          -- NULL: not on the Redis stream
    started_at    timestamptz,                        -- of the latest claim
    fencing_token bigint      NOT NULL DEFAULT 0,     -- grows with each claim and never falls
    lease_until   timestamptz,                        -- NULL: not claimed
    worker        text,                               -- of the latest claim
    crashed       boolean     NOT NULL DEFAULT false, -- a worker died while it had the task: run it alone
    parent_id     uuid,                               -- the batch of the event; NULL: not a child
    errors        jsonb       NOT NULL DEFAULT '[]',  -- one {attempt, at, reason, error} per failed attempt
    traceparent   text,
    request_id    text
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

CREATE INDEX tasks_run_at ON tasks (run_at);
CREATE INDEX tasks_not_enqueued ON tasks (run_at) WHERE enqueued_at IS NULL;
CREATE INDEX tasks_user ON tasks (user_id, run_at);

-- The state of an unsettled task, from columns of `tasks`.
CREATE FUNCTION task_state(lease_until timestamptz, attempts int) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN lease_until IS NOT NULL THEN 'running' WHEN attempts > 0 THEN 'retrying' ELSE 'pending' END
$$;

-- The id of the trace in a W3C trace context.
CREATE FUNCTION trace_id(traceparent text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT substr(traceparent, 4, 32) $$;

-- The part of an error message that is the same for all errors of a kind: without quoted texts, ids and numbers.
CREATE FUNCTION error_group(error text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT left(regexp_replace(error, '"[^"]*"|\m[0-9a-f]{8,}(-[0-9a-f]{4,})*\M|[0-9]+([.:][0-9]+)*', '…', 'g'), 200)
$$;

-- Settled tasks. Append-only.
CREATE TABLE task_history (
    id          uuid        NOT NULL,
    kind        text        NOT NULL,
    user_id     bigint      NOT NULL,
    event_ids   bigint[]    NOT NULL,
    outcome     text        NOT NULL CHECK (outcome IN ('completed', 'orphaned', 'cancelled')),
    attempts    int         NOT NULL,
    errors      jsonb       NOT NULL,
    created_at  timestamptz NOT NULL,
    started_at  timestamptz,
    settled_at  timestamptz NOT NULL DEFAULT now(),
    worker      text,
    parent_id   uuid,
    children    uuid[],                               -- of a batch: tasks of the events that failed
    traceparent text,
    request_id  text,
    PRIMARY KEY (id, settled_at)
) PARTITION BY RANGE (settled_at);

-- For counting a user's unprocessed events, which include those of cancelled tasks. It has cancelled tasks only, so that
-- completing a task costs nothing more.
CREATE INDEX task_history_cancelled ON task_history (user_id) WHERE outcome = 'cancelled';

-- For searching by the id of a request or of a trace. Block ranges get a summary (a Bloom filter) once they are full, so
-- completing a task writes nothing to it. It is sized for the 800 tasks of a range of 32 pages.
CREATE INDEX task_history_search ON task_history USING brin (
    request_id text_bloom_ops (n_distinct_per_range = 1000, false_positive_rate = 0.005),
    trace_id(traceparent) text_bloom_ops (n_distinct_per_range = 1000, false_positive_rate = 0.005)
) WITH (pages_per_range = 32, autosummarize = on);

CREATE TABLE task_history_default PARTITION OF task_history DEFAULT;

-- The settled tasks with these ids, of all months. See `events_by_id`.
CREATE FUNCTION settled_tasks_by_id(ids uuid[]) RETURNS SETOF task_history
LANGUAGE plpgsql STABLE STRICT ROWS 1 SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY SELECT * FROM task_history WHERE id = ANY (ids);
END $$;

-- Dead letters, kept until an administrator retries or cancels them. The fencing token is kept too: if it started again
-- from 0, a worker that still runs an old attempt could settle the retried task.
CREATE TABLE dead_tasks (
    id            uuid        PRIMARY KEY,
    kind          text        NOT NULL,
    user_id       bigint      NOT NULL,
    event_ids     bigint[]    NOT NULL,
    created_at    timestamptz NOT NULL,
    attempts      int         NOT NULL,
    max_attempts  int         NOT NULL,
    started_at    timestamptz,
    fencing_token bigint      NOT NULL,
    bytes         bigint      NOT NULL,
    worker        text,
    parent_id     uuid,
    reason        text        NOT NULL,
    errors        jsonb       NOT NULL,
    dead_at       timestamptz NOT NULL DEFAULT now(),
    traceparent   text,
    request_id    text,
    error_group   text        NOT NULL GENERATED ALWAYS AS (coalesce(error_group(errors -> -1 ->> 'error'), '')) STORED
);

-- For listing dead letters, and for grouping them by error without reading the table.
CREATE INDEX dead_tasks_newest ON dead_tasks (dead_at, id) INCLUDE (reason, error_group, user_id);
-- For the dead letters with one error.
CREATE INDEX dead_tasks_error ON dead_tasks (error_group, id);
-- For searching by the id of a request or of a trace.
CREATE INDEX dead_tasks_request ON dead_tasks (request_id);
CREATE INDEX dead_tasks_trace ON dead_tasks (trace_id(traceparent));
CREATE INDEX dead_tasks_user ON dead_tasks (user_id, id);

-- Answers to repeat for a repeated Idempotency-Key, kept for 24 hours.
CREATE TABLE idempotency_keys (
    user_id     bigint      NOT NULL,
    route       text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL, -- SHA-256 of the body and of the `Prefer: handling` that applies
    task_id     uuid        NOT NULL,
    event_ids   bigint[]    NOT NULL,
    replay      jsonb       NOT NULL, -- the rest of the answer; pulse-store does not interpret it
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, route, key)
);

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

SELECT ensure_month_partitions('events', 12);
SELECT ensure_month_partitions('task_history', 12);

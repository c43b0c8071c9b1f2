-- additive: yes
-- The work: what is owed, what was settled, what was given up.

-- Owed work only: its size is the backlog. Claims change no indexed column, so they are HOT updates;
-- the free space of the fill factor keeps them on their page.
CREATE TABLE tasks (
    id           uuid        PRIMARY KEY,
    kind         text        NOT NULL CHECK (kind IN ('process_event', 'process_events_batch')),
    user_id      bigint      NOT NULL,
    event_ids    bigint[]    NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(), -- also the `created_at` of its events: finds their partition
    attempts     int         NOT NULL DEFAULT 0,
    max_attempts int         NOT NULL CHECK (max_attempts >= 1),
    run_at       timestamptz NOT NULL DEFAULT now(),
    enqueued_at  timestamptz DEFAULT now(),          -- NULL: due later, Redis has never heard of this run
    started_at   timestamptz,                        -- of the newest attempt
    lease_no     bigint      NOT NULL DEFAULT 0,     -- the fence: grows with every claim, never falls
    lease_until  timestamptz,
    worker       text,
    errors       jsonb       NOT NULL DEFAULT '[]',  -- one {attempt, at, reason, error} per failed attempt
    traceparent  text,
    request_id   text
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
        autovacuum_vacuum_cost_delay = 0);

CREATE INDEX tasks_run_at ON tasks (run_at);
CREATE INDEX tasks_unqueued ON tasks (run_at) WHERE enqueued_at IS NULL;
CREATE INDEX tasks_user ON tasks (user_id, created_at);

-- Settled work, append-only.
CREATE TABLE task_history (
    id          uuid        NOT NULL,
    kind        text        NOT NULL,
    user_id     bigint      NOT NULL,
    event_ids   bigint[]    NOT NULL,
    outcome     text        NOT NULL CHECK (outcome IN ('processed', 'gone', 'cancelled')),
    attempts    int         NOT NULL,
    errors      jsonb       NOT NULL,
    created_at  timestamptz NOT NULL,
    started_at  timestamptz,
    settled_at  timestamptz NOT NULL DEFAULT now(),
    worker      text,
    traceparent text,
    request_id  text,
    PRIMARY KEY (id, settled_at)
) PARTITION BY RANGE (settled_at);

CREATE TABLE task_history_default PARTITION OF task_history DEFAULT;

-- Work given up: kept until replayed or cancelled, never trimmed. Keeps `lease_no`, because a fence that
-- starts again would let a zombie settle the second life of the task.
CREATE TABLE buried_tasks (
    id           uuid        PRIMARY KEY,
    kind         text        NOT NULL,
    user_id      bigint      NOT NULL,
    event_ids    bigint[]    NOT NULL,
    created_at   timestamptz NOT NULL,
    attempts     int         NOT NULL,
    max_attempts int         NOT NULL,
    started_at   timestamptz,
    lease_no     bigint      NOT NULL,
    worker       text,
    reason       text        NOT NULL,
    errors       jsonb       NOT NULL,
    buried_at    timestamptz NOT NULL DEFAULT now(),
    traceparent  text,
    request_id   text
);

CREATE INDEX buried_tasks_newest ON buried_tasks (buried_at, id);
CREATE INDEX buried_tasks_user ON buried_tasks (user_id);

-- Answers to repeat, for 24 hours.
CREATE TABLE idempotency_keys (
    user_id     bigint      NOT NULL,
    route       text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL, -- SHA-256 of the request body
    task_id     uuid        NOT NULL,
    event_ids   bigint[],
    replay      jsonb       NOT NULL, -- what else the answer said, opaque to the store
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, route, key)
);

CREATE INDEX idempotency_keys_age ON idempotency_keys (created_at);

-- Running totals, one row per writing connection so that no two of them wait for one lock.
CREATE TABLE throughput (
    writer     text        PRIMARY KEY,
    accepted   bigint      NOT NULL DEFAULT 0, -- tasks
    settled    bigint      NOT NULL DEFAULT 0, -- tasks
    busy_ms    bigint      NOT NULL DEFAULT 0, -- time that workers spent on tasks, claim to settle
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 30);

SELECT ensure_month_partitions('events', 12);
SELECT ensure_month_partitions('task_history', 12);

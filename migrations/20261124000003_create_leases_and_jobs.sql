-- additive: yes
-- Leader election of schedulers, their periodic jobs, and the running API processes.

CREATE TABLE leases (
    name       text        PRIMARY KEY,
    holder     text        NOT NULL,
    term       bigint      NOT NULL, -- grows with each change of holder
    expires_at timestamptz NOT NULL
);

-- One row for each job of the scheduler.
CREATE TABLE jobs (
    name             text        PRIMARY KEY,
    last_run_at      timestamptz NOT NULL DEFAULT now(), -- time at which the last run was due
    next_run_at      timestamptz,
    last_duration_ms bigint,                             -- of the last run that ended
    last_outcome     text CHECK (last_outcome IN ('succeeded', 'failed'))
) WITH (fillfactor = 50);

-- The API processes, which share the rates of each user.
CREATE TABLE api_processes (
    name    text        PRIMARY KEY,
    seen_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

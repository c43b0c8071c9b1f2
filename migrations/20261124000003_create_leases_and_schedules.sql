-- additive: yes
-- Leader election of schedulers, and the last run of each job.

CREATE TABLE leases (
    name       text        PRIMARY KEY,
    holder     text        NOT NULL,
    term       bigint      NOT NULL, -- grows with each change of holder
    expires_at timestamptz NOT NULL
);

CREATE TABLE schedules (
    name      text        PRIMARY KEY,
    last_tick timestamptz NOT NULL DEFAULT now()
);

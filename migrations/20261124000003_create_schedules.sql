-- additive: yes
-- Who leads, and when each scheduled job fired last.

CREATE TABLE leases (
    name       text        PRIMARY KEY,
    holder     text        NOT NULL,
    term       bigint      NOT NULL, -- grows with every change of holder
    expires_at timestamptz NOT NULL
);

CREATE TABLE schedules (
    name      text        PRIMARY KEY,
    cron      text        NOT NULL, -- six fields, seconds first, UTC
    last_tick timestamptz NOT NULL DEFAULT now(),
    fired_by  text,
    term      bigint
);

-- additive: yes
-- What the console shows besides tasks and events: throughput, gauges, workers, the pause, and the acts of administrators.

-- A histogram counts durations in 48 buckets. Bucket n > 1 ends at 2^((n - 1) / 2) ms and begins at the end of the one
-- before; the first ends at 1 ms, and the last is open, from 8.4 million ms (2 h 20 min). Without durations it is empty ({}).
CREATE FUNCTION histogram(seconds float8[]) RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    counts bigint[] := array_fill(0::bigint, ARRAY[48]);
    duration float8;
    bucket int;
BEGIN
    IF coalesce(cardinality(seconds), 0) = 0 THEN RETURN '{}'; END IF;
    FOREACH duration IN ARRAY seconds LOOP
        bucket := CASE WHEN duration <= 0.001 THEN 1
                       ELSE least(48, 1 + ceil(2 * ln(duration * 1000) / ln(2) - 1e-9)) END;
        counts[bucket] := counts[bucket] + 1;
    END LOOP;
    RETURN counts;
END $$;

-- The sum of two histograms, of which one may be empty ({}).
CREATE FUNCTION add_histograms(one bigint[], other bigint[]) RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF cardinality(one) = 0 THEN RETURN other; END IF;
    FOR bucket IN 1..cardinality(other) LOOP
        IF other[bucket] <> 0 THEN one[bucket] := one[bucket] + other[bucket]; END IF;
    END LOOP;
    RETURN one;
END $$;

CREATE AGGREGATE sum_histograms(bigint[]) (SFUNC = add_histograms, STYPE = bigint[], INITCOND = '{}');

-- How much was done, and how long it took. The transactions that accept and settle add to the row of their minute
-- ('live'), which each writer has for itself, so that writers never wait for each other. The scheduler folds the rows of
-- past minutes into those of the other periods, whose writer is ''.
--
-- The histograms come last, because PostgreSQL leaves the unchanged end of a row out of the WAL.
CREATE TABLE throughput (
    period           text        NOT NULL CHECK (period IN ('live', 'minute', 'ten_minutes', 'all')),
    event_name       text        NOT NULL DEFAULT '',  -- '': all events; else the figures of one name
    start            timestamptz NOT NULL,             -- of the period; -infinity for 'all'
    writer           text        NOT NULL DEFAULT '',
    accepted         bigint      NOT NULL DEFAULT 0,   -- tasks
    accepted_events  bigint      NOT NULL DEFAULT 0,
    completed        bigint      NOT NULL DEFAULT 0,   -- tasks, also orphaned ones
    completed_events bigint      NOT NULL DEFAULT 0,
    failed           bigint      NOT NULL DEFAULT 0,   -- attempts
    retried          bigint      NOT NULL DEFAULT 0,   -- failed attempts after which the task runs again
    dead             bigint      NOT NULL DEFAULT 0,   -- tasks
    refused          bigint      NOT NULL DEFAULT 0,   -- settlements whose lease was lost
    requeued         bigint      NOT NULL DEFAULT 0,   -- lost tasks
    backlog          bigint      NOT NULL DEFAULT 0,   -- maximum number of unsettled tasks
    attempt_us       bigint      NOT NULL DEFAULT 0,   -- time of attempts, in microseconds; of a running one as it passes
    attempt_times    bigint[]    NOT NULL DEFAULT '{}', -- histogram of the durations of attempts
    completion_times bigint[]    NOT NULL DEFAULT '{}', -- histogram of the times from acceptance to completion
    PRIMARY KEY (period, event_name, start, writer)
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The backlog as the scheduler measured it last: one row.
CREATE TABLE gauges (
    one                boolean     PRIMARY KEY DEFAULT true CHECK (one),
    measured_at        timestamptz NOT NULL,
    pending            bigint      NOT NULL, -- tasks
    running            bigint      NOT NULL,
    retrying           bigint      NOT NULL,
    due                bigint      NOT NULL,
    due_not_enqueued   bigint      NOT NULL,
    delayed            bigint      NOT NULL,
    dead               bigint      NOT NULL,
    oldest_age_seconds float8      NOT NULL, -- of unsettled tasks
    undelivered        bigint,               -- on the streams; NULL: Redis did not answer
    in_flight          bigint,               -- delivered and not acknowledged; NULL: Redis did not answer
    due_from           timestamptz NOT NULL  -- no unsettled task was due before
) WITH (fillfactor = 50);

-- The workers that ran during the last hour.
CREATE TABLE workers (
    name          text        PRIMARY KEY, -- as in tasks.worker
    version       text        NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT now(),
    seen_at       timestamptz NOT NULL DEFAULT now(), -- last heartbeat
    state         text        NOT NULL CHECK (state IN ('running', 'draining', 'stopped')),
    concurrency   int         NOT NULL, -- attempts at a time
    running       int         NOT NULL, -- attempts
    in_flight     int         NOT NULL, -- tasks whose lease it holds
    last_claim_at timestamptz,
    longest_task  uuid,                 -- the task whose lease it has held longest
    longest_since timestamptz           -- since when
) WITH (fillfactor = 50);

-- While there is a row, workers claim no tasks.
CREATE TABLE pause (
    one       boolean     PRIMARY KEY DEFAULT true CHECK (one),
    paused_at timestamptz NOT NULL DEFAULT now(),
    actor     text        NOT NULL,
    reason    text
);

-- The acts of administrators, applied migrations, and changes of the keys of tokens. Append-only: the erasure of a user
-- leaves a row for its beginning and one for its end, with the same `act`, and each other act one row.
CREATE TABLE audit_log (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    act           uuid        NOT NULL,
    at            timestamptz NOT NULL DEFAULT now(),
    actor         text        NOT NULL, -- as the actor says
    database_role text        NOT NULL DEFAULT session_user, -- as PostgreSQL knows it
    via           text        NOT NULL CHECK (via IN ('cli', 'console', 'api', 'process')),
    action        text        NOT NULL,
    target        text        NOT NULL, -- what the action was applied to
    reason        text,
    count         bigint      NOT NULL, -- of tasks, or of deleted rows
    outcome       text                  -- of acts on tasks
                  CHECK (outcome IN ('completed', 'stopped', 'failed', 'interrupted'))
);

CREATE INDEX audit_log_act ON audit_log (act);

-- The keys that API and console processes verify tokens with, so that audit_log has one row for each change.
CREATE TABLE token_keys (
    fingerprint text        PRIMARY KEY,
    name        text        NOT NULL, -- algorithm and `kid`
    seen_at     timestamptz NOT NULL DEFAULT now() -- when a process last had it
);

-- The acts on tasks that run. Each of their transactions adds to their row, and their end moves it to audit_log.
CREATE TABLE running_acts (
    act         uuid        PRIMARY KEY,
    started_at  timestamptz NOT NULL DEFAULT now(),
    seen_at     timestamptz NOT NULL DEFAULT now(), -- last transaction
    actor       text        NOT NULL,
    via         text        NOT NULL CHECK (via IN ('cli', 'console', 'api')),
    action      text        NOT NULL,
    target      text        NOT NULL,
    reason      text,
    matching    bigint,                             -- tasks, at the beginning
    rate        int,                                -- maximum number of tasks per second
    moved       bigint      NOT NULL DEFAULT 0,     -- tasks
    busy        bigint      NOT NULL DEFAULT 0,     -- tasks that another transaction had locked
    is_stopping boolean     NOT NULL DEFAULT false
) WITH (fillfactor = 50);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

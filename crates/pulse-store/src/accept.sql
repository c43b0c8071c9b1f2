-- Accept: inserts events, their tasks, Idempotency-Keys and the running total, for a group of requests.
--
-- Nothing waits for a row that one client has locked: `owners` skips locked users, and their requests are answered alone.
-- The ids are drawn before the rows are inserted, because a key stores them. There is no join, because a dedicated
-- connection allows nested loops only: PostgreSQL looks `IN (…) IS TRUE` up in a hash.
WITH owners AS (
    SELECT id FROM users WHERE id = ANY ($12) AND disabled_at IS NULL FOR KEY SHARE SKIP LOCKED
), posted_events AS MATERIALIZED (
    SELECT nextval('events_id_seq') AS id, posted.*
    FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                $8::text[], $9::text[], $10::timestamptz[]) WITH ORDINALITY
         AS posted (user_id, task_id, event_name, event_type, source, session_id, payload,
                    ip_address, user_agent, event_timestamp, position)
), ids AS MATERIALIZED (
    SELECT array_agg(id ORDER BY position) AS ids FROM posted_events
), new_keys AS (
    INSERT INTO idempotency_keys AS stored (user_id, route, key, fingerprint, task_id, replay, event_ids)
    SELECT user_id, route, key, fingerprint, task_id, replay, (SELECT ids FROM ids)[first_event : last_event]
    FROM unnest($20::bigint[], $21::text[], $22::text[], $23::bytea[], $24::uuid[], $25::jsonb[], $26::int[],
                $27::int[])
         AS posted (user_id, route, key, fingerprint, task_id, replay, first_event, last_event)
    WHERE (user_id IN (SELECT id FROM owners)) IS TRUE
    ON CONFLICT (user_id, route, key) DO UPDATE
    SET fingerprint = excluded.fingerprint, task_id = excluded.task_id, replay = excluded.replay,
        event_ids = excluded.event_ids, created_at = now()
    WHERE stored.created_at < now() - interval '24 hours'
    RETURNING task_id
), accepted AS MATERIALIZED (
    SELECT id, last_event - first_event + 1 AS events
    FROM unnest($11::uuid[], $12::bigint[], $18::bool[], $28::int[], $29::int[])
         AS posted (id, user_id, has_key, first_event, last_event)
    WHERE (user_id IN (SELECT id FROM owners)) IS TRUE
          AND (NOT has_key OR (id IN (SELECT task_id FROM new_keys)) IS TRUE)
), new_events AS (
    INSERT INTO events (id, user_id, task_id, event_name, event_type, source, session_id, payload,
                        ip_address, user_agent, event_timestamp, created_at)
    SELECT id, user_id, task_id, event_name, event_type, source, session_id, payload::jsonb,
           ip_address, user_agent, coalesce(event_timestamp, now()), now()
    FROM posted_events WHERE (task_id IN (SELECT id FROM accepted)) IS TRUE
), new_tasks AS (
    INSERT INTO tasks (id, user_id, kind, max_attempts, traceparent, request_id, bytes, event_ids)
    SELECT id, user_id, kind, max_attempts, traceparent, request_id, bytes,
           (SELECT ids FROM ids)[first_event : last_event]
    FROM unnest($11::uuid[], $12::bigint[], $13::text[], $14::int[], $15::text[], $16::text[], $17::bigint[],
                $28::int[], $29::int[])
         AS posted (id, user_id, kind, max_attempts, traceparent, request_id, bytes, first_event, last_event)
    WHERE (id IN (SELECT id FROM accepted)) IS TRUE
), counted AS (
    INSERT INTO throughput (period, start, writer, accepted, accepted_events)
    SELECT 'live', date_trunc('minute', now()), $19, count(*), coalesce(sum(events), 0) FROM accepted
    ON CONFLICT (period, event_name, start, writer) DO UPDATE
    SET accepted = throughput.accepted + excluded.accepted,
        accepted_events = throughput.accepted_events + excluded.accepted_events
)
SELECT ids AS "ids!", ARRAY(SELECT id FROM accepted) AS "accepted!" FROM ids

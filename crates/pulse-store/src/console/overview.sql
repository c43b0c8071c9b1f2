-- Throughput of the last whole minute and the present one, the totals, and the workers.
WITH recent AS (
    SELECT * FROM throughput
    WHERE period IN ('live', 'minute') AND event_name = '' AND start >= date_trunc('minute', now()) - interval '1 minute'
), totals AS (
    SELECT coalesce(sum(accepted_events), 0)::bigint AS accepted, coalesce(sum(completed_events), 0)::bigint AS completed
    FROM throughput WHERE period IN ('live', 'all') AND event_name = ''
), alive AS (
    SELECT * FROM workers WHERE seen_at > now() - interval '25 s' AND state <> 'stopped'
)
SELECT now() AS "now!",
       (60 + extract(epoch FROM now() - date_trunc('minute', now())))::float8 AS "seconds!",
       coalesce(sum(accepted), 0)::bigint AS "accepted!", coalesce(sum(accepted_events), 0)::bigint AS "accepted_events!",
       coalesce(sum(completed), 0)::bigint AS "completed!",
       coalesce(sum(completed_events), 0)::bigint AS "completed_events!", coalesce(sum(failed), 0)::bigint AS "failed!",
       coalesce(sum(retried), 0)::bigint AS "retried!", coalesce(sum(dead), 0)::bigint AS "dead!",
       sum_histograms(attempt_times) AS "attempt_times!", sum_histograms(completion_times) AS "completion_times!",
       (SELECT accepted FROM totals) AS "accepted_total!", (SELECT completed FROM totals) AS "completed_total!",
       (SELECT count(*) FROM alive) AS "workers!",
       (SELECT count(*) FROM alive WHERE state = 'draining') AS "draining!",
       (SELECT coalesce(sum(in_flight), 0) FROM alive) AS "in_flight!",
       (SELECT coalesce(sum(concurrency), 0) FROM alive) AS "slots!"
FROM recent

-- The figures of the last $3 steps of $2 seconds, from the rows of period $1 and those that are not folded yet.
WITH steps AS (
    SELECT date_bin(make_interval(secs => $2), now(), 'epoch') - make_interval(secs => $2 * ($3 - 1 - step)) AS start
    FROM generate_series(0, $3::int - 1) AS step
), figures AS (
    SELECT date_bin(make_interval(secs => $2), start, 'epoch') AS start, sum(accepted) AS accepted,
           sum(accepted_events) AS accepted_events, sum(completed) AS completed, sum(completed_events) AS completed_events,
           sum(failed) AS failed, sum(retried) AS retried, sum(dead) AS dead, sum(refused) AS refused,
           sum(requeued) AS requeued, max(backlog) AS backlog, sum_histograms(attempt_times) AS attempt_times,
           sum_histograms(completion_times) AS completion_times
    FROM throughput
    WHERE period IN ($1, 'live') AND event_name = '' AND start >= (SELECT min(start) FROM steps)
    GROUP BY 1
)
SELECT steps.start AS "start!", least($2, extract(epoch FROM now() - steps.start))::float8 AS "seconds!",
       coalesce(accepted, 0)::bigint AS "accepted!", coalesce(accepted_events, 0)::bigint AS "accepted_events!",
       coalesce(completed, 0)::bigint AS "completed!", coalesce(completed_events, 0)::bigint AS "completed_events!",
       coalesce(failed, 0)::bigint AS "failed!", coalesce(retried, 0)::bigint AS "retried!",
       coalesce(dead, 0)::bigint AS "dead!", coalesce(refused, 0)::bigint AS "refused!",
       coalesce(requeued, 0)::bigint AS "requeued!", coalesce(backlog, 0) AS "backlog!",
       coalesce(attempt_times, '{}') AS "attempt_times!", coalesce(completion_times, '{}') AS "completion_times!"
FROM steps LEFT JOIN figures ON figures.start = steps.start
ORDER BY steps.start

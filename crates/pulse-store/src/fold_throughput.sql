-- Folds the rows of writers: the figures of a minute go to the minute, to its ten minutes, and to the totals; those of one
-- event name only to the ten minutes.
WITH folded AS (
    DELETE FROM throughput WHERE period = 'live' AND start < date_trunc('minute', now()) - interval '1 minute' RETURNING *
)
INSERT INTO throughput (period, event_name, start, accepted, accepted_events, completed, completed_events, failed, retried,
                        dead, refused, requeued, backlog, attempt_us, attempt_times, completion_times)
SELECT target.period, event_name, target.start, sum(accepted), sum(accepted_events), sum(completed),
       sum(completed_events), sum(failed), sum(retried), sum(dead), sum(refused), sum(requeued), max(backlog),
       sum(attempt_us), sum_histograms(attempt_times), sum_histograms(completion_times)
FROM folded
CROSS JOIN LATERAL (
    VALUES ('minute', folded.start), ('ten_minutes', date_bin('10 minutes', folded.start, 'epoch')),
           ('all', '-infinity'::timestamptz)
) AS target (period, start)
WHERE event_name = '' OR target.period = 'ten_minutes'
GROUP BY target.period, event_name, target.start
ON CONFLICT (period, event_name, start, writer) DO UPDATE
SET accepted = throughput.accepted + excluded.accepted,
    accepted_events = throughput.accepted_events + excluded.accepted_events,
    completed = throughput.completed + excluded.completed,
    completed_events = throughput.completed_events + excluded.completed_events,
    failed = throughput.failed + excluded.failed, retried = throughput.retried + excluded.retried,
    dead = throughput.dead + excluded.dead, refused = throughput.refused + excluded.refused,
    requeued = throughput.requeued + excluded.requeued, backlog = greatest(throughput.backlog, excluded.backlog),
    attempt_us = throughput.attempt_us + excluded.attempt_us,
    attempt_times = add_histograms(throughput.attempt_times, excluded.attempt_times),
    completion_times = add_histograms(throughput.completion_times, excluded.completion_times)

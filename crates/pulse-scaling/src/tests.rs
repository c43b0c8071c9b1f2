//! Decisions for given samples, rules and pods.

use crate::fixture::*;
use crate::*;

use ScalingReason::{AgeTarget, BacklogTarget, DrainTimeTarget, Fixed, Idle, Unknown, Wake};

/// What happens to an object or its operator.
type Event<'a> = &'a dyn Fn(&mut Harness);

fn decide(harness: &mut Harness, queue: Queue) -> (u32, ScalingReason, Option<Limit>) {
    outcome(&harness.observe(queue.sample(harness.seconds)))
}

#[test]
fn backlog_target_sets_the_number_before_an_attempt_is_known() {
    for (current, waiting, expected) in [
        (1, 100, (1, BacklogTarget, None)),
        (1, 101, (1, BacklogTarget, Some(Limit::Tolerance))),
        (1, 150, (2, BacklogTarget, None)),
        (5, 0, (1, BacklogTarget, None)),
        (10, 1100, (10, BacklogTarget, Some(Limit::Tolerance))),
        (10, 1101, (12, BacklogTarget, None)),
        (10, 99_999, (20, BacklogTarget, Some(Limit::TooManyReplicas))),
    ] {
        let mut harness = Harness::with(current).unlimited();
        assert_eq!(decide(&mut harness, Queue::of(waiting)), expected, "{current} workers, {waiting} waiting");
    }
}

#[test]
fn drain_time_target_adds_what_waits_to_what_arrives() {
    // 16 slots; the horizon is 60 s without 13 s until a new worker takes part.
    for (attempt, arrivals, waiting, in_flight, expected) in [
        (1.0, 100.0, 0, 100, 7),     // 100 slots of 15.2
        (1.0, 100.0, 1500, 100, 7),  // they may wait for 15 s
        (1.0, 100.0, 8550, 100, 16), // 7050 s of work in 47 s: 150 more slots
        (1.0, 0.0, 4700, 0, 7),      // a burst counts once: 100 slots
        (300.0, 0.0, 0, 160, 9),     // no work comes, and 47/300 of the slots are free by then
        (300.0, 0.5, 0, 160, 10),    // 0.84 of 160 slots, and 47/300 of the 150 slots that arrivals take in the end
        (300.0, 0.5, 47, 160, 13),   // each that waits too long needs a slot
    ] {
        let mut harness = Harness::with(4).knowing(attempt, arrivals).unlimited();
        let queue = Queue { waiting, in_flight, ..Queue::default() };
        let expected = (expected, DrainTimeTarget, None);
        assert_eq!(decide(&mut harness, queue), expected, "{attempt} s, {arrivals}/s, {waiting} waiting");
    }
}

#[test]
fn part_of_a_worker_adds_one_only_when_it_is_large_or_a_task_is_old() {
    // 1.2 workers
    let queue = |oldest_age| Queue { waiting: 10, oldest_age, ..Queue::default() };
    for (age, expected) in [(0, 1), (29, 1), (30, 2)] {
        let mut harness = Harness::with(1).knowing(1.0, 18.4).unlimited();
        assert_eq!(decide(&mut harness, queue(age)).0, expected, "{age} s");
    }
}

#[test]
fn decision_says_what_it_is_made_from() {
    let mut harness = Harness::with(4).knowing(2.0, 40.0);
    harness.policy.target.max_age_seconds = Some(100);
    let decision = harness.observe(Queue { waiting: 950, in_flight: 64, ..Queue::default() }.sample(harness.seconds));
    assert_eq!(
        decision.message,
        "950 tasks wait, target is to start them within 60 s: 64 in flight, 40.0 arrivals/s, 2.0 s per attempt: \
         6 workers"
    );
    let Inputs { waiting, in_flight, attempt_seconds, .. } = decision.inputs;
    assert_eq!((waiting, in_flight, attempt_seconds), (Some(950), Some(64), Some(2.0)));
    let decision = Harness::with(4).observe(failed_sample(100_000));
    assert_eq!(decision.message, "backlog is unknown, incomplete samples in a row: 1: 4 workers");
}

#[test]
fn age_target_drains_in_the_time_that_is_left() {
    for (age, expected) in
        [(20, (6, DrainTimeTarget)), (60, (12, AgeTarget)), (80, (19, AgeTarget)), (300, (19, AgeTarget))]
    {
        let mut harness = Harness::with(4).knowing(1.0, 20.0).unlimited();
        harness.policy.target.max_age_seconds = Some(100);
        let (replicas, reason, _) = decide(&mut harness, Queue { oldest_age: age, ..Queue::of(4000) });
        assert_eq!((replicas, reason), expected, "{age} s");
    }
}

#[test]
fn age_target_of_a_single_stuck_task_does_not_add_workers() {
    let mut harness = Harness::with(3).knowing(1.0, 40.0).unlimited();
    harness.policy.target.max_age_seconds = Some(100);
    assert_eq!(decide(&mut harness, Queue { oldest_age: 5000, in_flight: 40, ..Queue::of(1) }).0, 3);
}

#[test]
fn scale_down_waits_for_the_window_and_halves_each_minute() {
    let mut harness = Harness::with(16);
    harness.steps(3, Queue::of(1600));
    let start = harness.seconds;
    let mut changes = vec![];
    for _ in 0..60 {
        let before = harness.workers.replicas;
        let decision = harness.step(Queue::default().sample(harness.seconds));
        if decision.replicas != before {
            changes.push((harness.seconds - POLL - start, decision.replicas));
        }
    }
    assert_eq!(changes, [(110, 8), (170, 4), (230, 2), (290, 1), (300, 0)]);
}

#[test]
fn scale_up_policy_adds_the_larger_of_percent_and_workers_per_period() {
    let mut harness = Harness::with(1);
    harness.policy.behavior.scale_up.percent = 100;
    harness.policy.behavior.scale_up.workers = 4;
    let counts: Vec<u32> = (0..6).map(|_| harness.step(Queue::of(9999).sample(harness.seconds)).replicas).collect();
    assert_eq!(counts, [5, 5, 10, 10, 20, 20], "4 more or twice as many in 15 s, polled every 10 s");
}

#[test]
fn scaling_from_zero_starts_the_recommended_number_at_once() {
    let mut harness = Harness::with(0);
    assert_eq!(decide(&mut harness, Queue::of(1850)), (19, Wake, None));
    assert_eq!(decide(&mut Harness::with(0), Queue::of(1)), (1, Wake, None), "no tolerance from zero");
    assert_eq!(decide(&mut Harness::with(0), Queue::default()), (0, Idle, None));
    assert_eq!(decide(&mut Harness::with(0).knowing(4.7, 0.0), Queue::of(1600)), (11, Wake, None));
}

#[test]
fn last_worker_is_removed_after_the_idle_time_that_any_activity_restarts() {
    let idle = Queue { accepted: 7, attempts: 7, ..Queue::default() };
    for (what, queue) in [
        ("a task waits", Queue { waiting: 1, ..idle }),
        ("a task is in flight", Queue { in_flight: 1, ..idle }),
        ("a task was accepted", Queue { accepted: 8, ..idle }),
        ("an attempt ended", Queue { attempts: 8, ..idle }),
        ("an attempt ran", Queue { attempt_ms: 8, ..idle }),
        ("a retry falls due in 30 s", Queue { next_due: Some(30), ..idle }),
    ] {
        let mut harness = Harness::with(1);
        harness.steps(30, idle);
        assert_eq!(harness.steps(1, queue).replicas, 1, "{what}");
        let after = Queue { waiting: 0, in_flight: 0, next_due: None, ..queue };
        assert_eq!(harness.steps(30, after).replicas, 1, "{what}, 300 s ago");
        assert_eq!(outcome(&harness.steps(1, after)), (0, Idle, None), "{what}, 310 s ago");
    }
}

#[test]
fn last_worker_stays_during_a_rollout_or_migration_and_with_a_minimum() {
    for (rolling_out, migrating, min) in [(true, false, 0), (false, true, 0), (false, false, 1)] {
        let mut harness = Harness::with(1);
        (harness.workers.rolling_out, harness.workers.migrating, harness.policy.min) = (rolling_out, migrating, min);
        assert_eq!(harness.steps(60, Queue::default()).replicas, 1);
    }
}

#[test]
fn retry_wakes_a_worker_before_it_is_due_without_a_new_sample() {
    let mut harness = Harness::with(0);
    harness.policy.poll = jiff::SignedDuration::from_secs(3600);
    let due = harness.seconds + 600;
    let decision = harness.step(Queue { next_due: Some(600), ..Queue::default() }.sample(harness.seconds));
    assert_eq!((outcome(&decision), decision.next_wake), ((0, Idle, None), Some(at(due - 30))));
    for (seconds, expected) in [(due - 31, (0, Idle, None)), (due - 30, (1, Wake, None))] {
        harness.seconds = seconds;
        assert_eq!(outcome(&harness.decide()), expected);
    }
}

#[test]
fn unknown_backlog_keeps_the_number_or_raises_it_to_the_fallback() {
    for (current, fallback, expected) in [(0, None, 1), (7, None, 7), (0, Some(4), 4), (3, Some(4), 4), (7, Some(4), 7)]
    {
        let mut harness = Harness::with(current);
        harness.policy.fallback = fallback;
        harness.steps(1, Queue::default());
        let counts: Vec<u32> = (0..100).map(|_| harness.step(failed_sample(harness.seconds)).replicas).collect();
        assert_eq!((counts[1], counts[2], counts[99]), (current, expected, expected), "{current}, {fallback:?}");
    }
}

#[test]
fn backlog_is_unknown_without_any_sample_for_three_polls() {
    let mut harness = Harness::with(0);
    harness.step(Queue::default().sample(harness.seconds));
    harness.seconds += 20;
    assert_eq!(outcome(&harness.decide()), (0, Idle, None));
    harness.seconds += 1;
    assert_eq!(outcome(&harness.decide()), (1, Unknown, None));
}

#[test]
fn depth_without_gauges_keeps_the_rule_and_never_scales_down() {
    // 3000 tasks of 0.32 s in 47 s: 20 slots, not 30 workers as by the backlog target.
    let mut harness = Harness::with(5).knowing(0.32, 50.0);
    harness.policy.max = 100;
    for _ in 0..100 {
        let decision = harness.step(Queue::of(3000).sample_without_gauges(harness.seconds));
        assert_eq!(decision.replicas, 5, "{}", decision.message);
    }
    let decision = harness.step(Queue::of(30_000).sample_without_gauges(harness.seconds));
    assert_eq!((decision.replicas, decision.reason), (14, DrainTimeTarget), "{}", decision.message);
}

#[test]
fn gauges_that_stop_changing_are_unknown_at_any_clock_skew() {
    for skew_ms in [-3_600_000, 0, 3_600_000] {
        let mut harness = Harness::with(5);
        let sample = |seconds: i64, gauges_seconds: i64| {
            let mut sample = Queue::default().sample(seconds);
            if let Some(gauges) = &mut sample.gauges {
                gauges.at_ms += (gauges_seconds - seconds) * 1000 + skew_ms;
            }
            sample
        };
        for _ in 0..3 {
            harness.step(sample(harness.seconds, harness.seconds));
        }
        assert_eq!(harness.memory.missed_samples(), 0, "skew {skew_ms} ms");
        let stopped = harness.seconds - POLL;
        for _ in 0..100 {
            assert_eq!(harness.step(sample(harness.seconds, stopped)).replicas, 5, "skew {skew_ms} ms");
        }
        assert!(harness.memory.missed_samples() >= 98);
    }
}

#[test]
fn restart_outage_reset_and_clock_delay_scaling_down_by_a_whole_window() {
    let restart = |harness: &mut Harness| harness.restart();
    let outage = |harness: &mut Harness| {
        (0..3).for_each(|_| {
            harness.step(failed_sample(harness.seconds));
        })
    };
    let reset = |harness: &mut Harness| {
        harness.steps(1, Queue { accepted: 1, ..Queue::of(800) });
    };
    let clock = |harness: &mut Harness| harness.seconds -= 3600;
    let events: [(&str, Event<'_>); 4] =
        [("restart", &restart), ("outage", &outage), ("reset", &reset), ("clock", &clock)];
    for (what, event) in events {
        let mut harness = Harness::with(8);
        harness.steps(20, Queue { accepted: 900, ..Queue::of(800) });
        event(&mut harness);
        let since = harness.seconds;
        while harness.seconds < since + 110 {
            assert_eq!(harness.steps(1, Queue { accepted: 1, ..Queue::default() }).replicas, 8, "{what}");
        }
        harness.steps(3, Queue { accepted: 1, ..Queue::default() });
        assert_eq!(harness.workers.replicas, 4, "{what}");
    }
}

#[test]
fn restart_keeps_what_was_learned() {
    let mut harness = Harness::with(4).knowing(30.0, 1.5);
    harness.restart();
    let decision = harness.observe(Queue { in_flight: 45, ..Queue::default() }.sample(harness.seconds));
    assert_eq!((decision.replicas, decision.reason), (4, DrainTimeTarget));
    let Learned { attempt_seconds, arrivals_per_second, start_seconds, .. } = harness.memory.learned();
    assert_eq!((attempt_seconds, arrivals_per_second, start_seconds), (Some(30.0), Some(1.5), Some(3.0)));
}

#[test]
fn memory_is_restored_without_invalid_figures() {
    for attempt in [None, Some(-1.0), Some(f64::NAN), Some(f64::INFINITY)] {
        let learned = Learned { attempt_seconds: attempt, arrivals_per_second: Some(2.5), ..Learned::default() };
        let Learned { attempt_seconds, arrivals_per_second, .. } = Memory::restored(learned).learned();
        assert_eq!((attempt_seconds, arrivals_per_second), (None, Some(2.5)), "{attempt:?}");
    }
}

#[test]
fn pause_blocks_the_directions_that_it_names() {
    for (paused, up, down) in
        [(Pause::None, 9, 1), (Pause::All, 5, 5), (Pause::ScaleUp, 5, 1), (Pause::ScaleDown, 9, 5)]
    {
        let mut harness = Harness::with(5).unlimited();
        harness.policy.paused = paused;
        assert_eq!(decide(&mut harness, Queue::of(900)).0, up, "{paused:?}");
        harness.seconds += POLL;
        assert_eq!(decide(&mut harness, Queue::default()).0, down, "{paused:?}");
    }
}

#[test]
fn rollout_allows_scaling_up_but_not_down() {
    let mut harness = Harness::with(5).unlimited();
    harness.workers.rolling_out = true;
    assert_eq!(decide(&mut harness, Queue::of(100)), (5, BacklogTarget, Some(Limit::RolloutInProgress)));
    harness.seconds += POLL;
    assert_eq!(decide(&mut harness, Queue::of(900)), (9, BacklogTarget, None));
}

#[test]
fn lower_maximum_applies_at_once_even_during_a_rollout() {
    let mut harness = Harness::with(15);
    harness.policy.max = 4;
    harness.workers.rolling_out = true;
    assert_eq!(decide(&mut harness, Queue::of(1500)), (4, BacklogTarget, Some(Limit::TooManyReplicas)));
    harness.policy.paused = Pause::All;
    assert_eq!(decide(&mut harness, Queue::of(1500)), (15, BacklogTarget, Some(Limit::Paused)));
}

#[test]
fn scale_up_stops_when_half_of_the_pods_fail_to_start() {
    let not_ready = Some(Limit::WorkersNotReady);
    let since = |seconds| WorkerPod::NotReady { since: at(seconds) };
    for (what, ready, other, expected) in [
        ("one of two is crash looping", 1, WorkerPod::CrashLooping, (2, BacklogTarget, not_ready)),
        ("one of ten is crash looping", 9, WorkerPod::CrashLooping, (20, BacklogTarget, Some(Limit::TooManyReplicas))),
        ("one of two starts for 119 s", 1, since(99_881), (11, BacklogTarget, Some(Limit::ScaleUpLimit))),
        ("one of two starts for 120 s", 1, since(99_880), (2, BacklogTarget, not_ready)),
    ] {
        let mut harness = Harness::with(ready);
        harness.workers.replicas += 1;
        harness.workers.pods.push(other);
        let (replicas, reason, limit) = decide(&mut harness, Queue::of(9999));
        let limit = if replicas == 20 { Some(Limit::TooManyReplicas) } else { limit };
        assert_eq!((replicas, reason, limit), expected, "{what}");
    }
}

#[test]
fn schedule_sets_a_minimum_at_its_time() {
    let mut harness = Harness::with(1).unlimited();
    harness.policy.schedules = vec![
        Schedule::new("0 8 * * *", "0 18 * * *", "Etc/UTC", 7).expect("valid"),
        Schedule::new("0 9 * * *", "0 10 * * *", "Etc/UTC", 90).expect("valid"),
    ];
    // The tests start at 08:00:00 on 2027-01-15.
    for (hour, replicas) in [(-1, 1), (0, 7), (1, 20), (2, 7), (9, 7), (10, 1)] {
        harness.seconds = 20 * 86_400 + hour * 3600;
        assert_eq!(decide(&mut harness, Queue::of(50)).0, replicas, "{hour} h after 8:00");
    }
    assert_eq!(harness.decide().next_wake, Some(at(20 * 86_400 + 24 * 3600)));
}

#[test]
fn fixed_number_is_limited_by_the_connection_budget_alone() {
    for (fixed, limit, expected) in [
        (3, None, (3, Fixed, None)),
        (30, None, (30, Fixed, None)),
        (9, Some(3), (3, Fixed, Some(Limit::DatabaseConnectionBudget))),
        (0, Some(3), (0, Fixed, None)),
    ] {
        let mut harness = Harness::with(1);
        (harness.policy.fixed, harness.policy.connection_limit) = (Some(fixed), limit);
        assert_eq!(decide(&mut harness, Queue::of(9999)), expected);
    }
    let mut harness = Harness::with(2).unlimited();
    harness.policy.connection_limit = Some(6);
    assert_eq!(decide(&mut harness, Queue::of(9999)), (6, BacklogTarget, Some(Limit::DatabaseConnectionBudget)));
}

#[test]
fn both_streams_count() {
    let stream =
        |undelivered, in_flight, age| Depth { undelivered, in_flight, oldest_undelivered_ms: age, redis_now_ms: 5 };
    let both = stream(900, 16, Some(3000)) + stream(1000, 4, None) + stream(0, 0, Some(9000));
    assert_eq!(both, stream(1900, 20, Some(9000)));
}

#[test]
fn due_tasks_that_are_not_enqueued_wait_and_have_an_age() {
    let mut harness = Harness::with(4).unlimited();
    let mut sample = Queue::of(200).sample(harness.seconds);
    if let Some(gauges) = &mut sample.gauges {
        (gauges.due_not_enqueued, gauges.oldest_due_ms, gauges.unsettled) = (700, 12_000, 900);
    }
    let decision = harness.observe(sample);
    assert_eq!((decision.replicas, decision.inputs.oldest_age_seconds), (9, Some(12)));
}

#[test]
fn short_tasks_that_claims_limit_get_the_workers_that_they_need() {
    // 1000 tasks of 1 ms arrive per second, and a worker claims and settles 400 per second.
    let mut harness = Harness::with(1);
    let (mut accepted, mut attempts, mut longest) = (0, 0, 0);
    for second in 0..1800 {
        if second % POLL == 0 {
            let waiting: i64 = accepted - attempts;
            longest = longest.max(if second > 120 { waiting } else { 0 });
            let queue = Queue { accepted, attempts, attempt_ms: attempts, ..Queue::of(waiting.cast_unsigned()) };
            harness.step(queue.sample(harness.seconds));
        }
        accepted += 1000;
        attempts = accepted.min(attempts + 400 * i64::from(harness.workers.replicas));
    }
    assert!((3..=4).contains(&harness.workers.replicas), "{} workers", harness.workers.replicas);
    assert!(longest < 60_000, "{longest} tasks wait, which is more than the drain time");
}

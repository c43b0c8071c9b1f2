//! Decisions for given samples, rules and pods.

use super::fixture::*;
use super::*;
use crate::crd::{AutoscalingPause, PulseIngestSpec, ScalingRules};
use jiff::SignedDuration;

use ScalingReason::{AgeTarget, BacklogTarget, DrainTimeTarget, Fixed, Idle, Unknown, Wake};

fn decide(harness: &mut Harness, queue: Queue) -> (u32, ScalingReason, Option<Limit>) {
    outcome(&harness.observe(queue.sample(harness.seconds)))
}

/// Disables stabilization and scaling policies, so that only the recommendation and the bounds count.
fn disable_behavior(harness: &mut Harness) {
    let rules = ScalingRules { stabilization_window_seconds: 0, percent: 1000, workers: 1000, period_seconds: 1 };
    harness.policy.behavior.scale_up = rules.clone();
    harness.policy.behavior.scale_down = rules;
}

#[test]
fn backlog_target_sets_the_number_of_workers() {
    for (current, backlog, expected) in [
        (1, 100, (1, BacklogTarget, None)),
        (1, 101, (1, BacklogTarget, Some(Limit::Tolerance))),
        (1, 150, (2, BacklogTarget, None)),
        (5, 0, (1, BacklogTarget, None)),
        (5, 250, (3, BacklogTarget, None)),
        (10, 900, (10, BacklogTarget, Some(Limit::Tolerance))),
        (10, 1100, (10, BacklogTarget, Some(Limit::Tolerance))),
        (10, 1101, (12, BacklogTarget, None)),
        (10, 899, (9, BacklogTarget, None)),
        (10, 99_999, (20, BacklogTarget, Some(Limit::TooManyReplicas))),
    ] {
        let mut harness = Harness::with(current);
        disable_behavior(&mut harness);
        assert_eq!(decide(&mut harness, Queue::of(backlog)), expected, "{current} workers, backlog {backlog}");
    }
}

#[test]
fn min_replicas_is_the_lower_bound_and_named_as_limit() {
    let mut harness = Harness::with(3);
    disable_behavior(&mut harness);
    harness.policy.min = 2;
    assert_eq!(decide(&mut harness, Queue::default()), (2, BacklogTarget, Some(Limit::TooFewReplicas)));
}

#[test]
fn lower_max_replicas_applies_at_once_even_during_a_rollout() {
    let mut harness = Harness::with(15);
    harness.policy.max = 4;
    harness.workers.rolling_out = true;
    assert_eq!(decide(&mut harness, Queue::of(1500)), (4, BacklogTarget, Some(Limit::TooManyReplicas)));
    harness.policy.paused = AutoscalingPause::All;
    assert_eq!(decide(&mut harness, Queue::of(1500)), (15, BacklogTarget, Some(Limit::Paused)));
}

#[test]
fn scale_up_policy_adds_the_larger_of_percent_and_workers_per_period() {
    let mut harness = Harness::with(1);
    let counts: Vec<u32> = (0..6).map(|_| harness.step(Queue::of(9999).sample(harness.seconds)).replicas).collect();
    assert_eq!(counts, [5, 5, 10, 10, 20, 20], "4 more or twice as many in 15 s, polled every 10 s");
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
fn short_lull_does_not_scale_down() {
    let mut harness = Harness::with(10);
    harness.steps(2, Queue::of(1000));
    for _ in 0..50 {
        harness.steps(10, Queue::default());
        let decision = harness.steps(1, Queue::of(1000));
        assert_eq!(decision.replicas, 10);
    }
}

#[test]
fn scale_up_window_delays_scaling_up() {
    let mut harness = Harness::with(2);
    harness.policy.behavior.scale_up.stabilization_window_seconds = 30;
    harness.steps(3, Queue::of(200));
    let counts: Vec<u32> = (0..4).map(|_| harness.step(Queue::of(500).sample(harness.seconds)).replicas).collect();
    assert_eq!(counts, [2, 2, 5, 5]);
}

#[test]
fn scaling_from_zero_starts_the_recommended_number_at_once() {
    let mut harness = Harness::with(0);
    assert_eq!(decide(&mut harness, Queue::of(1850)), (19, Wake, None));
    assert_eq!(decide(&mut Harness::with(0), Queue::of(1)), (1, Wake, None), "no tolerance from zero");
    assert_eq!(decide(&mut Harness::with(0), Queue::default()), (0, Idle, None));
}

#[test]
fn last_worker_is_removed_after_the_idle_time() {
    let mut harness = Harness::with(1);
    let idle = Queue::default();
    assert_eq!(outcome(&harness.steps(30, idle)), (1, BacklogTarget, None), "290 s");
    assert_eq!(outcome(&harness.steps(1, idle)), (0, Idle, None), "300 s");
}

#[test]
fn idle_time_restarts_with_any_activity() {
    let idle = Queue { accepted: 7, settled: 7, ..Queue::default() };
    for (what, queue) in [
        ("a task waits", Queue { length: 1, ..idle }),
        ("a task is in flight", Queue { length: 1, in_flight: 1, ..idle }),
        ("a task was accepted and settled", Queue { accepted: 8, ..idle }),
        ("a task was settled", Queue { settled: 8, ..idle }),
        ("a retry falls due in 30 s", Queue { next_due: Some(30), ..idle }),
    ] {
        let mut harness = Harness::with(1);
        harness.steps(30, idle);
        assert_eq!(harness.steps(1, queue).replicas, 1, "{what}");
        let after = Queue { length: 0, in_flight: 0, next_due: None, ..queue };
        assert_eq!(harness.steps(30, after).replicas, 1, "{what}, 300 s ago");
        assert_eq!(harness.steps(1, after).replicas, 0, "{what}, 310 s ago");
    }
}

#[test]
fn last_worker_stays_while_it_runs_a_task_that_redis_lost() {
    let mut harness = Harness::with(1);
    for _ in 0..60 {
        let mut sample = Queue::default().sample(harness.seconds);
        if let Some(gauges) = &mut sample.gauges {
            gauges.unsettled = 1;
        }
        assert_eq!(harness.step(sample).replicas, 1);
    }
}

#[test]
fn last_worker_stays_during_a_rollout_or_migration() {
    for (rolling_out, migrating) in [(true, false), (false, true)] {
        let mut harness = Harness::with(1);
        harness.workers.rolling_out = rolling_out;
        harness.workers.migrating = migrating;
        assert_eq!(harness.steps(60, Queue::default()).replicas, 1);
        harness.workers.rolling_out = false;
        harness.workers.migrating = false;
        assert_eq!(harness.steps(1, Queue::default()).replicas, 0);
    }
}

#[test]
fn new_object_counts_as_active_from_its_creation() {
    let mut harness = Harness::just_started(1);
    assert_eq!(harness.policy.initial_replicas(), 1);
    assert_eq!(harness.steps(30, Queue::default()).replicas, 1);
    assert_eq!(harness.steps(1, Queue::default()).replicas, 0);
}

#[test]
fn scaling_to_zero_requires_min_replicas_zero() {
    let mut harness = Harness::with(1);
    harness.policy.min = 1;
    assert_eq!(harness.steps(500, Queue::default()).replicas, 1);
}

#[test]
fn arrivals_wake_a_worker_even_if_the_queue_is_empty_at_the_poll() {
    let mut harness = Harness::with(0);
    harness.steps(1, Queue { accepted: 5, settled: 5, ..Queue::default() });
    assert_eq!(decide(&mut harness, Queue { accepted: 6, settled: 5, ..Queue::default() }), (1, Wake, None));
}

#[test]
fn retry_wakes_a_worker_before_it_is_due_without_a_new_sample() {
    let mut harness = Harness::with(0);
    harness.policy.poll = SignedDuration::from_secs(3600);
    let due = harness.seconds + 600;
    let decision = harness.step(Queue { next_due: Some(600), ..Queue::default() }.sample(harness.seconds));
    assert_eq!(outcome(&decision), (0, Idle, None));
    assert_eq!(decision.next_wake, Some(at(due - 30)));
    harness.seconds = due - 31;
    assert_eq!(outcome(&harness.decide()), (0, Idle, None));
    harness.seconds = due - 30;
    assert_eq!(outcome(&harness.decide()), (1, Wake, None));
}

#[test]
fn backlog_is_unknown_after_three_missed_samples() {
    let mut harness = Harness::with(1);
    harness.policy.behavior.scale_up.workers = 1;
    harness.policy.behavior.scale_up.period_seconds = 10;
    harness.steps(1, Queue::of(1000));
    assert_eq!(outcome(&harness.step(failed_sample(harness.seconds))), (4, BacklogTarget, Some(Limit::ScaleUpLimit)));
    assert_eq!(outcome(&harness.step(failed_sample(harness.seconds))), (8, BacklogTarget, Some(Limit::ScaleUpLimit)));
    assert_eq!(outcome(&harness.step(failed_sample(harness.seconds))), (8, Unknown, None));
}

#[test]
fn unknown_backlog_wakes_one_worker_from_zero_and_keeps_any_other_number() {
    for (current, expected) in [(0, 1), (1, 1), (7, 7)] {
        let mut harness = Harness::with(current);
        harness.steps(1, Queue::default());
        let counts: Vec<u32> = (0..100).map(|_| harness.step(failed_sample(harness.seconds)).replicas).collect();
        assert_eq!((counts[1], counts[2], counts[99]), (current, expected, expected));
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
fn depth_without_gauges_scales_up_but_never_down() {
    let mut harness = Harness::with(5);
    harness.steps(1, Queue::of(500));
    for _ in 0..100 {
        assert_eq!(outcome(&harness.step(Queue::of(10).sample_without_gauges(harness.seconds))).0, 5);
    }
    assert_eq!(outcome(&harness.step(Queue::of(900).sample_without_gauges(harness.seconds))), (9, BacklogTarget, None));
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
        assert_eq!(harness.history.missed_samples(), 0, "skew {skew_ms} ms");
        let stopped = harness.seconds - POLL;
        for _ in 0..100 {
            assert_eq!(harness.step(sample(harness.seconds, stopped)).replicas, 5, "skew {skew_ms} ms");
        }
        assert!(harness.history.missed_samples() >= 98);
    }
}

#[test]
fn clock_set_back_does_not_scale_down_before_a_whole_window() {
    let mut harness = Harness::with(8);
    harness.steps(20, Queue::of(800));
    harness.seconds -= 3600;
    let back = harness.seconds;
    while harness.seconds < back + 120 {
        assert_eq!(harness.steps(1, Queue::default()).replicas, 8);
    }
    assert_eq!(harness.steps(1, Queue::default()).replicas, 4);
}

#[test]
fn outage_delays_scaling_down_by_a_whole_window() {
    let mut harness = Harness::with(8);
    for _ in 0..3 {
        harness.step(failed_sample(harness.seconds));
    }
    let back = harness.seconds;
    while harness.seconds < back + 120 {
        assert_eq!(outcome(&harness.steps(1, Queue::default())), (8, BacklogTarget, Some(Limit::Stabilized)));
    }
    assert_eq!(outcome(&harness.steps(1, Queue::default())), (4, BacklogTarget, Some(Limit::ScaleDownLimit)));
}

#[test]
fn reset_of_the_totals_delays_scaling_down_by_a_whole_window() {
    let mut harness = Harness::with(8);
    harness.policy.behavior.scale_down.stabilization_window_seconds = 300;
    harness.steps(31, Queue { length: 100, accepted: 900, settled: 800, ..Queue::default() });
    harness.scale(8);
    let reset = harness.seconds;
    while harness.seconds < reset + 300 {
        assert_eq!(harness.steps(1, Queue::default()).replicas, 8);
    }
    assert!(harness.steps(1, Queue::default()).replicas < 8);
}

#[test]
fn pause_blocks_the_directions_that_it_names() {
    use AutoscalingPause::{All, None, ScaleDown, ScaleUp};
    for (paused, up, down) in [(None, 9, 1), (All, 5, 5), (ScaleUp, 5, 1), (ScaleDown, 9, 5)] {
        let mut harness = Harness::with(5);
        disable_behavior(&mut harness);
        harness.policy.paused = paused;
        assert_eq!(decide(&mut harness, Queue::of(900)).0, up, "{paused:?}");
        harness.seconds += POLL;
        assert_eq!(decide(&mut harness, Queue::default()).0, down, "{paused:?}");
    }
}

#[test]
fn rollout_allows_scaling_up_but_not_down() {
    let mut harness = Harness::with(5);
    disable_behavior(&mut harness);
    harness.workers.rolling_out = true;
    assert_eq!(decide(&mut harness, Queue::of(100)), (5, BacklogTarget, Some(Limit::RolloutInProgress)));
    harness.seconds += POLL;
    assert_eq!(decide(&mut harness, Queue::of(900)), (9, BacklogTarget, None));
}

#[test]
fn scale_up_stops_when_half_of_the_pods_fail_to_start() {
    let unready = |since: i64, crash_looping| WorkerPod {
        name: "new".into(),
        not_ready_since: Some(at(since)),
        crash_looping,
        deletion_cost: None,
    };
    let not_ready = Some(Limit::WorkersNotReady);
    for (what, healthy, others, expected) in [
        ("one of two is crash looping", 1, vec![unready(0, true)], (2, BacklogTarget, not_ready)),
        ("one of ten is crash looping", 9, vec![unready(0, true)], (14, BacklogTarget, Some(Limit::ScaleUpLimit))),
        (
            "one of two has been starting for 119 s",
            1,
            vec![unready(99_881, false)],
            (6, BacklogTarget, Some(Limit::ScaleUpLimit)),
        ),
        ("one of two has been starting for 120 s", 1, vec![unready(99_880, false)], (2, BacklogTarget, not_ready)),
    ] {
        let mut harness = Harness::with(healthy);
        harness.workers.replicas += 1;
        harness.workers.pods.extend(others);
        if expected.2 == Some(Limit::ScaleUpLimit) {
            harness.policy.behavior.scale_up.percent = 1;
        }
        assert_eq!(decide(&mut harness, Queue::of(9999)), expected, "{what}");
    }
}

#[test]
fn connection_budget_limits_the_workers() {
    let mut harness = Harness::with(2);
    disable_behavior(&mut harness);
    harness.policy.connection_limit = Some(6);
    assert_eq!(decide(&mut harness, Queue::of(9999)), (6, BacklogTarget, Some(Limit::DatabaseConnectionBudget)));
    harness.seconds += POLL;
    harness.policy.max = 4;
    assert_eq!(decide(&mut harness, Queue::of(9999)), (4, BacklogTarget, Some(Limit::TooManyReplicas)));
}

/// A harness with one worker and a measured throughput of 10 tasks per second.
fn harness_with_learned_throughput() -> Harness {
    let mut harness = Harness::with(1);
    harness.policy.paused = AutoscalingPause::All;
    for window in 0..=5 {
        let settled = window * 100;
        let queue = Queue { length: 9000, in_flight: 16, settled, accepted: settled, ..Queue::default() };
        let decision = harness.step(queue.sample(harness.seconds));
        assert_eq!(decision.reason, if window < 5 { BacklogTarget } else { DrainTimeTarget }, "window {window}");
    }
    harness.policy.paused = AutoscalingPause::None;
    disable_behavior(&mut harness);
    harness
}

#[test]
fn drain_time_target_replaces_the_backlog_target_once_throughput_is_known() {
    let mut harness = harness_with_learned_throughput();
    let queue = Queue { length: 1200, in_flight: 16, settled: 600, accepted: 600, ..Queue::default() };
    let decision = harness.observe(queue.sample(harness.seconds));
    // 1200 tasks in 60 s and 10 arrivals/s need 30 tasks/s; a worker is planned with 8 tasks/s.
    assert_eq!(outcome(&decision), (4, DrainTimeTarget, None));
    assert_eq!(decision.inputs.throughput_per_worker, Some(10.0));
    assert_eq!(decision.inputs.arrivals_per_second, Some(10.0));
    assert_eq!(
        decision.message,
        "backlog is 1200 with 10.0 arrivals/s, target is to drain it in 60 s at 10.0 tasks/s per worker: 4 workers"
    );
}

#[test]
fn arrivals_keep_workers_while_the_backlog_is_empty() {
    let mut harness = harness_with_learned_throughput();
    harness.scale(2);
    let queue = Queue { settled: 600, accepted: 700, ..Queue::default() };
    assert_eq!(decide(&mut harness, queue).0, 2, "11 arrivals/s and more at 8/s each");
}

#[test]
fn age_target_adds_half_near_the_limit_and_all_past_it() {
    let old = |oldest_age| Queue { length: 100, oldest_age, ..Queue::default() };
    for (current, age, expected) in [
        (4, 79, (1, BacklogTarget, None)),
        (4, 80, (6, AgeTarget, None)),
        (1, 80, (2, AgeTarget, None)),
        (4, 99, (6, AgeTarget, None)),
        (4, 100, (20, AgeTarget, None)),
    ] {
        let mut harness = Harness::with(current);
        disable_behavior(&mut harness);
        harness.policy.target.max_age_seconds = Some(100);
        assert_eq!(decide(&mut harness, old(age)), expected, "{current} workers, {age} s");
    }
}

#[test]
fn tolerance_does_not_apply_while_the_age_target_asks_for_more() {
    for (backlog, reason) in [(1990, AgeTarget), (2000, BacklogTarget), (2010, BacklogTarget)] {
        let mut harness = Harness::with(18);
        disable_behavior(&mut harness);
        harness.policy.behavior.tolerance_percent = 20;
        harness.policy.target.max_age_seconds = Some(60);
        let (replicas, by, _) = decide(&mut harness, Queue { oldest_age: 60, ..Queue::of(backlog) });
        assert_eq!((replicas, by), (20, reason), "backlog {backlog}");
    }
}

#[test]
fn age_target_ignores_tasks_in_flight() {
    let mut harness = Harness::with(4);
    harness.policy.target.max_age_seconds = Some(100);
    let running = Queue { length: 100, in_flight: 100, oldest_age: 500, ..Queue::default() };
    assert_eq!(decide(&mut harness, running).1, BacklogTarget);
}

#[test]
fn age_target_ignores_the_delay_before_a_retry() {
    let mut harness = Harness::with(4);
    harness.policy.target.max_age_seconds = Some(100);
    let mut sample = Queue { length: 10, oldest_age: 3, ..Queue::default() }.sample(harness.seconds);
    if let Some(gauges) = &mut sample.gauges {
        gauges.oldest_age_ms = 3_600_000;
    }
    let decision = harness.observe(sample);
    assert_eq!((decision.reason, decision.inputs.oldest_age_seconds), (BacklogTarget, Some(3)));
}

#[test]
fn age_target_waits_for_starting_pods() {
    let mut harness = Harness::with(4);
    harness.policy.target.max_age_seconds = Some(100);
    harness.workers.pods[0].not_ready_since = Some(at(harness.seconds - 20));
    let queue = Queue { length: 100, oldest_age: 85, ..Queue::default() };
    assert_eq!(decide(&mut harness, queue), (4, AgeTarget, None));
    harness.workers.pods.remove(0);
    assert_eq!(outcome(&harness.decide()), (4, AgeTarget, None), "nor for a pod that is not created yet");
}

fn spec(workers: serde_json::Value, stopped: bool) -> PulseIngestSpec {
    serde_json::from_value(serde_json::json!({
        "image": { "repository": "pulse", "tag": "1" },
        "database": { "urlSecretRef": { "name": "db" }, "maxConnectionsTotal": 102 },
        "redis": { "urlSecretRef": { "name": "redis" } },
        "auth": { "jwtSecretRef": { "name": "jwt", "key": "key" } },
        "workers": workers,
        "stopped": stopped,
    }))
    .expect("a spec")
}

#[test]
fn replicas_are_fixed_without_internal_autoscaling() {
    let poll = SignedDuration::from_secs(10);
    let external = serde_json::json!({ "mode": "External" });
    let internal = serde_json::json!({ "minReplicas": 0, "maxReplicas": 9 });
    for (workers, stopped, initial, expected) in [
        (serde_json::json!({ "replicas": 3 }), false, 3, (3, Fixed, None)),
        (serde_json::json!({ "replicas": 9 }), false, 3, (3, Fixed, Some(Limit::DatabaseConnectionBudget))),
        (serde_json::json!({ "replicas": 2, "autoscaling": external }), false, 2, (2, Fixed, None)),
        (serde_json::json!({ "replicas": 0, "autoscaling": external }), false, 0, (0, Fixed, None)),
        (serde_json::json!({ "replicas": 3 }), true, 0, (0, Fixed, None)),
        (serde_json::json!({ "autoscaling": internal }), true, 0, (0, Fixed, None)),
        (serde_json::json!({ "autoscaling": internal }), false, 1, (1, BacklogTarget, None)),
    ] {
        let policy = Policy::new(&spec(workers.clone(), stopped), poll);
        assert_eq!(policy.initial_replicas(), initial, "{workers}");
        let mut harness = Harness { policy, ..Harness::with(1) };
        assert_eq!(decide(&mut harness, Queue::default()), expected, "{workers}");
    }
}

#[test]
fn decision_record_has_inputs_limit_and_message() {
    let mut harness = Harness::with(4);
    let decision = harness.observe(Queue { length: 950, in_flight: 64, ..Queue::default() }.sample(harness.seconds));
    let record = decision.record(4, at(harness.seconds));
    assert_eq!(
        (record.from, record.to, record.reason.as_str(), record.limited_by.as_deref()),
        (4, 8, "BacklogTarget", Some("ScaleUpLimit"))
    );
    assert_eq!((record.inputs.backlog, record.inputs.in_flight), (Some(950), Some(64)));
    assert_eq!(record.message, "backlog is 950, target is 100 per worker: 10 workers, limited to 8 by ScaleUpLimit");
    let decision = Harness::with(4).observe(failed_sample(100_000));
    assert_eq!(decision.message, "backlog is unknown (ConnectionFailed, incomplete samples in a row: 1): 4 workers");
}

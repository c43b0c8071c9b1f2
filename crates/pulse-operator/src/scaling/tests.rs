//! Decisions, as sentences.

use super::fixture::*;
use super::*;
use crate::crd::{AutoscalingPause, PulseIngestSpec, ScalingRules};
use jiff::SignedDuration;

use ScalingReason::{AgeTarget, BacklogTarget, DrainTimeTarget, Fixed, Idle, Unknown, Wake};

fn decided(scene: &mut Scene, queue: Queue) -> (u32, ScalingReason, Option<Limit>) {
    gist(&scene.see(queue.whole(scene.seconds)))
}

/// Workers drain so fast that windows and policies do not show.
fn at_once(scene: &mut Scene) {
    let rules = ScalingRules { stabilization_window_seconds: 0, percent: 1000, workers: 1000, period_seconds: 1 };
    scene.policy.behavior.scale_up = rules.clone();
    scene.policy.behavior.scale_down = rules;
}

#[test]
fn so_many_tasks_for_each_worker() {
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
        let mut scene = Scene::with(current);
        at_once(&mut scene);
        assert_eq!(decided(&mut scene, Queue::of(backlog)), expected, "{current} workers, backlog {backlog}");
    }
}

#[test]
fn min_replicas_is_the_floor_and_says_so() {
    let mut scene = Scene::with(3);
    at_once(&mut scene);
    scene.policy.min = 2;
    assert_eq!(decided(&mut scene, Queue::default()), (2, BacklogTarget, Some(Limit::TooFewReplicas)));
}

#[test]
fn a_lower_maximum_applies_at_once_even_during_a_rollout() {
    let mut scene = Scene::with(15);
    scene.policy.max = 4;
    scene.workers.rolling_out = true;
    assert_eq!(decided(&mut scene, Queue::of(1500)), (4, BacklogTarget, Some(Limit::TooManyReplicas)));
    scene.policy.paused = AutoscalingPause::All;
    assert_eq!(decided(&mut scene, Queue::of(1500)), (15, BacklogTarget, Some(Limit::Paused)));
}

#[test]
fn more_workers_come_by_the_larger_of_percent_and_workers_each_period() {
    let mut scene = Scene::with(1);
    let counts: Vec<u32> = (0..6).map(|_| scene.step(Queue::of(9999).whole(scene.seconds)).replicas).collect();
    assert_eq!(counts, [5, 5, 10, 10, 20, 20], "4 more or twice as many in 15 s, looked at every 10 s");
}

#[test]
fn fewer_workers_come_after_a_window_and_by_half_each_minute() {
    let mut scene = Scene::with(16);
    scene.steps(3, Queue::of(1600));
    let start = scene.seconds;
    let mut changes = vec![];
    for _ in 0..60 {
        let before = scene.workers.replicas;
        let decision = scene.step(Queue::default().whole(scene.seconds));
        if decision.replicas != before {
            changes.push((scene.seconds - POLL - start, decision.replicas));
        }
    }
    assert_eq!(changes, [(110, 8), (170, 4), (230, 2), (290, 1), (300, 0)]);
}

#[test]
fn a_short_lull_changes_nothing() {
    let mut scene = Scene::with(10);
    scene.steps(2, Queue::of(1000));
    for _ in 0..50 {
        scene.steps(10, Queue::default());
        let decision = scene.steps(1, Queue::of(1000));
        assert_eq!(decision.replicas, 10);
    }
}

#[test]
fn an_upward_window_waits_for_more_work_to_stay() {
    let mut scene = Scene::with(2);
    scene.policy.behavior.scale_up.stabilization_window_seconds = 30;
    scene.steps(3, Queue::of(200));
    let counts: Vec<u32> = (0..4).map(|_| scene.step(Queue::of(500).whole(scene.seconds)).replicas).collect();
    assert_eq!(counts, [2, 2, 5, 5]);
}

#[test]
fn from_zero_straight_to_the_computed_count() {
    let mut scene = Scene::with(0);
    assert_eq!(decided(&mut scene, Queue::of(1850)), (19, Wake, None));
    assert_eq!(decided(&mut Scene::with(0), Queue::of(1)), (1, Wake, None), "no tolerance from zero");
    assert_eq!(decided(&mut Scene::with(0), Queue::default()), (0, Idle, None));
}

#[test]
fn the_last_worker_goes_after_the_whole_idle_time() {
    let mut scene = Scene::with(1);
    let quiet = Queue::default();
    assert_eq!(gist(&scene.steps(30, quiet)), (1, BacklogTarget, None), "290 s");
    assert_eq!(gist(&scene.steps(1, quiet)), (0, Idle, None), "300 s");
}

#[test]
fn whatever_happens_starts_the_idle_time_anew() {
    let quiet = Queue { accepted: 7, settled: 7, ..Queue::default() };
    for (what, queue) in [
        ("a task waits", Queue { length: 1, ..quiet }),
        ("a task is in flight", Queue { length: 1, in_flight: 1, ..quiet }),
        ("a task came and went", Queue { accepted: 8, ..quiet }),
        ("a task was settled", Queue { settled: 8, ..quiet }),
        ("a retry falls due in 30 s", Queue { next_due: Some(30), ..quiet }),
    ] {
        let mut scene = Scene::with(1);
        scene.steps(30, quiet);
        assert_eq!(scene.steps(1, queue).replicas, 1, "{what}");
        let after = Queue { length: 0, in_flight: 0, next_due: None, ..queue };
        assert_eq!(scene.steps(30, after).replicas, 1, "{what}, 300 s ago");
        assert_eq!(scene.steps(1, after).replicas, 0, "{what}, 310 s ago");
    }
}

#[test]
fn the_last_worker_stays_while_it_has_a_task_that_redis_forgot() {
    let mut scene = Scene::with(1);
    for _ in 0..60 {
        let mut sample = Queue::default().whole(scene.seconds);
        if let Some(gauges) = &mut sample.gauges {
            gauges.unsettled = 1;
        }
        assert_eq!(scene.step(sample).replicas, 1);
    }
}

#[test]
fn the_last_worker_stays_during_a_rollout_and_a_migration() {
    for (rolling_out, migrating) in [(true, false), (false, true)] {
        let mut scene = Scene::with(1);
        scene.workers.rolling_out = rolling_out;
        scene.workers.migrating = migrating;
        assert_eq!(scene.steps(60, Queue::default()).replicas, 1);
        scene.workers.rolling_out = false;
        scene.workers.migrating = false;
        assert_eq!(scene.steps(1, Queue::default()).replicas, 0);
    }
}

#[test]
fn a_new_object_is_active_from_its_creation() {
    let mut scene = Scene::just_started(1);
    assert_eq!(scene.policy.initial_replicas(), 1);
    assert_eq!(scene.steps(30, Queue::default()).replicas, 1);
    assert_eq!(scene.steps(1, Queue::default()).replicas, 0);
}

#[test]
fn zero_is_opt_in() {
    let mut scene = Scene::with(1);
    scene.policy.min = 1;
    assert_eq!(scene.steps(500, Queue::default()).replicas, 1);
}

#[test]
fn arrivals_wake_though_the_queue_reads_empty() {
    let mut scene = Scene::with(0);
    scene.steps(1, Queue { accepted: 5, settled: 5, ..Queue::default() });
    assert_eq!(decided(&mut scene, Queue { accepted: 6, settled: 5, ..Queue::default() }), (1, Wake, None));
}

#[test]
fn a_retry_wakes_a_little_before_it_falls_due_without_a_new_sample() {
    let mut scene = Scene::with(0);
    scene.policy.poll = SignedDuration::from_secs(3600);
    let due = scene.seconds + 600;
    let decision = scene.step(Queue { next_due: Some(600), ..Queue::default() }.whole(scene.seconds));
    assert_eq!(gist(&decision), (0, Idle, None));
    assert_eq!(decision.next_wake, Some(at(due - 30)));
    scene.seconds = due - 31;
    assert_eq!(gist(&scene.decide()), (0, Idle, None));
    scene.seconds = due - 30;
    assert_eq!(gist(&scene.decide()), (1, Wake, None));
}

#[test]
fn two_missed_samples_use_what_was_known_and_the_third_is_unknown() {
    let mut scene = Scene::with(1);
    scene.policy.behavior.scale_up.workers = 1;
    scene.policy.behavior.scale_up.period_seconds = 10;
    scene.steps(1, Queue::of(1000));
    assert_eq!(gist(&scene.step(failure(scene.seconds))), (4, BacklogTarget, Some(Limit::ScaleUpLimit)));
    assert_eq!(gist(&scene.step(failure(scene.seconds))), (8, BacklogTarget, Some(Limit::ScaleUpLimit)));
    assert_eq!(gist(&scene.step(failure(scene.seconds))), (8, Unknown, None));
}

#[test]
fn unknown_lifts_from_zero_and_holds_everything_else() {
    for (current, expected) in [(0, 1), (1, 1), (7, 7)] {
        let mut scene = Scene::with(current);
        scene.steps(1, Queue::default());
        let counts: Vec<u32> = (0..100).map(|_| scene.step(failure(scene.seconds)).replicas).collect();
        assert_eq!((counts[1], counts[2], counts[99]), (current, expected, expected));
    }
}

#[test]
fn silence_is_unknown_too() {
    let mut scene = Scene::with(0);
    scene.step(Queue::default().whole(scene.seconds));
    scene.seconds += 20;
    assert_eq!(gist(&scene.decide()), (0, Idle, None));
    scene.seconds += 1;
    assert_eq!(gist(&scene.decide()), (1, Unknown, None));
}

#[test]
fn what_redis_alone_knows_may_scale_up_but_not_down() {
    let mut scene = Scene::with(5);
    scene.steps(1, Queue::of(500));
    for _ in 0..100 {
        assert_eq!(gist(&scene.step(Queue::of(10).part(scene.seconds))).0, 5);
    }
    assert_eq!(gist(&scene.step(Queue::of(900).part(scene.seconds))), (9, BacklogTarget, None));
}

#[test]
fn gauges_that_stop_changing_are_unknown_whatever_the_clocks_say() {
    for skew_ms in [-3_600_000, 0, 3_600_000] {
        let mut scene = Scene::with(5);
        let sample = |seconds: i64, gauges_seconds: i64| {
            let mut sample = Queue::default().whole(seconds);
            if let Some(gauges) = &mut sample.gauges {
                gauges.at_ms += (gauges_seconds - seconds) * 1000 + skew_ms;
            }
            sample
        };
        for _ in 0..3 {
            scene.step(sample(scene.seconds, scene.seconds));
        }
        assert_eq!(scene.history.misses(), 0, "skew {skew_ms} ms");
        let stopped = scene.seconds - POLL;
        for _ in 0..100 {
            assert_eq!(scene.step(sample(scene.seconds, stopped)).replicas, 5, "skew {skew_ms} ms");
        }
        assert!(scene.history.misses() >= 98);
    }
}

#[test]
fn a_clock_that_is_set_back_is_no_reason_to_go() {
    let mut scene = Scene::with(8);
    scene.steps(20, Queue::of(800));
    scene.seconds -= 3600;
    let back = scene.seconds;
    while scene.seconds < back + 120 {
        assert_eq!(scene.steps(1, Queue::default()).replicas, 8);
    }
    assert_eq!(scene.steps(1, Queue::default()).replicas, 4);
}

#[test]
fn after_an_outage_a_whole_window_passes_before_anybody_goes() {
    let mut scene = Scene::with(8);
    for _ in 0..3 {
        scene.step(failure(scene.seconds));
    }
    let back = scene.seconds;
    while scene.seconds < back + 120 {
        assert_eq!(gist(&scene.steps(1, Queue::default())), (8, BacklogTarget, Some(Limit::Stabilized)));
    }
    assert_eq!(gist(&scene.steps(1, Queue::default())), (4, BacklogTarget, Some(Limit::ScaleDownLimit)));
}

#[test]
fn another_database_holds_what_there_is_for_a_window() {
    let mut scene = Scene::with(8);
    scene.policy.behavior.scale_down.stabilization_window_seconds = 300;
    scene.steps(31, Queue { length: 100, accepted: 900, settled: 800, ..Queue::default() });
    scene.scale(8);
    let reset = scene.seconds;
    while scene.seconds < reset + 300 {
        assert_eq!(scene.steps(1, Queue::default()).replicas, 8);
    }
    assert!(scene.steps(1, Queue::default()).replicas < 8);
}

#[test]
fn a_pause_holds_what_it_names() {
    use AutoscalingPause::{All, None, ScaleDown, ScaleUp};
    for (paused, up, down) in [(None, 9, 1), (All, 5, 5), (ScaleUp, 5, 1), (ScaleDown, 9, 5)] {
        let mut scene = Scene::with(5);
        at_once(&mut scene);
        scene.policy.paused = paused;
        assert_eq!(decided(&mut scene, Queue::of(900)).0, up, "{paused:?}");
        scene.seconds += POLL;
        assert_eq!(decided(&mut scene, Queue::default()).0, down, "{paused:?}");
    }
}

#[test]
fn a_rollout_lets_workers_come_but_not_go() {
    let mut scene = Scene::with(5);
    at_once(&mut scene);
    scene.workers.rolling_out = true;
    assert_eq!(decided(&mut scene, Queue::of(100)), (5, BacklogTarget, Some(Limit::RolloutInProgress)));
    scene.seconds += POLL;
    assert_eq!(decided(&mut scene, Queue::of(900)), (9, BacklogTarget, None));
}

#[test]
fn more_workers_do_not_help_where_half_of_them_do_not_start() {
    let unready = |since: i64, crash_looping| WorkerPod {
        name: "new".into(),
        not_ready_since: Some(at(since)),
        crash_looping,
        deletion_cost: None,
    };
    let not_ready = Some(Limit::WorkersNotReady);
    for (what, healthy, others, expected) in [
        ("one of two crashes again and again", 1, vec![unready(0, true)], (2, BacklogTarget, not_ready)),
        ("one of ten does", 9, vec![unready(0, true)], (14, BacklogTarget, Some(Limit::ScaleUpLimit))),
        (
            "one of two has been starting for 119 s",
            1,
            vec![unready(99_881, false)],
            (6, BacklogTarget, Some(Limit::ScaleUpLimit)),
        ),
        ("one of two has been starting for 120 s", 1, vec![unready(99_880, false)], (2, BacklogTarget, not_ready)),
    ] {
        let mut scene = Scene::with(healthy);
        scene.workers.replicas += 1;
        scene.workers.pods.extend(others);
        if expected.2 == Some(Limit::ScaleUpLimit) {
            scene.policy.behavior.scale_up.percent = 1;
        }
        assert_eq!(decided(&mut scene, Queue::of(9999)), expected, "{what}");
    }
}

#[test]
fn the_connections_of_the_database_limit_the_workers() {
    let mut scene = Scene::with(2);
    at_once(&mut scene);
    scene.policy.connection_limit = Some(6);
    assert_eq!(decided(&mut scene, Queue::of(9999)), (6, BacklogTarget, Some(Limit::DatabaseConnectionBudget)));
    scene.seconds += POLL;
    scene.policy.max = 4;
    assert_eq!(decided(&mut scene, Queue::of(9999)), (4, BacklogTarget, Some(Limit::TooManyReplicas)));
}

/// One that has learned that a worker settles 10 tasks each second.
fn experienced() -> Scene {
    let mut scene = Scene::with(1);
    scene.policy.paused = AutoscalingPause::All;
    for window in 0..=5 {
        let settled = window * 100;
        let queue = Queue { length: 9000, in_flight: 16, settled, accepted: settled, ..Queue::default() };
        let decision = scene.step(queue.whole(scene.seconds));
        assert_eq!(decision.reason, if window < 5 { BacklogTarget } else { DrainTimeTarget }, "window {window}");
    }
    scene.policy.paused = AutoscalingPause::None;
    at_once(&mut scene);
    scene
}

#[test]
fn measured_throughput_replaces_the_guess() {
    let mut scene = experienced();
    let queue = Queue { length: 1200, in_flight: 16, settled: 600, accepted: 600, ..Queue::default() };
    let decision = scene.see(queue.whole(scene.seconds));
    // 1200 within 60 s and 10 more each second is 30/s; a worker is planned for 8/s.
    assert_eq!(gist(&decision), (4, DrainTimeTarget, None));
    assert_eq!(decision.inputs.throughput_per_worker, Some(10.0));
    assert_eq!(decision.inputs.arrivals_per_second, Some(10.0));
    assert_eq!(
        decision.message,
        "a backlog of 1200 and 10.0 arrivals/s, to be drained in 60 s at 10.0/s per worker: 4 workers"
    );
}

#[test]
fn arrivals_keep_workers_though_the_backlog_is_empty() {
    let mut scene = experienced();
    scene.scale(2);
    let queue = Queue { settled: 600, accepted: 700, ..Queue::default() };
    assert_eq!(decided(&mut scene, queue).0, 2, "11 arrivals/s and more at 8/s each");
}

#[test]
fn an_old_task_brings_half_as_many_more_and_a_too_old_one_all() {
    let old = |oldest_age| Queue { length: 100, oldest_age, ..Queue::default() };
    for (current, age, expected) in [
        (4, 79, (1, BacklogTarget, None)),
        (4, 80, (6, AgeTarget, None)),
        (1, 80, (2, AgeTarget, None)),
        (4, 99, (6, AgeTarget, None)),
        (4, 100, (20, AgeTarget, None)),
    ] {
        let mut scene = Scene::with(current);
        at_once(&mut scene);
        scene.policy.target.max_age_seconds = Some(100);
        assert_eq!(decided(&mut scene, old(age)), expected, "{current} workers, {age} s");
    }
}

#[test]
fn a_backlog_that_asks_for_no_fewer_than_a_too_old_task_is_not_held_by_the_tolerance() {
    for (backlog, reason) in [(1990, AgeTarget), (2000, BacklogTarget), (2010, BacklogTarget)] {
        let mut scene = Scene::with(18);
        at_once(&mut scene);
        scene.policy.behavior.tolerance_percent = 20;
        scene.policy.target.max_age_seconds = Some(60);
        let (replicas, by, _) = decided(&mut scene, Queue { oldest_age: 60, ..Queue::of(backlog) });
        assert_eq!((replicas, by), (20, reason), "backlog {backlog}");
    }
}

#[test]
fn an_old_task_that_runs_already_brings_nobody() {
    let mut scene = Scene::with(4);
    scene.policy.target.max_age_seconds = Some(100);
    let running = Queue { length: 100, in_flight: 100, oldest_age: 500, ..Queue::default() };
    assert_eq!(decided(&mut scene, running).1, BacklogTarget);
}

#[test]
fn an_age_that_was_spent_waiting_for_a_retry_does_not_count() {
    let mut scene = Scene::with(4);
    scene.policy.target.max_age_seconds = Some(100);
    let mut sample = Queue { length: 10, oldest_age: 3, ..Queue::default() }.whole(scene.seconds);
    if let Some(gauges) = &mut sample.gauges {
        gauges.oldest_age_ms = 3_600_000;
    }
    let decision = scene.see(sample);
    assert_eq!((decision.reason, decision.inputs.oldest_age_seconds), (BacklogTarget, Some(3)));
}

#[test]
fn workers_that_are_about_to_start_have_to_show_first_that_they_are_not_enough() {
    let mut scene = Scene::with(4);
    scene.policy.target.max_age_seconds = Some(100);
    scene.workers.pods[0].not_ready_since = Some(at(scene.seconds - 20));
    let queue = Queue { length: 100, oldest_age: 85, ..Queue::default() };
    assert_eq!(decided(&mut scene, queue), (4, AgeTarget, None));
    scene.workers.pods.remove(0);
    assert_eq!(gist(&scene.decide()), (4, AgeTarget, None), "nor does a pod that is still to be made");
}

fn spec(workers: serde_json::Value, stopped: bool) -> PulseIngestSpec {
    serde_json::from_value(serde_json::json!({
        "image": { "repository": "pulse", "tag": "1" },
        "database": { "urlSecretRef": { "name": "db" }, "maxConnectionsTotal": 100 },
        "redis": { "urlSecretRef": { "name": "redis" } },
        "auth": { "jwtSecretRef": { "name": "jwt", "key": "key" } },
        "workers": workers,
        "stopped": stopped,
    }))
    .expect("a spec")
}

#[test]
fn without_internal_autoscaling_the_object_says_how_many() {
    let poll = SignedDuration::from_secs(10);
    let external = serde_json::json!({ "mode": "External", "maxReplicas": 9 });
    let internal = serde_json::json!({ "minReplicas": 0, "maxReplicas": 9 });
    for (workers, stopped, initial, expected) in [
        (serde_json::json!({ "replicas": 3 }), false, 3, (3, Fixed, None)),
        (serde_json::json!({ "replicas": 9 }), false, 3, (3, Fixed, Some(Limit::DatabaseConnectionBudget))),
        (serde_json::json!({ "replicas": 2, "autoscaling": external }), false, 2, (2, Fixed, None)),
        (serde_json::json!({ "replicas": 3 }), true, 0, (0, Fixed, None)),
        (serde_json::json!({ "autoscaling": internal }), true, 0, (0, Fixed, None)),
        (serde_json::json!({ "autoscaling": internal }), false, 1, (1, BacklogTarget, None)),
    ] {
        let policy = Policy::new(&spec(workers.clone(), stopped), poll);
        assert_eq!(policy.initial_replicas(), initial, "{workers}");
        let mut scene = Scene { policy, ..Scene::with(1) };
        assert_eq!(decided(&mut scene, Queue::default()), expected, "{workers}");
    }
}

#[test]
fn a_decision_is_recorded_with_all_that_led_to_it() {
    let mut scene = Scene::with(4);
    let decision = scene.see(Queue { length: 950, in_flight: 64, ..Queue::default() }.whole(scene.seconds));
    let record = decision.record(4, at(scene.seconds));
    assert_eq!(
        (record.from, record.to, record.reason.as_str(), record.limited_by.as_deref()),
        (4, 8, "Backlog", Some("ScaleUpLimit"))
    );
    assert_eq!((record.inputs.backlog, record.inputs.in_flight), (Some(950), Some(64)));
    assert_eq!(record.message, "a backlog of 950 at 100 per worker: 10 workers, limited to 8 by ScaleUpLimit");
    let decision = Scene::with(4).see(failure(100_000));
    assert_eq!(decision.message, "the backlog is unknown (TimedOut, 1 samples): 4 workers");
}

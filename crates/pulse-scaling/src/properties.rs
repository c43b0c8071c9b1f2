//! Properties of every decision, checked with random histories.

use jiff::SignedDuration;
use proptest::prelude::*;

use crate::fixture::*;
use crate::*;

const CASES: u32 = 5_000;

fn config() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

fn rules() -> impl Strategy<Value = ScalingRules> {
    (0..600u32, 1..=1000u32, 1..=50u32, 1..=120u32).prop_map(
        |(stabilization_window_seconds, percent, workers, period_seconds)| ScalingRules {
            stabilization_window_seconds,
            percent,
            workers,
            period_seconds,
        },
    )
}

prop_compose! {
    fn policies()(
        (min, more) in (0..20u32, 1..100u32),
        connection_limit in proptest::option::of(1..50u32),
        fallback in proptest::option::of(0..50u32),
        (per_worker, drain) in (1..1000u32, 1..600u32),
        max_age_seconds in proptest::option::of(1..600u32),
        tolerance_percent in 0..=50u32,
        (scale_up, scale_down) in (rules(), rules()),
        idle in 10..600i64,
    ) -> Policy {
        let mut policy = policy();
        (policy.min, policy.max, policy.connection_limit) = (min, min + more, connection_limit);
        policy.fallback = fallback;
        policy.target = Target { backlog_per_worker: per_worker, drain_seconds: drain, max_age_seconds };
        policy.behavior = Behavior { tolerance_percent, scale_up, scale_down };
        policy.idle = SignedDuration::from_secs(idle);
        policy
    }
}

/// The result of one poll.
#[derive(Debug, Clone, Copy)]
enum Observation {
    Whole(Queue),
    LowerBound(Queue),
    Failure,
}

impl Observation {
    fn sample(self, seconds: i64) -> Sample {
        match self {
            Self::Whole(queue) => queue.sample(seconds),
            Self::LowerBound(queue) => queue.sample_without_gauges(seconds),
            Self::Failure => failed_sample(seconds),
        }
    }
}

prop_compose! {
    fn queues()(
        (waiting, in_flight) in (prop_oneof![Just(0), 0..200u64, 0..100_000u64], 0..=100u64),
        (accepted, attempts, retried, attempt_ms) in (0..100_000i64, 0..100_000i64, 0..1000i64, 0..10_000_000i64),
        oldest_age in 0..1000u64,
        next_due in proptest::option::of(0..1000i64),
    ) -> Queue {
        Queue { waiting, in_flight, accepted, attempts, retried, attempt_ms, next_due, oldest_age }
    }
}

fn observations() -> impl Strategy<Value = Observation> {
    prop_oneof![
        4 => queues().prop_map(Observation::Whole),
        1 => queues().prop_map(Observation::LowerBound),
        1 => Just(Observation::Failure),
    ]
}

fn incomplete_observations() -> impl Strategy<Value = Observation> {
    prop_oneof![queues().prop_map(Observation::LowerBound), Just(Observation::Failure)]
}

/// A harness with a random history of up to `max` polls, each with its decision applied.
fn harnesses(max: usize) -> impl Strategy<Value = Harness> {
    let known = proptest::option::of((0.01..500.0, 0.0..1000.0));
    (policies(), 0..60u32, proptest::collection::vec(observations(), 0..max), known).prop_map(
        |(policy, live, history, known)| {
            let mut harness = Harness { policy, ..Harness::with(live) };
            if let Some((attempt, arrivals)) = known {
                harness = harness.knowing(attempt, arrivals);
            }
            for observation in history {
                harness.step(observation.sample(harness.seconds));
            }
            harness
        },
    )
}

fn ceiling(policy: &Policy) -> u32 {
    policy.max.min(policy.connection_limit.unwrap_or(u32::MAX))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn replicas_are_within_the_bounds(harness in harnesses(6), observation in observations()) {
        let mut harness = harness;
        let decision = harness.observe(observation.sample(harness.seconds));
        let max = ceiling(&harness.policy);
        prop_assert!(decision.replicas <= max && decision.replicas >= harness.policy.min.min(max));
        prop_assert!(decision.message.len() <= 1024);
        let Learned { attempt_seconds, arrivals_per_second, .. } = harness.memory.learned();
        let valid = |value: f64| value.is_finite() && value >= 0.0;
        prop_assert!(attempt_seconds.is_none_or(valid) && arrivals_per_second.is_none_or(valid));
    }

    #[test]
    fn same_sample_again_decides_the_same(harness in harnesses(6), observation in observations()) {
        let mut harness = harness;
        let first = harness.observe(observation.sample(harness.seconds));
        prop_assert_eq!(harness.decide(), first);
    }

    #[test]
    fn more_waiting_tasks_never_need_fewer_workers(harness in harnesses(6), queue in queues(), more in 0..10_000u64) {
        let decide = |waiting| {
            let mut harness = Harness { policy: harness.policy.clone(), memory: harness.memory.clone(), ..Harness::with(3) };
            harness.policy.behavior.tolerance_percent = 0;
            harness.seconds += 1000;
            harness.observe(Queue { waiting, oldest_age: 0, ..queue }.sample(harness.seconds)).recommended
        };
        prop_assert!(decide(queue.waiting) <= decide(queue.waiting + more));
    }

    #[test]
    fn restart_never_scales_down_within_the_stabilization_window(
        harness in harnesses(6), observed in proptest::collection::vec(observations(), 1..12),
    ) {
        let mut harness = harness;
        harness.restart();
        let window = i64::from(harness.policy.behavior.scale_down.stabilization_window_seconds);
        let end = harness.seconds + window;
        for observation in observed {
            if harness.seconds >= end {
                break;
            }
            let before = harness.workers.replicas;
            let decision = harness.step(observation.sample(harness.seconds));
            prop_assert!(decision.replicas >= before.min(ceiling(&harness.policy)), "{} before", before);
        }
    }

    #[test]
    fn unknown_backlog_never_scales_down(
        harness in harnesses(6), observed in proptest::collection::vec(incomplete_observations(), 1..6),
        silence in 0..100i64,
    ) {
        let mut harness = harness;
        let max = ceiling(&harness.policy);
        for observation in observed {
            let before = harness.workers.replicas;
            let decision = harness.observe(observation.sample(harness.seconds));
            prop_assert!(decision.replicas >= before.min(max), "{} before", before);
            harness.apply(&decision);
            harness.seconds += silence;
            prop_assert!(harness.decide().replicas >= harness.workers.replicas.min(max), "after {} s", silence);
        }
    }

    #[test]
    fn scaling_to_zero_requires_one_worker_and_the_whole_idle_time(
        idle in 10..100i64, observed in proptest::collection::vec(observations(), 1..5), idle_polls in 0..20usize,
    ) {
        let mut harness = Harness::with(3);
        harness.policy.idle = SignedDuration::from_secs(idle);
        harness.policy.behavior.scale_down =
            ScalingRules { stabilization_window_seconds: 0, percent: 90, workers: 50, period_seconds: 1 };
        let mut idle_since = None;
        let empty = std::iter::repeat_n(Observation::Whole(Queue::default()), idle_polls);
        for observation in observed.into_iter().chain(empty) {
            let is_idle = matches!(observation, Observation::Whole(queue)
                if queue.waiting + queue.in_flight == 0 && queue.next_due.is_none_or(|due| due > 30));
            if is_idle {
                idle_since = idle_since.or(Some(harness.seconds));
            } else if matches!(observation, Observation::Whole(_)) {
                idle_since = None;
            }
            let (before, now) = (harness.workers.replicas, harness.seconds);
            let decision = harness.step(observation.sample(harness.seconds));
            if decision.replicas == 0 && before > 0 {
                prop_assert_eq!(before, 1);
                prop_assert!(is_idle && idle_since.is_some_and(|since| now - since >= idle));
            }
        }
    }
}

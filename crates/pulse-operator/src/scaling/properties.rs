//! Properties of every decision, checked with random histories.

use jiff::SignedDuration;
use proptest::prelude::*;

use super::fixture::*;
use super::learning::Learning;
use super::*;
use crate::crd::ScalingRules;

const CASES: u32 = 17_000;

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
        (per_worker, drain) in (1..1000u32, 1..600u32),
        max_age_seconds in proptest::option::of(1..600u32),
        tolerance_percent in 0..=50u32,
        (scale_up, scale_down) in (rules(), rules()),
        idle in 10..600i64,
    ) -> Policy {
        let mut policy = policy();
        (policy.min, policy.max, policy.connection_limit) = (min, min + more, connection_limit);
        policy.target.backlog_per_worker = per_worker;
        policy.target.drain_seconds = drain;
        policy.target.max_age_seconds = max_age_seconds;
        policy.behavior.tolerance_percent = tolerance_percent;
        (policy.behavior.scale_up, policy.behavior.scale_down) = (scale_up, scale_down);
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
        length in prop_oneof![Just(0), 0..200u64, 0..100_000u64],
        running in 0..=16u64,
        oldest_age in 0..1000i64,
        next_due in proptest::option::of(0..1000i64),
    ) -> Queue {
        Queue { length, in_flight: running.min(length), oldest_age, next_due, ..Queue::default() }
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
    (policies(), 0..60u32, proptest::collection::vec(observations(), 0..max), any::<bool>()).prop_map(
        |(policy, live, history, learned)| {
            let mut harness = Harness { policy, ..Harness::with(live) };
            if learned {
                harness.history.set_learning(Learning::known(12.0, 7.0));
            }
            for observation in history {
                harness.step(observation.sample(harness.seconds));
            }
            harness
        },
    )
}

impl std::fmt::Debug for Harness {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { policy, history, workers, seconds } = self;
        write!(formatter, "{policy:?} {history:?} {} workers at {seconds}", workers.replicas)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn longer_backlog_never_gets_fewer_workers(
        policy in policies(), live in 0..60u32, learned: bool, queue in queues(), more in 0..5000u64,
        seconds in 0..30i64,
    ) {
        let decided = |length: u64| {
            let mut harness = Harness { policy: policy.clone(), ..Harness::with(live) };
            if learned {
                harness.history.set_learning(Learning::known(3.0, 7.0));
            }
            harness.step(Queue { length: 50, ..queue }.sample(harness.seconds));
            harness.seconds += seconds;
            harness.observe(Queue { length, ..queue }.sample(harness.seconds)).replicas
        };
        let (short, long) = (decided(queue.length), decided(queue.length + more));
        prop_assert!(short <= long, "{short} workers, but {long} for {more} more tasks");
    }

    #[test]
    fn replicas_are_always_within_bounds(harness in harnesses(6), observation in observations()) {
        let mut harness = harness;
        let decision = harness.observe(observation.sample(harness.seconds));
        let max = harness.policy.max.min(harness.policy.connection_limit.unwrap_or(u32::MAX));
        prop_assert!(decision.replicas <= max);
        prop_assert!(decision.replicas >= harness.policy.min.min(max));
        prop_assert!(decision.message.len() <= 1024);
    }

    #[test]
    fn replicas_do_not_change_within_the_tolerance(
        current in 1..60u32, deviations in proptest::collection::vec(-100..=100i64, 1..12), tolerance in 0..=50u32,
    ) {
        let mut harness = Harness::with(current);
        harness.policy.max = 100;
        harness.policy.behavior.tolerance_percent = tolerance;
        harness.policy.behavior.scale_down.stabilization_window_seconds = 0;
        for deviation in deviations {
            let exact = i64::from(current) * 100;
            let backlog = exact + exact * i64::from(tolerance) * deviation / 10_000;
            let decision = harness.step(Queue::of(backlog.cast_unsigned()).sample(harness.seconds));
            prop_assert_eq!(decision.replicas, current, "backlog {}", backlog);
        }
    }

    #[test]
    fn restart_never_scales_down_within_the_stabilization_window(
        policy in policies(), live in 0..60u32, observed in proptest::collection::vec(observations(), 1..12),
    ) {
        let window = i64::from(policy.behavior.scale_down.stabilization_window_seconds);
        let max = policy.max.min(policy.connection_limit.unwrap_or(u32::MAX));
        let mut harness = Harness { policy, ..Harness::just_started(live) };
        for observation in observed {
            if harness.seconds >= window {
                break;
            }
            let before = harness.workers.replicas;
            let decision = harness.step(observation.sample(harness.seconds));
            prop_assert!(decision.replicas >= before.min(max), "{before} before");
        }
    }

    #[test]
    fn unknown_backlog_never_scales_down(
        harness in harnesses(6), observed in proptest::collection::vec(incomplete_observations(), 1..6),
        silence in 0..100i64,
    ) {
        let mut harness = harness;
        let max = harness.policy.max.min(harness.policy.connection_limit.unwrap_or(u32::MAX));
        for observation in observed {
            let before = harness.workers.replicas;
            let decision = harness.observe(observation.sample(harness.seconds));
            prop_assert!(decision.replicas >= before.min(max), "{before} before");
            harness.apply(&decision);
            harness.seconds += silence;
            prop_assert!(harness.decide().replicas >= harness.workers.replicas.min(max), "after {silence} s");
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
        let observations = observed.into_iter().chain(empty);
        for observation in observations {
            let no_retry_is_near = |queue: Queue| queue.next_due.is_none_or(|due| due > 30);
            let is_idle =
                matches!(observation, Observation::Whole(queue) if queue.length == 0 && no_retry_is_near(queue));
            let is_incomplete = matches!(observation, Observation::Failure | Observation::LowerBound(_));
            if is_idle {
                idle_since = idle_since.or(Some(harness.seconds));
            } else if !is_incomplete {
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

//! What holds of every decision.

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

/// What a poll may find.
#[derive(Debug, Clone, Copy)]
enum Observation {
    Whole(Queue),
    LowerBound(Queue),
    Failure,
}

impl Observation {
    fn sample(self, seconds: i64) -> Sample {
        match self {
            Self::Whole(queue) => queue.whole(seconds),
            Self::LowerBound(queue) => queue.part(seconds),
            Self::Failure => failure(seconds),
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

fn looks() -> impl Strategy<Value = Observation> {
    prop_oneof![
        4 => queues().prop_map(Observation::Whole),
        1 => queues().prop_map(Observation::LowerBound),
        1 => Just(Observation::Failure),
    ]
}

fn unsure_looks() -> impl Strategy<Value = Observation> {
    prop_oneof![queues().prop_map(Observation::LowerBound), Just(Observation::Failure)]
}

/// A scene with a past: what was found at each poll, and done.
fn scenes(most: usize) -> impl Strategy<Value = Scene> {
    (policies(), 0..60u32, proptest::collection::vec(looks(), 0..most), any::<bool>()).prop_map(
        |(policy, live, past, learned)| {
            let mut scene = Scene { policy, ..Scene::with(live) };
            if learned {
                scene.history.learn(Learning::known(12.0, 7.0));
            }
            for look in past {
                scene.step(look.sample(scene.seconds));
            }
            scene
        },
    )
}

impl std::fmt::Debug for Scene {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { policy, history, workers, seconds } = self;
        write!(formatter, "{policy:?} {history:?} {} workers at {seconds}", workers.replicas)
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_longer_backlog_never_has_fewer_workers(
        policy in policies(), live in 0..60u32, learned: bool, queue in queues(), more in 0..5000u64, moments in 0..30i64,
    ) {
        let decided = |length: u64| {
            let mut scene = Scene { policy: policy.clone(), ..Scene::with(live) };
            if learned {
                scene.history.learn(Learning::known(3.0, 7.0));
            }
            scene.step(Queue { length: 50, ..queue }.whole(scene.seconds));
            scene.seconds += moments;
            scene.see(Queue { length, ..queue }.whole(scene.seconds)).replicas
        };
        let (short, long) = (decided(queue.length), decided(queue.length + more));
        prop_assert!(short <= long, "{short} workers, but {long} for {more} more tasks");
    }

    #[test]
    fn the_number_is_always_within_its_bounds(scene in scenes(6), look in looks()) {
        let mut scene = scene;
        let decision = scene.see(look.sample(scene.seconds));
        let most = scene.policy.max.min(scene.policy.connection_limit.unwrap_or(u32::MAX));
        prop_assert!(decision.replicas <= most);
        prop_assert!(decision.replicas >= scene.policy.min.min(most));
        prop_assert!(decision.message.len() <= 1024);
    }

    #[test]
    fn nothing_flaps_inside_the_tolerance(
        current in 1..60u32, strays in proptest::collection::vec(-100..=100i64, 1..12), tolerance in 0..=50u32,
    ) {
        let mut scene = Scene::with(current);
        scene.policy.max = 100;
        scene.policy.behavior.tolerance_percent = tolerance;
        scene.policy.behavior.scale_down.stabilization_window_seconds = 0;
        for stray in strays {
            let exact = i64::from(current) * 100;
            let backlog = exact + exact * i64::from(tolerance) * stray / 10_000;
            let decision = scene.step(Queue::of(backlog.cast_unsigned()).whole(scene.seconds));
            prop_assert_eq!(decision.replicas, current, "backlog {}", backlog);
        }
    }

    #[test]
    fn a_restart_never_scales_down_inside_a_window(
        policy in policies(), live in 0..60u32, found in proptest::collection::vec(looks(), 1..12),
    ) {
        let window = i64::from(policy.behavior.scale_down.stabilization_window_seconds);
        let most = policy.max.min(policy.connection_limit.unwrap_or(u32::MAX));
        let mut scene = Scene { policy, ..Scene::just_started(live) };
        for look in found {
            if scene.seconds >= window {
                break;
            }
            let before = scene.workers.replicas;
            let decision = scene.step(look.sample(scene.seconds));
            prop_assert!(decision.replicas >= before.min(most), "{before} before");
        }
    }

    #[test]
    fn what_is_unknown_never_scales_down(
        scene in scenes(6), found in proptest::collection::vec(unsure_looks(), 1..6), silence in 0..100i64,
    ) {
        let mut scene = scene;
        let most = scene.policy.max.min(scene.policy.connection_limit.unwrap_or(u32::MAX));
        for look in found {
            let before = scene.workers.replicas;
            let decision = scene.see(look.sample(scene.seconds));
            prop_assert!(decision.replicas >= before.min(most), "{before} before");
            scene.act(&decision);
            scene.seconds += silence;
            prop_assert!(scene.decide().replicas >= scene.workers.replicas.min(most), "after {silence} s");
        }
    }

    #[test]
    fn nobody_is_left_only_after_one_was_and_nothing_was_owed_all_the_idle_time(
        idle in 10..100i64, found in proptest::collection::vec(looks(), 1..5), quiet in 0..20usize,
    ) {
        let mut scene = Scene::with(3);
        scene.policy.idle = SignedDuration::from_secs(idle);
        scene.policy.behavior.scale_down = ScalingRules { stabilization_window_seconds: 0, percent: 90, workers: 50, period_seconds: 1 };
        let mut quiet_since = None;
        let looks = found.into_iter().chain(std::iter::repeat_n(Observation::Whole(Queue::default()), quiet));
        for look in looks {
            let is_quiet = matches!(look, Observation::Whole(queue) if queue.length == 0 && queue.next_due.is_none_or(|due| due > 30));
            let may_be = matches!(look, Observation::Failure | Observation::LowerBound(_));
            if is_quiet {
                quiet_since = quiet_since.or(Some(scene.seconds));
            } else if !may_be {
                quiet_since = None;
            }
            let (before, now) = (scene.workers.replicas, scene.seconds);
            let decision = scene.step(look.sample(scene.seconds));
            if decision.replicas == 0 && before > 0 {
                prop_assert_eq!(before, 1);
                prop_assert!(is_quiet && quiet_since.is_some_and(|since| now - since >= idle));
            }
        }
    }
}

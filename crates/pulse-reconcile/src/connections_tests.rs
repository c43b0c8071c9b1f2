//! A model of the Deployment controller, of kubelets and of the operator, and the sum of all connections in it.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use pulse_crd::fixture::pulse_ingest;
use serde_json::json;

use super::*;

/// Grace period of every pod, in seconds, and its time to be available.
const GRACE: i64 = 75;
const TOTAL: u32 = 300;

#[derive(Clone)]
struct ModelPod {
    template: u32,
    connections: u32,
    /// When it became ready.
    ready: Option<i64>,
    /// When it ends, once it terminates.
    ends: Option<i64>,
}

/// A Deployment with `maxSurge` 25 %, `maxUnavailable` 0 and `minReadySeconds`, and its pods.
#[derive(Clone, Default)]
struct Model {
    replicas: u32,
    template: u32,
    connections: u32,
    pods: Vec<ModelPod>,
}

impl Model {
    fn count(&self, counts: impl Fn(&ModelPod) -> bool) -> u32 {
        self.pods.iter().filter(|pod| pod.ends.is_none() && counts(pod)).count() as u32
    }

    /// Stops `count` of the pods that `which` admits, those that are not ready first.
    fn stop(&mut self, count: u32, now: i64, which: impl Fn(&ModelPod) -> bool) {
        let mut stopped: Vec<&mut ModelPod> =
            self.pods.iter_mut().filter(|pod| pod.ends.is_none() && which(pod)).collect();
        stopped.sort_by_key(|pod| pod.ready.is_some());
        stopped.into_iter().take(count as usize).for_each(|pod| pod.ends = Some(now + GRACE));
    }

    /// As `syncRollingUpdate` of kube-controller-manager.
    fn sync(&mut self, now: i64) {
        let (wanted, template) = (self.replicas, self.template);
        let is_new = move |pod: &ModelPod| pod.template == template;
        let is_available = move |pod: &ModelPod| pod.ready.is_some_and(|ready| now - ready >= GRACE);
        let old = self.count(|pod| !is_new(pod));
        let most = wanted + if old > 0 { surge(wanted) } else { 0 };
        self.stop(self.count(|_| true).saturating_sub(most), now, |_| true);
        let live = self.count(|_| true);
        let missing = wanted.saturating_sub(self.count(is_new));
        for _ in 0..missing.min((wanted + surge(wanted)).saturating_sub(live)) {
            self.pods.push(ModelPod { template, connections: self.connections, ready: None, ends: None });
        }
        let live = self.count(|_| true);
        let new_unavailable = self.count(|pod| is_new(pod) && !is_available(pod));
        let unhealthy = self.count(|pod| !is_new(pod) && !is_available(pod));
        let cleaned = unhealthy.min(live.saturating_sub(wanted + new_unavailable));
        self.stop(cleaned, now, |pod| !is_new(pod) && !is_available(pod));
        let surplus = self.count(is_available).saturating_sub(wanted);
        self.stop(surplus.min(self.count(|pod| !is_new(pod))), now, |pod| !is_new(pod) && is_available(pod));
    }

    /// Kubelets: some pods become ready, are not ready any more, or end early.
    fn run(&mut self, now: i64, luck: u32) {
        for (index, pod) in self.pods.iter_mut().enumerate() {
            match (luck / 7 + index as u32 * 31) % 5 {
                0 | 1 if pod.ready.is_none() => pod.ready = Some(now),
                2 if luck.is_multiple_of(11) => pod.ready = None,
                3 => pod.ends = pod.ends.map(|_| now),
                _ => {}
            }
        }
        self.pods.retain(|pod| pod.ends.is_none_or(|ends| ends > now));
    }

    fn observed(&self) -> (Arc<Deployment>, Vec<Arc<Pod>>) {
        let metadata = |connections: u32, ends: Option<i64>| ObjectMeta {
            annotations: Some([(CONNECTIONS.to_owned(), connections.to_string())].into()),
            deletion_timestamp: ends.map(|ends| Time(at(ends))),
            ..ObjectMeta::default()
        };
        let template = PodTemplateSpec { metadata: Some(metadata(self.connections, None)), spec: None };
        let replicas = Some(self.replicas.cast_signed());
        let spec = DeploymentSpec { replicas, template, ..DeploymentSpec::default() };
        let pods = self
            .pods
            .iter()
            .map(|pod| Arc::new(Pod { metadata: metadata(pod.connections, pod.ends), ..Pod::default() }));
        (Arc::new(Deployment { spec: Some(spec), ..Deployment::default() }), pods.collect())
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

/// The cluster: the Deployments, what the user asks for, and the time.
struct TestEnv {
    cr: PulseIngest,
    roles: BTreeMap<Role, Model>,
    /// The template that each role should have.
    template: u32,
    workers: u32,
    now: i64,
}

impl TestEnv {
    fn new() -> Self {
        let cr = pulse_ingest(json!({ "database": { "maxConnectionsTotal": TOTAL }, "api": { "replicas": 2 } }));
        let mut env = Self { cr, roles: BTreeMap::new(), template: 1, workers: 1, now: 0 };
        for (role, replicas) in [(Role::Api, 2), (Role::Worker, 1), (Role::Scheduler, 1), (Role::Console, 0)] {
            let connections = per_pod(&env.cr.spec, role);
            env.roles.insert(role, Model { replicas, template: 1, connections, pods: Vec::new() });
        }
        env
    }

    fn used(&self) -> Use {
        let mut observed = Observed::default();
        for (role, model) in &self.roles {
            let (deployment, pods) = model.observed();
            observed.deployments.insert(*role, deployment);
            observed.pods.insert(*role, pods);
        }
        Use::of(&self.cr, &observed, at(self.now)).expect("a budget")
    }

    /// Whether the spec fits with one worker; if not, the budget is exceeded by design.
    fn fits(spec: &PulseIngestSpec) -> bool {
        let roles = fixed(spec, api_replicas(spec, &Observed::default()));
        let others: u32 = roles.into_iter().map(|(role, count)| per_pod(spec, role) * most_pods(count)).sum();
        others + per_pod(spec, Role::Worker) * most_pods(1) + RESERVED <= TOTAL
    }

    fn change(&mut self, action: u8, value: u32) {
        let mut spec = self.cr.spec.clone();
        match action {
            0 => self.template += 1,
            1 => self.workers = value % 60,
            2 => spec.api.replicas = 1 + value % 8,
            3 => spec.workers.database_pool_size = 1 + value % 12,
            4 => spec.api.database_pool_size = 1 + value % 16,
            5 => spec.scheduler.replicas = 1 + value % 3,
            6 => spec.console.enabled = !spec.console.enabled,
            7 => spec.console.replicas = 1 + value % 5,
            _ => {}
        }
        if Self::fits(&spec) {
            self.cr.spec = spec;
        }
    }

    /// As the reconcile does it: templates, then fixed numbers of pods, then workers.
    fn reconcile(&mut self) {
        let used = self.used();
        for role in Role::ALL {
            let (connections, template) = (per_pod(&self.cr.spec, role), self.template);
            let model = self.roles.get_mut(&role).expect("all roles");
            let differs = model.template < template || model.connections != connections;
            if differs && !used.holds(role, false) {
                // A pool size is a part of the template, so a change of it is another one.
                model.template = template.max(model.template + 1);
                self.template = self.template.max(model.template);
                model.connections = connections;
            }
        }
        for (role, wanted) in fixed(&self.cr.spec, self.cr.spec.api.replicas) {
            let model = self.roles.get_mut(&role).expect("all roles");
            let held = if wanted > model.replicas { used.holds(role, true) } else { used.holds_removal(role) };
            if !held {
                model.replicas = wanted;
            }
        }
        let room = used.room_for_workers();
        let workers = self.roles.get_mut(&Role::Worker).expect("all roles");
        let floor = if used.holds_removal(Role::Worker) { workers.replicas } else { 0 };
        workers.replicas = self.workers.min(room).max(floor);
    }

    /// Changes something after some seconds, and returns the number of connections afterwards.
    fn step(&mut self, (action, value, seconds): (u8, u32, i64)) -> u32 {
        self.now += seconds;
        self.change(action, value);
        self.reconcile();
        for model in self.roles.values_mut() {
            model.run(self.now, value);
            model.sync(self.now);
        }
        self.connections()
    }

    fn describe(&self) -> String {
        let role = |(role, model): (&Role, &Model)| {
            let Model { replicas, template, connections, pods } = model;
            let ending = pods.iter().filter(|pod| pod.ends.is_some()).count();
            format!(
                "{role:?}: {replicas} wanted of template {template} with {connections}, {} pods, {ending} end",
                pods.len()
            )
        };
        self.roles.iter().map(role).collect::<Vec<_>>().join("; ")
    }

    fn connections(&self) -> u32 {
        self.roles.values().flat_map(|model| &model.pods).map(|pod| pod.connections).sum()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn budget_holds_through_every_rollout_and_change(
        steps in proptest::collection::vec((0u8..24, any::<u32>(), 0i64..40), 1..150),
    ) {
        let mut env = TestEnv::new();
        for (number, step) in steps.into_iter().enumerate() {
            let used = env.step(step);
            prop_assert!(used + RESERVED <= TOTAL, "{used} connections after step {number}: {}", env.describe());
        }
    }

    #[test]
    fn workers_within_is_the_largest_number_that_fits(pods in 3u32..2000) {
        let workers = workers_within(pods);
        prop_assert!(most_pods(workers) <= pods && most_pods(workers + 1) > pods, "{workers}");
    }
}

#[test]
fn production_sample_can_have_all_its_workers() {
    let sample = include_str!("../../../manifests/samples/production.yaml");
    let sample: PulseIngest = pulse_crd::yaml::read(sample).expect("the sample is valid");
    let scaling = sample.spec.workers.autoscaling.as_ref().expect("autoscaling");
    let budget = max_workers(&sample.spec, sample.spec.api.replicas).expect("a budget");
    assert!(budget >= scaling.max_replicas.expect("a maximum"));
}

#[test]
fn terminating_pods_and_pods_with_more_connections_leave_less_room() {
    let mut env = TestEnv::new();
    let room = env.used().room_for_workers();
    assert_eq!(room, 24, "(300 - 4 - 4 × 14 - 3 × 4) / 6 = 37 pods: 24 workers, and 12 more in a rollout");
    let workers = env.roles.get_mut(&Role::Worker).expect("workers");
    let ending = ModelPod { template: 1, connections: 6, ready: None, ends: Some(GRACE) };
    workers.pods = vec![ending; 20];
    assert!(env.used().room_for_workers() < room);
    assert!(env.used().holds(Role::Worker, false) && !env.used().holds(Role::Api, false));
    env.change(2, 7);
    assert!(env.used().holds(Role::Api, true), "further API pods have to wait for them");
    env.now = GRACE + 10;
    assert!(!env.used().holds(Role::Worker, true), "a lost node keeps its pods for ever");
}

#[test]
fn console_counts_with_its_pool_only_while_it_is_enabled() {
    let room = |console| {
        max_workers(&pulse_ingest(json!({ "database": { "maxConnectionsTotal": TOTAL }, "console": console })).spec, 2)
    };
    let off = json!({ "enabled": false, "replicas": 5 });
    assert_eq!((room(json!({})), room(off)), (Some(24), Some(24)));
    assert_eq!(room(json!({ "enabled": true })), Some(22), "(300 - 4 - 4 × 14 - 3 × 4 - 3 × 8) / 6 = 34 pods");
}

#[test]
fn budget_holds_when_fewer_pods_are_wanted_in_a_rollout() {
    let mut env = TestEnv::new();
    for step in [
        (1, 2496743, 0),
        (5, 198688445, 0),
        (7, 2285868480, 0),
        (7, 1277, 1),
        (5, 55207307, 30),
        (0, 2193707153, 1),
        (0, 601490561, 14),
        (7, 2168370295, 1),
        (2, 53484136, 28),
        (0, 2966074111, 0),
    ] {
        let used = env.step(step);
        assert!(used + RESERVED <= TOTAL, "{used} connections after {step:?}: {}", env.describe());
    }
}

//! Records the wanted replicas and the state of the workers during a test.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use redis::Value;
use tokio::task::JoinSet;

use crate::node_env::NodeEnv;

/// Time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(200);
/// A removed worker counts as busy or idle only if it was so for this long, because the operator's last sample may be
/// that old.
const RECENT: Duration = Duration::from_secs(2);

/// Watches the workers until it is dropped.
pub(crate) struct WorkerWatch {
    observed: Arc<Mutex<Observations>>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

#[derive(Default)]
struct Observations {
    /// The successive values of `spec.replicas`.
    replicas: Vec<i32>,
    samples: Vec<WorkerSample>,
}

/// The workers at one time.
#[derive(Clone)]
struct WorkerSample {
    at: Instant,
    /// Tasks in flight by pod; none if Redis did not answer.
    in_flight: Option<BTreeMap<String, u64>>,
    ready: BTreeSet<String>,
    terminating: BTreeSet<String>,
}

impl WorkerWatch {
    /// Starts the watch.
    pub(crate) fn start(env: &NodeEnv) -> anyhow::Result<Self> {
        let observed = Arc::new(Mutex::new(Observations::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_replicas(env.api(), observed.clone()));
        let stream = format!("pulse:{{{}/main}}:tasks", env.namespace);
        let redis = redis::Client::open(env.servers.redis_url.as_str())?;
        tasks.spawn(sample_workers(env.api(), redis, stream, observed.clone()));
        Ok(Self { observed, _tasks: tasks })
    }

    /// The successive values of `spec.replicas` of the workers' Deployment.
    pub(crate) fn replicas(&self) -> Vec<i32> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner).replicas.clone()
    }

    /// The pods that have tasks in flight.
    pub(crate) fn busy(&self) -> Vec<String> {
        let observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        let in_flight = observed.samples.last().and_then(|sample| sample.in_flight.clone()).unwrap_or_default();
        in_flight.into_iter().filter(|(_, tasks)| *tasks > 0).map(|(pod, _)| pod).collect()
    }

    /// The number of removed workers, and a message for each busy worker that was removed while an idle one was kept.
    pub(crate) fn removals(&self) -> (usize, Vec<String>) {
        let samples = self.observed.lock().unwrap_or_else(PoisonError::into_inner).samples.clone();
        let (mut count, mut violations) = (0, Vec::new());
        for (index, sample) in samples.iter().enumerate().skip(1) {
            for removed in sample.terminating.difference(&samples[index - 1].terminating) {
                count += 1;
                let recent: Vec<&WorkerSample> =
                    samples[..index].iter().rev().take_while(|before| sample.at - before.at < RECENT).collect();
                let always = |pod: &String, busy: bool| {
                    recent.iter().all(|sample| {
                        let in_flight = sample.in_flight.as_ref().map(|pods| pods.get(pod).copied().unwrap_or(0));
                        sample.ready.contains(pod) && in_flight.is_some_and(|tasks| (tasks > 0) == busy)
                    })
                };
                let idle = sample.ready.iter().filter(|pod| always(pod, false)).collect::<Vec<_>>();
                if always(removed, true) && !idle.is_empty() {
                    violations
                        .push(format!("{removed} was removed with tasks in flight, and the idle {idle:?} were kept"));
                }
            }
        }
        (count, violations)
    }
}

async fn watch_replicas(deployments: Api<Deployment>, observed: Arc<Mutex<Observations>>) -> anyhow::Result<()> {
    let params = WatchParams::default().fields("metadata.name=main-worker").timeout(290);
    let mut events = deployments.watch(&params, "0").await?.boxed();
    while let Some(event) = events.try_next().await? {
        let (WatchEvent::Added(deployment) | WatchEvent::Modified(deployment)) = event else { continue };
        let Some(replicas) = deployment.spec.and_then(|spec| spec.replicas) else { continue };
        let mut observed = observed.lock().unwrap_or_else(PoisonError::into_inner);
        if observed.replicas.last() != Some(&replicas) {
            observed.replicas.push(replicas);
        }
    }
    anyhow::bail!("the watch has ended")
}

async fn sample_workers(
    pods: Api<Pod>,
    redis: redis::Client,
    stream: String,
    observed: Arc<Mutex<Observations>>,
) -> anyhow::Result<()> {
    let workers = ListParams::default().labels("app.kubernetes.io/component=worker");
    loop {
        let in_flight = in_flight(&redis, &stream).await.ok();
        let pods = pods.list(&workers).await?.items;
        let (terminating, running): (Vec<_>, Vec<_>) =
            pods.into_iter().partition(|pod| pod.metadata.deletion_timestamp.is_some());
        let sample = WorkerSample {
            at: Instant::now(),
            in_flight,
            ready: running.iter().filter(|pod| is_ready(pod)).map(ResourceExt::name_any).collect(),
            terminating: terminating.iter().map(ResourceExt::name_any).collect(),
        };
        observed.lock().unwrap_or_else(PoisonError::into_inner).samples.push(sample);
        tokio::time::sleep(SAMPLE_INTERVAL).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Tasks in flight by pod. A consumer's name is `<pod>.<boot id>`.
async fn in_flight(redis: &redis::Client, stream: &str) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut connection = redis.get_multiplexed_async_connection().await?;
    let mut query = redis::cmd("XINFO");
    query.arg("CONSUMERS").arg(stream).arg("workers");
    let consumers: Vec<BTreeMap<String, Value>> = query.query_async(&mut connection).await?;
    let mut pods = BTreeMap::new();
    for mut consumer in consumers {
        let mut field = |name: &str| consumer.remove(name).unwrap_or(Value::Nil);
        let (name, pending): (String, u64) =
            (redis::from_redis_value(field("name"))?, redis::from_redis_value(field("pending"))?);
        let pod = name.rsplit_once('.').map_or(name.as_str(), |(pod, _)| pod);
        *pods.entry(pod.to_owned()).or_default() += pending;
    }
    Ok(pods)
}

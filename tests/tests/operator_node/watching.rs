//! What happened to the workers while a test went on.

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

use crate::site::NodeEnv;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// A worker was busy or idle if it was so for this long: the operator's last sample may be as old.
const LATELY: Duration = Duration::from_secs(2);

/// Watches until it is dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<anyhow::Result<()>>,
}

#[derive(Default)]
struct Seen {
    /// Each number of workers that was wanted, in order.
    replicas: Vec<i32>,
    looks: Vec<Look>,
}

/// The workers at one time.
#[derive(Clone)]
struct Look {
    at: Instant,
    /// Tasks in flight by pod; none if Redis was away.
    in_flight: Option<BTreeMap<String, u64>>,
    ready: BTreeSet<String>,
    going: BTreeSet<String>,
}

impl Watch {
    /// Begins.
    pub(crate) fn start(site: &NodeEnv) -> anyhow::Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut tasks = JoinSet::new();
        tasks.spawn(replicas(site.all(), seen.clone()));
        let stream = format!("pulse:{{{}/main}}:tasks", site.namespace);
        let redis = redis::Client::open(site.world.redis_url.as_str())?;
        tasks.spawn(looks(site.all(), redis, stream, seen.clone()));
        Ok(Self { seen, _tasks: tasks })
    }

    /// Each number of workers that was wanted, in order.
    pub(crate) fn replicas(&self) -> Vec<i32> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).replicas.clone()
    }

    /// The pods that have tasks in flight.
    pub(crate) fn busy(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let in_flight = seen.looks.last().and_then(|look| look.in_flight.clone()).unwrap_or_default();
        in_flight.into_iter().filter(|(_, tasks)| *tasks > 0).map(|(pod, _)| pod).collect()
    }

    /// How many workers were told to go, and a sentence for each that was busy while another one, which stayed, was not.
    pub(crate) fn victims(&self) -> (usize, Vec<String>) {
        let looks = self.seen.lock().unwrap_or_else(PoisonError::into_inner).looks.clone();
        let (mut count, mut wrong) = (0, Vec::new());
        for (index, look) in looks.iter().enumerate().skip(1) {
            for victim in look.going.difference(&looks[index - 1].going) {
                count += 1;
                let lately: Vec<&Look> =
                    looks[..index].iter().rev().take_while(|before| look.at - before.at < LATELY).collect();
                let always = |pod: &String, busy: bool| {
                    lately.iter().all(|look| {
                        let in_flight = look.in_flight.as_ref().map(|pods| pods.get(pod).copied().unwrap_or(0));
                        look.ready.contains(pod) && in_flight.is_some_and(|tasks| (tasks > 0) == busy)
                    })
                };
                let idle = look.ready.iter().filter(|pod| always(pod, false)).collect::<Vec<_>>();
                if always(victim, true) && !idle.is_empty() {
                    wrong.push(format!("{victim} went with work in flight, and {idle:?} stayed without any"));
                }
            }
        }
        (count, wrong)
    }
}

async fn replicas(deployments: Api<Deployment>, seen: Arc<Mutex<Seen>>) -> anyhow::Result<()> {
    let params = WatchParams::default().fields("metadata.name=main-worker").timeout(290);
    let mut events = deployments.watch(&params, "0").await?.boxed();
    while let Some(event) = events.try_next().await? {
        let (WatchEvent::Added(deployment) | WatchEvent::Modified(deployment)) = event else { continue };
        let Some(replicas) = deployment.spec.and_then(|spec| spec.replicas) else { continue };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.replicas.last() != Some(&replicas) {
            seen.replicas.push(replicas);
        }
    }
    anyhow::bail!("the watch has ended")
}

async fn looks(pods: Api<Pod>, redis: redis::Client, stream: String, seen: Arc<Mutex<Seen>>) -> anyhow::Result<()> {
    let workers = ListParams::default().labels("app.kubernetes.io/component=worker");
    loop {
        let in_flight = in_flight(&redis, &stream).await.ok();
        let pods = pods.list(&workers).await?.items;
        let (going, staying): (Vec<_>, Vec<_>) =
            pods.into_iter().partition(|pod| pod.metadata.deletion_timestamp.is_some());
        let look = Look {
            at: Instant::now(),
            in_flight,
            ready: staying.iter().filter(|pod| is_ready(pod)).map(ResourceExt::name_any).collect(),
            going: going.iter().map(ResourceExt::name_any).collect(),
        };
        seen.lock().unwrap_or_else(PoisonError::into_inner).looks.push(look);
        tokio::time::sleep(LOOK).await;
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Tasks in flight by pod: a consumer is called `<pod>.<boot id>`.
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

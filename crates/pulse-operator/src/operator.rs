//! The operator process: watches, leader election, and reconciles while it is the leader.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::controller::{Action, Config as ApplierConfig, applier};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, Config};
use pulse_crd::PulseIngest;
use pulse_crd::names::MANAGER;
use pulse_reconcile::intervals::Intervals;
use pulse_reconcile::secrets::{DIGEST_SECRET, DIGEST_SECRET_KEY, DigestKey};
use pulse_reconcile::seen::Settings;
use tokio_util::sync::CancellationToken;

use crate::caches::Caches;
use crate::client::{self, WriteGuard};
use crate::context::Context;
use crate::controller::reconcile;
use crate::instances::{Readable, reference};
use crate::job_rejections::EventBudget;
use crate::lease::{Elector, Leadership, LeaseConfig};
use crate::metrics::OperatorMetrics;
use crate::openapi;
use crate::progress::WatchProgress;
use crate::rollout_queue::RolloutQueue;
use crate::scaling::{AllowedHosts, Key, Samplers};
use crate::watches::{Trigger, Watches};

/// Maximum number of concurrent reconciles, each of another object.
const CONCURRENCY: u16 = 16;
/// Changes of one object within this time cause one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Time for running reconciles to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(20);
/// Configuration of an operator.
#[derive(Debug, Clone)]
pub struct OperatorConfig {
    /// Namespaces to watch; empty watches all namespaces.
    pub namespaces: Vec<String>,
    /// Leader election. Its namespace is the operator's.
    pub lease: LeaseConfig,
    /// Intervals of the reconcile.
    pub intervals: Intervals,
    /// Duration of one watch request, in seconds.
    pub watch_timeout_seconds: u32,
    /// Maximum number of instances that roll out at once; `None` without a limit.
    pub max_concurrent_rollouts: Option<usize>,
    /// Image pull secrets of every created pod, besides those that its object names.
    pub pull_secrets: Vec<String>,
    /// Hosts of Redis that the operator may connect to.
    pub redis_allowed_hosts: AllowedHosts,
    /// For development: folder in which every created pod looks for newer builds of its program.
    pub dev_reload: Option<PathBuf>,
}

/// Health of the operator, for the probes. Cheap to clone.
#[derive(Clone)]
pub struct OperatorHealth {
    progress: WatchProgress,
    silent_after: Duration,
    synced: Arc<AtomicBool>,
}

impl OperatorHealth {
    /// The reason why the operator is not live; a restart may help. `None` if it is live.
    pub fn problem(&self) -> Option<String> {
        let (kind, age) = self.progress.oldest()?;
        (age > self.silent_after).then(|| format!("the watch of {kind} made no progress for {} s", age.as_secs()))
    }

    /// Whether the caches are filled: the operator leads, or could take over at once.
    pub fn is_ready(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }
}

/// Connection settings of the API server, from the pod's service account or from `KUBECONFIG`.
#[derive(Clone)]
pub struct Kubernetes(Config);

impl Kubernetes {
    /// Reads the settings from `KUBECONFIG`, `~/.kube/config` or the pod's service account.
    ///
    /// # Errors
    /// [`OperatorError::NoCluster`] if none of them exists or can be read.
    pub async fn infer() -> Result<Self, OperatorError> {
        let config = Config::infer().await.map_err(|error| OperatorError::NoCluster(Box::new(error)))?;
        Ok(Self(config))
    }

    /// A client that may write without being the leader, and that is not counted in the metrics.
    pub(crate) fn client(&self) -> Result<Client, kube::Error> {
        Client::try_from(self.0.clone())
    }

    /// The namespace of the pod, or of the kubeconfig's context.
    pub fn namespace(&self) -> &str {
        &self.0.default_namespace
    }
}

/// An operator, ready to run.
pub struct Operator {
    config: OperatorConfig,
    kubernetes: Kubernetes,
    metrics: OperatorMetrics,
    health: OperatorHealth,
}

/// Errors that end an operator.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is neither a service account nor a usable kubeconfig.
    #[error("no cluster: run in a pod with a service account, or set KUBECONFIG: {0}")]
    NoCluster(Box<kube::config::InferConfigError>),
    /// The client cannot be created.
    #[error("cannot create a Kubernetes client")]
    Client(#[source] kube::Error),
    /// Another operator leads, or the Lease was not renewed in time.
    #[error("lost the leadership: another operator leads, or the API server did not answer in time")]
    LostLeadership,
    /// The Secret with the digest key cannot be read or created.
    #[error("cannot read or create the Secret {DIGEST_SECRET}")]
    DigestKey(#[source] kube::Error),
    /// The Secret with the digest key exists, but without its key.
    #[error("the Secret {DIGEST_SECRET} has no {DIGEST_SECRET_KEY}: delete it; a new one restarts every pod once")]
    NoDigestKey,
}

impl Operator {
    /// Creates an operator; [`Operator::run`] starts it.
    pub fn new(config: OperatorConfig, kubernetes: Kubernetes, metrics: OperatorMetrics) -> Self {
        let health = OperatorHealth {
            progress: metrics.progress.clone(),
            silent_after: Duration::from_secs(u64::from(config.watch_timeout_seconds) * 2),
            synced: Arc::default(),
        };
        Self { config, kubernetes, metrics, health }
    }

    /// The health of this operator, for the probes.
    pub fn health(&self) -> OperatorHealth {
        self.health.clone()
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// [`OperatorError`]: end the process then, and start a new one.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), OperatorError> {
        let leadership = Leadership::new(&self.config.lease);
        let client = self.client(client::always())?;
        let held = leadership.clone();
        let guarded = self.client(Arc::new(move || held.remaining()))?;
        let (trigger, mut triggered) = tokio::sync::mpsc::unbounded_channel();
        let caches = self.watch(client.clone(), trigger.clone(), shutdown.clone());
        let mut elector = Elector::new(self.config.lease.clone(), client, leadership);
        tokio::select! {
            () = synced(&caches) => self.health.synced.store(true, Ordering::Relaxed),
            () = shutdown.cancelled() => return Ok(()),
        }
        tokio::select! {
            () = elector.acquire(&shutdown) => {}
            // Discards triggers while on standby, so that the queue does not grow. Every object is reconciled on
            // election.
            () = discard(&mut triggered) => {}
        }
        if shutdown.is_cancelled() {
            elector.release().await;
            return Ok(());
        }
        self.metrics.leader.set(1);
        let metrics = self.metrics.clone();
        // A separate task renews the Lease, so that a long call does not cost the leadership. It runs until the last
        // reconcile has ended.
        let released = CancellationToken::new();
        let mut renewing = tokio::spawn({
            let released = released.clone();
            async move {
                elector.renew(&released).await;
                elector
            }
        });
        let context = self.context(guarded, caches.clone(), trigger).await?;
        let ended = CancellationToken::new();
        let mut reconciles = tokio::spawn(reconciles(caches, triggered, context, ended.clone()));
        let lost = tokio::select! {
            _ = &mut renewing => true,
            () = shutdown.cancelled() => false,
        };
        metrics.leader.set(0);
        ended.cancel();
        if lost {
            // Aborts running reconciles at once: another operator may lead soon.
            reconciles.abort();
            return Err(OperatorError::LostLeadership);
        }
        if tokio::time::timeout(DRAIN, &mut reconciles).await.is_err() {
            tracing::warn!("reconciles did not finish in time and are aborted");
            reconciles.abort();
        }
        released.cancel();
        if let Ok(mut elector) = renewing.await {
            elector.release().await;
        }
        Ok(())
    }

    fn client(&self, write_guard: WriteGuard) -> Result<Client, OperatorError> {
        let (config, progress) = (self.kubernetes.0.clone(), self.health.progress.clone());
        client::client(config, write_guard, progress, self.metrics.clone()).map_err(OperatorError::Client)
    }

    /// Starts the watches, which trigger reconciles until `shutdown`.
    fn watch(&self, client: Client, trigger: Trigger, shutdown: CancellationToken) -> Caches {
        let watches = Watches {
            client,
            namespaces: if self.config.namespaces.is_empty() {
                vec![None]
            } else {
                self.config.namespaces.iter().cloned().map(Some).collect()
            },
            timeout_seconds: self.config.watch_timeout_seconds,
            progress: self.health.progress.clone(),
            trigger,
            shutdown,
        };
        watches.start()
    }

    /// Prepares the reconciles of a leader.
    async fn context(self, client: Client, caches: Caches, trigger: Trigger) -> Result<Arc<Context>, OperatorError> {
        let Self { config, metrics, .. } = self;
        let (sampled, samples) = tokio::sync::mpsc::channel(10_000);
        tokio::spawn(reconcile_on_sample(samples, trigger.clone()));
        let reader = openapi::Reader {
            client: client.clone(),
            intervals: config.intervals.clone(),
            metrics: metrics.clone(),
            caches: caches.clone(),
            trigger: trigger.clone(),
        };
        let served = reader.start().await;
        let identity = format!("{}/{}", config.lease.namespace, config.lease.name);
        let digest_key = digest_key(&client, &config.lease.namespace).await?;
        let reporter = Reporter { controller: MANAGER.into(), instance: Some(config.lease.identity) };
        let samplers = Samplers::new(config.intervals.poll, config.redis_allowed_hosts, sampled);
        Ok(Arc::new(Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            caches,
            identity,
            settings: Arc::new(Settings { digest_key, dev_reload: config.dev_reload, intervals: config.intervals }),
            served,
            samplers,
            pull_secrets: config.pull_secrets,
            metrics,
            rollout_queue: RolloutQueue::new(config.max_concurrent_rollouts),
            event_budget: EventBudget::default(),
            trigger,
            objects: Mutex::new(HashMap::new()),
        }))
    }
}

async fn reconciles(
    caches: Caches,
    triggered: tokio::sync::mpsc::UnboundedReceiver<ObjectRef<PulseIngest>>,
    context: Arc<Context>,
    ended: CancellationToken,
) {
    let all: Vec<_> = caches.objects.store().state().iter().map(|object| reference(object)).collect();
    let later =
        futures_util::stream::unfold(triggered, async |mut triggered| Some((triggered.recv().await?, triggered)));
    let queue = futures_util::stream::iter(all)
        .chain(later)
        .take_until(ended.cancelled_owned())
        .map(Ok::<_, std::convert::Infallible>);
    let settings = ApplierConfig::default().concurrency(CONCURRENCY).debounce(DEBOUNCE);
    let never = |_: Arc<Readable>, error: &std::convert::Infallible, _: Arc<Context>| -> Action { match *error {} };
    let applier = applier(
        |object, context| Box::pin(reconcile(object, context)),
        never,
        context.clone(),
        caches.objects.store(),
        queue.map(|item| item.map(Request)),
        settings,
    );
    let forget_deleted = async |result| {
        if let Err(kube::runtime::controller::Error::ObjectNotFound(deleted)) = result {
            context.forget(deleted.namespace.as_deref().unwrap_or_default(), &deleted.name);
        }
    };
    applier.for_each(forget_deleted).await;
}

/// Discards everything that arrives. Never returns.
async fn discard<T>(triggered: &mut tokio::sync::mpsc::UnboundedReceiver<T>) {
    while triggered.recv().await.is_some() {}
    std::future::pending().await
}

async fn reconcile_on_sample(mut samples: tokio::sync::mpsc::Receiver<Key>, trigger: Trigger) {
    while let Some(Key { namespace, name, uid: _ }) = samples.recv().await {
        // Fails only at shutdown, when the receiver is dropped.
        let _ = trigger.send(ObjectRef::new(&name).within(&namespace));
    }
}

/// An item of the applier's queue. kube's own type also has a reason, which is always `Unknown` here.
struct Request(ObjectRef<PulseIngest>);

impl From<Request> for kube::runtime::controller::ReconcileRequest<Readable> {
    fn from(Request(object): Request) -> Self {
        Self::from(object.into_kind_unchecked(()))
    }
}

async fn synced(caches: &Caches) {
    let Caches { objects, deployments, jobs, pods, services, service_accounts, disruption_budgets } = caches;
    // An error means that a watch has ended, which happens only at shutdown.
    let _ = tokio::join!(
        objects.wait_until_ready(),
        deployments.wait_until_ready(),
        jobs.wait_until_ready(),
        pods.wait_until_ready(),
        services.wait_until_ready(),
        service_accounts.wait_until_ready(),
        disruption_budgets.wait_until_ready(),
    );
}

/// Reads the key of the Secret digests, or creates it. It must survive a restart: with a new key, every pod is
/// replaced.
async fn digest_key(client: &Client, namespace: &str) -> Result<DigestKey, OperatorError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    loop {
        if let Some(secret) = api.get_opt(DIGEST_SECRET).await.map_err(OperatorError::DigestKey)? {
            return DigestKey::of(secret).ok_or(OperatorError::NoDigestKey);
        }
        let key: [u8; 32] = rand::random();
        let secret = Secret {
            metadata: ObjectMeta { name: Some(DIGEST_SECRET.into()), ..ObjectMeta::default() },
            data: Some([(DIGEST_SECRET_KEY.to_owned(), ByteString(key.to_vec()))].into()),
            immutable: Some(true),
            ..Secret::default()
        };
        match api.create(&PostParams::default(), &secret).await {
            Ok(_) => {}
            // Another operator was faster: its key is read in the next iteration.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(OperatorError::DigestKey(error)),
        }
    }
}

//! The process: watches, leadership, and reconciles for as long as we lead.

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
use tokio_util::sync::CancellationToken;

use crate::client;
use crate::controller::{Context, Intervals, reconcile};
use crate::crd::PulseIngest;
use crate::lease::{Elector, Leadership, LeaseConfig};
use crate::metrics::OperatorMetrics;
use crate::names::MANAGER;
use crate::observe::Caches;
use crate::progress::WatchProgress;
use crate::scaling::{Key, Samplers};
use crate::secrets::DigestKey;
use crate::watches::Watches;

/// Rounds that run at once, each for another object.
const CONCURRENCY: u16 = 16;
/// Changes of one object within this time are looked at together.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long the last reconciles may take at the end.
const DRAIN: Duration = Duration::from_secs(20);
/// The Secret that holds the key of digests, in our own namespace.
pub(crate) const DIGEST_SECRET: &str = "pulse-operator-digest-key";
const DIGEST_SECRET_KEY: &str = "key";

/// How an operator runs.
#[derive(Debug, Clone)]
pub struct OperatorConfig {
    /// Only this namespace; all of them if none.
    pub namespace: Option<String>,
    /// Leadership; its namespace is our own.
    pub lease: LeaseConfig,
    /// How often things are looked at.
    pub intervals: Intervals,
    /// How long a watch lasts, in seconds.
    pub watch_timeout_seconds: u32,
    /// Secrets that let nodes pull images, for every pod of ours besides those that its object names.
    pub pull_secrets: Vec<String>,
    /// For development: where every pod of ours looks for newer builds of its program.
    pub dev_reload: Option<PathBuf>,
}

/// What the probes ask. Cheap to clone.
#[derive(Clone)]
pub struct OperatorHealth {
    progress: WatchProgress,
    silent_after: Duration,
    synced: Arc<AtomicBool>,
}

impl OperatorHealth {
    /// Why it is not live, if it is not: a restart would help.
    pub fn problem(&self) -> Option<String> {
        let (kind, age) = self.progress.oldest()?;
        (age > self.silent_after).then(|| format!("the watch of {kind} made no progress for {} s", age.as_secs()))
    }

    /// Whether it leads, or could at once.
    pub fn is_ready(&self) -> bool {
        self.synced.load(Ordering::Relaxed)
    }
}

/// How to reach the API server: of the pod's service account, or of the person's `KUBECONFIG`.
#[derive(Clone)]
pub struct Kubernetes(Config);

impl Kubernetes {
    /// Finds out.
    ///
    /// # Errors
    /// [`OperatorError::NoCluster`].
    pub async fn infer() -> Result<Self, OperatorError> {
        let config = Config::infer().await.map_err(|error| OperatorError::NoCluster(Box::new(error)))?;
        Ok(Self(config))
    }

    /// A client without our guards.
    pub(crate) fn client(&self) -> Result<Client, kube::Error> {
        Client::try_from(self.0.clone())
    }

    /// The namespace of the pod, or of the person's context.
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

/// Why an operator ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Nothing says where the API server is.
    #[error("no cluster: run in a pod with a service account, or set KUBECONFIG: {0}")]
    NoCluster(Box<kube::config::InferConfigError>),
    /// No client could be made.
    #[error("no client for Kubernetes")]
    Client(#[source] kube::Error),
    /// Another one leads, or the API server was away for too long.
    #[error("lost the lead")]
    LostLead,
    /// The key of digests can neither be read nor made.
    #[error("the Secret {DIGEST_SECRET} can neither be read nor made")]
    DigestKey(#[source] kube::Error),
    /// Somebody else made that Secret, or emptied it.
    #[error("the Secret {DIGEST_SECRET} has no {DIGEST_SECRET_KEY}: delete it, and every pod is replaced once")]
    NoDigestKey,
}

impl Operator {
    /// Puts an operator together.
    pub fn new(config: OperatorConfig, kubernetes: Kubernetes, metrics: OperatorMetrics) -> Self {
        let health = OperatorHealth {
            progress: metrics.progress.clone(),
            silent_after: Duration::from_secs(u64::from(config.watch_timeout_seconds) * 2),
            synced: Arc::default(),
        };
        Self { config, kubernetes, metrics, health }
    }

    /// For the probes.
    pub fn health(&self) -> OperatorHealth {
        self.health.clone()
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// [`OperatorError`]: end the process then; another start is a clean one.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), OperatorError> {
        let Self { config, kubernetes, metrics, health } = self;
        let leadership = Leadership::new(&config.lease);
        let make =
            |may_write| client::client(kubernetes.0.clone(), may_write, health.progress.clone(), metrics.clone());
        let always = make(client::always()).map_err(OperatorError::Client)?;
        let leads = leadership.clone();
        let guarded = make(Arc::new(move || leads.remaining())).map_err(OperatorError::Client)?;
        let (trigger, mut triggered) = tokio::sync::mpsc::unbounded_channel();
        let (sampled, samples) = tokio::sync::mpsc::channel(10_000);
        tokio::spawn(reconcile_on_sample(samples, trigger.clone()));
        let watches = Watches {
            client: always.clone(),
            namespace: config.namespace.clone(),
            timeout_seconds: config.watch_timeout_seconds,
            progress: health.progress.clone(),
            trigger,
            shutdown: shutdown.clone(),
        };
        let caches = watches.start();
        let mut elector = Elector::new(config.lease.clone(), always.clone(), leadership.clone());
        tokio::select! {
            () = synced(&caches) => health.synced.store(true, Ordering::Relaxed),
            () = shutdown.cancelled() => return Ok(()),
        }
        tokio::select! {
            () = elector.acquire(&shutdown) => {}
            // Whoever waits for months may not gather what it will not need: all are looked at once we lead.
            () = discard(&mut triggered) => {}
        }
        if shutdown.is_cancelled() {
            elector.release().await;
            return Ok(());
        }
        metrics.leader.set(1);
        // Renewed in its own task, because a long call of ours must not cost the lead; and until the last round has ended.
        let released = CancellationToken::new();
        let mut renewing = tokio::spawn({
            let released = released.clone();
            async move {
                elector.keep(&released).await;
                elector
            }
        });
        let digest_key = digest_key(&guarded, &config.lease.namespace).await?;
        let reporter = Reporter { controller: MANAGER.into(), instance: Some(config.lease.identity.clone()) };
        let context = Arc::new(Context {
            recorder: Recorder::new(guarded.clone(), reporter),
            client: guarded,
            caches: caches.clone(),
            digest_key,
            samplers: Samplers::new(config.intervals.poll, sampled),
            intervals: config.intervals,
            pull_secrets: config.pull_secrets,
            dev_reload: config.dev_reload,
            metrics: metrics.clone(),
            objects: Mutex::new(HashMap::new()),
        });
        let ended = CancellationToken::new();
        let mut reconciles = tokio::spawn(reconciles(caches, triggered, context, ended.clone()));
        let lost = tokio::select! {
            _ = &mut renewing => true,
            () = shutdown.cancelled() => false,
        };
        metrics.leader.set(0);
        ended.cancel();
        if lost {
            // What is on its way is given up at once: somebody else may lead soon.
            reconciles.abort();
            return Err(OperatorError::LostLead);
        }
        if tokio::time::timeout(DRAIN, &mut reconciles).await.is_err() {
            tracing::warn!("the last reconciles did not end in time");
            reconciles.abort();
        }
        released.cancel();
        if let Ok(mut elector) = renewing.await {
            elector.release().await;
        }
        Ok(())
    }
}

async fn reconciles(
    caches: Caches,
    triggered: tokio::sync::mpsc::UnboundedReceiver<ObjectRef<PulseIngest>>,
    context: Arc<Context>,
    ended: CancellationToken,
) {
    let all: Vec<_> = caches.objects.state().iter().map(|object| ObjectRef::from_obj(object.as_ref())).collect();
    let later =
        futures_util::stream::unfold(triggered, async |mut triggered| Some((triggered.recv().await?, triggered)));
    let queue = futures_util::stream::iter(all)
        .chain(later)
        .take_until(ended.cancelled_owned())
        .map(Ok::<_, std::convert::Infallible>);
    let settings = ApplierConfig::default().concurrency(CONCURRENCY).debounce(DEBOUNCE);
    let never = |_: Arc<PulseIngest>, error: &std::convert::Infallible, _: Arc<Context>| -> Action { match *error {} };
    let applier = applier(
        |object, context| Box::pin(reconcile(object, context)),
        never,
        context.clone(),
        caches.objects.clone(),
        queue.map(|item| item.map(Request)),
        settings,
    );
    let looked = async |result| {
        if let Err(kube::runtime::controller::Error::ObjectNotFound(gone)) = result {
            context.forget(gone.namespace.as_deref().unwrap_or_default(), &gone.name);
        }
    };
    applier.for_each(looked).await;
}

/// Never returns.
async fn discard<T>(triggered: &mut tokio::sync::mpsc::UnboundedReceiver<T>) {
    while triggered.recv().await.is_some() {}
    std::future::pending().await
}

async fn reconcile_on_sample(mut samples: tokio::sync::mpsc::Receiver<Key>, trigger: crate::watches::Trigger) {
    while let Some(Key { namespace, name, uid: _ }) = samples.recv().await {
        // Nobody listens only at the end.
        let _ = trigger.send(ObjectRef::new(&name).within(&namespace));
    }
}

/// Why a round is due is nobody's business.
struct Request(ObjectRef<PulseIngest>);

impl From<Request> for kube::runtime::controller::ReconcileRequest<PulseIngest> {
    fn from(Request(object): Request) -> Self {
        Self::from(object)
    }
}

async fn synced(caches: &Caches) {
    let Caches { objects, deployments, jobs, pods, services, service_accounts, disruption_budgets } = caches;
    // An error means that its watch has ended, and then so have we.
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

/// Reads the key of digests, or makes it once: it must outlive us, or every start would roll every pod.
async fn digest_key(client: &Client, namespace: &str) -> Result<DigestKey, OperatorError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    loop {
        if let Some(secret) = api.get_opt(DIGEST_SECRET).await.map_err(OperatorError::DigestKey)? {
            return key_of(secret).ok_or(OperatorError::NoDigestKey);
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
            // Another one was faster: its key is as good.
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(OperatorError::DigestKey(error)),
        }
    }
}

/// The key of digests that the Secret holds.
pub(crate) fn key_of(secret: Secret) -> Option<DigestKey> {
    let key = secret.data.and_then(|mut data| data.remove(DIGEST_SECRET_KEY));
    key.filter(|ByteString(key)| !key.is_empty()).map(|ByteString(key)| DigestKey::new(key))
}

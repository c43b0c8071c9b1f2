//! The watches: one task per kind and watched namespace writes a cache and triggers reconciles of the owners.
//!
//! Each watch has a separate back-off, so that a failing one does not delay the others. A watch is renewed every
//! `timeout_seconds`. If one makes no progress for twice that time, the operator is not live.

use std::fmt::Debug;

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use pulse_crd::PulseIngest;
use pulse_crd::names::MANAGED;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, CacheWriter};
use crate::caches::Caches;
use crate::instances::{self, Instances};
use crate::progress::WatchProgress;

/// Objects per page of a list. A page is in memory twice while it is parsed, so pages are small.
const PAGE: u32 = 100;

/// Sends the objects to reconcile.
pub(crate) type Trigger = UnboundedSender<ObjectRef<PulseIngest>>;

/// A kind that is watched.
trait Watched:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// Shared by all watches.
#[derive(Clone)]
pub(crate) struct Watches {
    /// Client for lists and watches.
    pub client: Client,
    /// Namespaces to watch, one watch per kind each; `None` is one watch of all namespaces.
    pub namespaces: Vec<Option<String>>,
    /// Duration of one watch request, in seconds. Must be below the idle time-out of load balancers.
    pub timeout_seconds: u32,
    /// Progress of the watches, for the liveness probe.
    pub progress: WatchProgress,
    /// Receives the objects to reconcile.
    pub trigger: Trigger,
    /// Ends the watches.
    pub shutdown: CancellationToken,
}

impl Watches {
    /// Starts all watches, and returns their caches.
    pub(crate) fn start(&self) -> Caches {
        Caches {
            objects: self.objects(),
            deployments: self.children(|_| {}),
            // Only the status of Jobs and pods is read. Their specs would take most of the memory.
            jobs: self.children(|job: &mut Job| {
                if let Some(spec) = &mut job.spec {
                    spec.template = PodTemplateSpec::default();
                }
            }),
            pods: self.children(|pod: &mut Pod| pod.spec = None),
            services: self.children(|_| {}),
            service_accounts: self.children(|_| {}),
            disruption_budgets: self.children(|_| {}),
        }
    }

    fn objects(&self) -> Instances {
        let (instances, writer) = instances::instances(self.namespaces.len());
        for namespace in &self.namespaces {
            let mut writer = writer.of(namespace.clone());
            self.watch(namespace.as_deref(), Config::default(), |_| {}, move |event| writer.apply(event));
        }
        instances
    }

    fn children<K: Watched + Serialize>(&self, prune: fn(&mut K)) -> Cache<K> {
        let cache = Cache::new(self.namespaces.len());
        for namespace in &self.namespaces {
            let mut writer = CacheWriter::new(cache.clone(), namespace.clone());
            let managed = Config::default().labels(MANAGED);
            self.watch(namespace.as_deref(), managed, prune, move |event: Event<K>| writer.apply(event));
        }
        cache
    }

    /// Watches a kind. `prune` drops the fields that are not used, and `apply` returns the owners that an event
    /// affects.
    fn watch<K: Watched>(
        &self,
        namespace: Option<&str>,
        config: Config,
        prune: fn(&mut K),
        mut apply: impl FnMut(Event<K>) -> Vec<ObjectRef<PulseIngest>> + Send + 'static,
    ) {
        let Self { timeout_seconds, progress, trigger, shutdown, .. } = self.clone();
        let (kind, namespace) = (K::plural(&()).into_owned(), namespace.map(str::to_owned));
        progress.record(&kind, namespace.as_deref());
        let api: Api<K> = match &namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let stream = watcher(api, config.timeout(timeout_seconds).page_size(PAGE))
            .modify(move |object| {
                *object.managed_fields_mut() = Vec::new();
                prune(object);
            })
            .default_backoff()
            .take_until(shutdown.cancelled_owned());
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => {
                        progress.record(&kind, namespace.as_deref());
                        for owner in apply(event) {
                            // Fails only at shutdown, when the receiver is dropped.
                            let _ = trigger.send(owner);
                        }
                    }
                    Err(error) => tracing::warn!(kind, namespace, %error, "watch failed and is restarted"),
                }
            }
        });
    }
}

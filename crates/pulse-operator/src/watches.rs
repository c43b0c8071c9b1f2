//! The watches: one task per kind writes a cache and triggers reconciles of the owners.
//!
//! Each watch has a separate back-off, so that a failing one does not delay the others. A watch is renewed every
//! `timeout_seconds`. If one makes no progress for twice that time, the operator is not live.

use std::collections::HashMap;
use std::fmt::Debug;

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, CacheWriter};
use crate::crd::PulseIngest;
use crate::names::MANAGED;
use crate::observe::{Caches, Readable, reference};
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
    /// Namespace to watch; `None` watches all namespaces.
    pub namespace: Option<String>,
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

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Triggers only for a changed spec, changed annotations or a deletion. Otherwise, each write of the status would
    /// trigger another reconcile.
    fn objects(&self) -> Store<Readable> {
        let (reader, mut writer) = store::<Readable>();
        let mut known: HashMap<ObjectRef<PulseIngest>, Version> = HashMap::new();
        let mut listed = Vec::new();
        self.watch(
            Config::default(),
            |_| {},
            move |event: Event<Readable>| {
                writer.apply_watcher_event(&event);
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(object) => listed.push((reference(&object), version(&object))),
                    Event::InitDone => {
                        let before = std::mem::replace(&mut known, listed.drain(..).collect());
                        let deleted = before.keys().filter(|key| !known.contains_key(key)).cloned();
                        let changed = known.iter().filter(|(key, version)| before.get(key) != Some(version));
                        return deleted.chain(changed.map(|(key, _)| key.clone())).collect();
                    }
                    Event::Apply(object) => {
                        let (key, version) = (reference(&object), version(&object));
                        let same = known.insert(key.clone(), version.clone()).is_some_and(|before| before == version);
                        return if same { Vec::new() } else { vec![key] };
                    }
                    Event::Delete(object) => {
                        let key = reference(&object);
                        known.remove(&key);
                        return vec![key];
                    }
                }
                Vec::new()
            },
        );
        reader
    }

    fn children<K: Watched>(&self, prune: fn(&mut K)) -> Cache<K> {
        let mut writer = CacheWriter::new();
        let cache = writer.cache();
        self.watch(Config::default().labels(MANAGED), prune, move |event: Event<K>| writer.apply(event));
        cache
    }

    /// Watches a kind. `prune` drops the fields that are not used, and `apply` returns the owners that an event
    /// affects.
    fn watch<K: Watched>(
        &self,
        config: Config,
        prune: fn(&mut K),
        mut apply: impl FnMut(Event<K>) -> Vec<ObjectRef<PulseIngest>> + Send + 'static,
    ) {
        let Self { timeout_seconds, progress, trigger, shutdown, .. } = self.clone();
        let kind = K::plural(&()).into_owned();
        progress.record(&kind);
        let stream = watcher(self.api::<K>(), config.timeout(timeout_seconds).page_size(PAGE))
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
                        progress.record(&kind);
                        for owner in apply(event) {
                            // Fails only at shutdown, when the receiver is dropped.
                            let _ = trigger.send(owner);
                        }
                    }
                    Err(error) => tracing::warn!(kind, %error, "watch failed and is restarted"),
                }
            }
        });
    }
}

/// What a change is detected by: UID, generation, whether it is being deleted, and annotations.
type Version = (Option<String>, Option<i64>, bool, Vec<String>);

fn version(object: &Readable) -> Version {
    let annotations = object.annotations().iter().map(|(name, value)| format!("{name}={value}")).collect();
    (object.uid(), object.meta().generation, object.meta().deletion_timestamp.is_some(), annotations)
}

//! The watches: one task per kind fills a cache and says which owner to look at.
//!
//! Each has its own back-off, so that one that fails holds up no other. A watch is renewed every `timeout` seconds; one
//! that makes no progress for twice that long makes the operator not live.

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

use crate::cache::{Cache, Filler};
use crate::crd::PulseIngest;
use crate::names::MANAGED;
use crate::observe::Caches;
use crate::progress::WatchProgress;

/// Objects of one page of a list: a long page is held twice while it is read.
const PAGE: u32 = 100;

/// Says which owner to look at.
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

/// What watches need.
#[derive(Clone)]
pub(crate) struct Watches {
    /// Reads.
    pub client: Client,
    /// Only this namespace, or all.
    pub namespace: Option<String>,
    /// How long a watch lasts, in seconds. Below the idle time-outs of load balancers.
    pub timeout_seconds: u32,
    /// For the probe.
    pub progress: WatchProgress,
    /// Whom to tell.
    pub trigger: Trigger,
    /// The end.
    pub shutdown: CancellationToken,
}

impl Watches {
    /// Starts them all.
    pub(crate) fn start(&self) -> Caches {
        Caches {
            objects: self.objects(),
            deployments: self.children(|_| {}),
            // Of Jobs and pods only what they came to is read: what they are made of would be most of our memory.
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

    /// Told only of changes to the spec, the annotations or the deletion: our own status would call us for ever.
    fn objects(&self) -> Store<PulseIngest> {
        let (reader, mut writer) = store::<PulseIngest>();
        let mut known: HashMap<ObjectRef<PulseIngest>, Version> = HashMap::new();
        let mut listed = Vec::new();
        self.watch(
            Config::default(),
            |_| {},
            move |event: Event<PulseIngest>| {
                writer.apply_watcher_event(&event);
                match event {
                    Event::Init => listed.clear(),
                    Event::InitApply(object) => listed.push((ObjectRef::from_obj(&object), version(&object))),
                    Event::InitDone => {
                        let before = std::mem::replace(&mut known, listed.drain(..).collect());
                        let gone = before.keys().filter(|key| !known.contains_key(key)).cloned();
                        let changed = known.iter().filter(|(key, version)| before.get(key) != Some(version));
                        return gone.chain(changed.map(|(key, _)| key.clone())).collect();
                    }
                    Event::Apply(object) => {
                        let (key, version) = (ObjectRef::from_obj(&object), version(&object));
                        let same = known.insert(key.clone(), version.clone()).is_some_and(|before| before == version);
                        return if same { Vec::new() } else { vec![key] };
                    }
                    Event::Delete(object) => {
                        let key = ObjectRef::from_obj(&object);
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
        let mut filler = Filler::new();
        let cache = filler.cache();
        self.watch(Config::default().labels(MANAGED), prune, move |event: Event<K>| filler.take(event));
        cache
    }

    /// Watches a kind; `prune` drops what nobody reads, and `take` says whom an event is about.
    fn watch<K: Watched>(
        &self,
        config: Config,
        prune: fn(&mut K),
        mut take: impl FnMut(Event<K>) -> Vec<ObjectRef<PulseIngest>> + Send + 'static,
    ) {
        let Self { timeout_seconds, progress, trigger, shutdown, .. } = self.clone();
        let kind = K::plural(&()).into_owned();
        progress.turned(&kind);
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
                        progress.turned(&kind);
                        for owner in take(event) {
                            // Nobody listens only at the end.
                            let _ = trigger.send(owner);
                        }
                    }
                    Err(error) => tracing::warn!(kind, %error, "a watch failed and starts again"),
                }
            }
        });
    }
}

/// What a change is noticed by: another object of the same name, the generation, whether it is being deleted, and the
/// annotations.
type Version = (Option<String>, Option<i64>, bool, Vec<String>);

fn version(object: &PulseIngest) -> Version {
    let annotations = object.annotations().iter().map(|(name, value)| format!("{name}={value}")).collect();
    (object.uid(), object.metadata.generation, object.metadata.deletion_timestamp.is_some(), annotations)
}

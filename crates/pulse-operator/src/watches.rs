//! The watches: one task per kind fills a cache and says which ingest to look at.
//!
//! Each has its own back-off, so that one that fails holds up no other. A watch is renewed every `timeout` seconds; one
//! that makes no progress for twice that long makes the operator not live.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;

use crate::crd::PulseIngest;
use crate::names::MANAGED;
use crate::observe::Caches;
use crate::progress::WatchProgress;

/// Says which ingest to look at.
pub(crate) type Trigger = UnboundedSender<ObjectRef<PulseIngest>>;

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
            ingests: self.ingests(),
            deployments: self.children(),
            jobs: self.children(),
            pods: self.children(),
            services: self.children(),
            service_accounts: self.children(),
            disruption_budgets: self.children(),
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
    fn ingests(&self) -> Store<PulseIngest> {
        let mut known: HashMap<ObjectRef<PulseIngest>, (Option<i64>, bool, Vec<String>)> = HashMap::new();
        self.watch(Config::default(), move |object: &PulseIngest, deleted| {
            let key = ObjectRef::from_obj(object);
            let annotations = object.annotations().iter().map(|(name, value)| format!("{name}={value}")).collect();
            let version = (object.metadata.generation, object.metadata.deletion_timestamp.is_some(), annotations);
            if deleted {
                known.remove(&key);
                return Some(key);
            }
            let same = known.insert(key.clone(), version.clone()).is_some_and(|before| before == version);
            (!same).then_some(key)
        })
    }

    fn children<K>(&self) -> Store<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        self.watch(Config::default().labels(MANAGED), |object: &K, _| {
            let instance = object.labels().get("app.kubernetes.io/instance")?;
            Some(ObjectRef::new(instance).within(&object.namespace()?))
        })
    }

    fn watch<K>(
        &self,
        config: Config,
        mut whose: impl FnMut(&K, bool) -> Option<ObjectRef<PulseIngest>> + Send + 'static,
    ) -> Store<K>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
        K: Resource<DynamicType = ()>,
        K::DynamicType: Hash + Eq,
    {
        let (reader, writer) = store::<K>();
        let Self { timeout_seconds, progress, trigger, shutdown, .. } = self.clone();
        let kind = K::plural(&()).into_owned();
        progress.turned(&kind);
        let stream = watcher(self.api::<K>(), config.timeout(timeout_seconds))
            .modify(|object| object.managed_fields_mut().clear())
            .default_backoff()
            .reflect(writer)
            .take_until(shutdown.cancelled_owned());
        tokio::spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => {
                        progress.turned(&kind);
                        let key = match &event {
                            Event::Apply(object) | Event::InitApply(object) => whose(object, false),
                            Event::Delete(object) => whose(object, true),
                            Event::Init | Event::InitDone => None,
                        };
                        // Nobody listens only at the end.
                        let _ = key.map(|key| trigger.send(key));
                    }
                    Err(error) => tracing::warn!(kind, %error, "a watch failed and starts again"),
                }
            }
        });
        reader
    }
}

//! Caches of the created objects, indexed by their owner, so that a reconcile costs the same with any number of owners.
//!
//! An object is kept as JSON text, and parsed in each reconcile of its owner: the text of a Deployment has 4 kB, and its
//! parsed form takes 25 kB, most of it for fields that are not set.

use std::collections::{BTreeMap, HashMap};
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock};

use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use pulse_crd::PulseIngest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// The texts of objects, by owner and name.
type Objects = HashMap<ObjectRef<PulseIngest>, BTreeMap<String, Arc<[u8]>>>;

/// The objects of one kind. Cheap to clone.
pub(crate) struct Cache<K>(Arc<Shared>, PhantomData<fn() -> K>);

struct Shared {
    objects: RwLock<Objects>,
    lists: Lists,
}

/// Counts the first lists that are not complete yet.
pub(crate) struct Lists(watch::Sender<usize>);

impl Lists {
    /// Waits for this number of lists.
    pub(crate) fn new(number: usize) -> Self {
        Self(watch::Sender::new(number))
    }

    /// Records that a first list is complete.
    pub(crate) fn completed(&self) {
        self.0.send_modify(|missing| *missing = missing.saturating_sub(1));
    }

    /// Returns after all first lists.
    pub(crate) async fn wait_until_complete(&self) {
        // An error means that the watch has ended, which happens only at shutdown.
        let _ = self.0.subscribe().wait_for(|missing| *missing == 0).await;
    }
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<K: DeserializeOwned> Cache<K> {
    /// The objects with the labels of `cr`, by name. The caller checks whether `cr` owns them.
    pub(crate) fn of(&self, cr: &PulseIngest) -> BTreeMap<String, Arc<K>> {
        let owner = ObjectRef::from_obj(cr);
        let found = self.0.objects.read().unwrap_or_else(PoisonError::into_inner).get(&owner).cloned();
        let parsed = |(name, text): (String, Arc<[u8]>)| parse(&name, &text).map(|object| (name, Arc::new(object)));
        found.into_iter().flatten().filter_map(parsed).collect()
    }
}

impl<K> Cache<K> {
    /// An empty cache that is ready after the first lists of `watches`.
    pub(crate) fn new(watches: usize) -> Self {
        Self(Arc::new(Shared { objects: RwLock::default(), lists: Lists::new(watches) }), PhantomData)
    }

    /// Returns after the first complete list of each namespace.
    pub(crate) async fn wait_until_ready(&self) {
        self.0.lists.wait_until_complete().await;
    }
}

/// Writes the events of one watch into a cache.
pub(crate) struct CacheWriter<K> {
    cache: Cache<K>,
    /// Namespace of the watch; `None` for all namespaces.
    namespace: Option<String>,
    listing: Objects,
    is_listed: bool,
}

impl<K: Resource<DynamicType = ()> + Serialize> CacheWriter<K> {
    /// Writes what the watch of `namespace` sees; `None` for all namespaces.
    pub(crate) fn new(cache: Cache<K>, namespace: Option<String>) -> Self {
        Self { cache, namespace, listing: HashMap::new(), is_listed: false }
    }

    /// Applies an event, and returns the affected owners. A list takes effect as a whole, at its end.
    pub(crate) fn apply(&mut self, event: Event<K>) -> Vec<ObjectRef<PulseIngest>> {
        let shared = &self.cache.0;
        let objects = || shared.objects.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => {
                if let Some((owner, name, text)) = entry(&object) {
                    self.listing.entry(owner).or_default().insert(name, text);
                }
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                let mut affected: Vec<_> = listed.keys().cloned().collect();
                let is_listed =
                    |owner: &ObjectRef<PulseIngest>| self.namespace.is_none() || owner.namespace == self.namespace;
                let mut objects = objects();
                affected.extend(objects.extract_if(|owner, _| is_listed(owner)).map(|(owner, _)| owner));
                objects.extend(listed);
                drop(objects);
                if !std::mem::replace(&mut self.is_listed, true) {
                    shared.lists.completed();
                }
                return affected;
            }
            Event::Apply(object) => {
                if let Some((owner, name, text)) = entry(&object) {
                    objects().entry(owner.clone()).or_default().insert(name, text);
                    return vec![owner];
                }
            }
            Event::Delete(object) => return remove(&mut objects(), &object).into_iter().collect(),
        }
        Vec::new()
    }
}

/// The owner, the name and the text of an object that has an owner.
fn entry<K>(object: &K) -> Option<(ObjectRef<PulseIngest>, String, Arc<[u8]>)>
where
    K: Resource<DynamicType = ()> + Serialize,
{
    let (owner, name) = (owner_of(object)?, object.name_any());
    let text = serde_json::to_vec(object).inspect_err(|error| tracing::error!(name, %error, "cannot cache an object"));
    Some((owner, name, text.ok()?.into()))
}

fn parse<K: DeserializeOwned>(name: &str, text: &[u8]) -> Option<K> {
    serde_json::from_slice(text).inspect_err(|error| tracing::error!(name, %error, "cannot read a cached object")).ok()
}

fn remove<K: Resource<DynamicType = ()>>(objects: &mut Objects, object: &K) -> Option<ObjectRef<PulseIngest>> {
    let owner = owner_of(object)?;
    let of_owner = objects.get_mut(&owner)?;
    of_owner.remove(&object.name_any());
    if of_owner.is_empty() {
        objects.remove(&owner);
    }
    Some(owner)
}

fn owner_of<K: Resource<DynamicType = ()>>(object: &K) -> Option<ObjectRef<PulseIngest>> {
    let instance = object.labels().get("app.kubernetes.io/instance")?;
    Some(ObjectRef::new(instance).within(&object.namespace()?))
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;

//! Caches of the created objects, indexed by their owner, so that a reconcile costs the same with any number of owners.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

use crate::crd::PulseIngest;

type Objects<K> = HashMap<ObjectRef<PulseIngest>, BTreeMap<String, Arc<K>>>;

/// The objects of one kind. Cheap to clone.
pub(crate) struct Cache<K>(Arc<Shared<K>>);

struct Shared<K> {
    objects: RwLock<Objects<K>>,
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
        Self(self.0.clone())
    }
}

impl<K: Resource<DynamicType = ()>> Cache<K> {
    /// The objects with the labels of `cr`, by name. The caller checks whether `cr` owns them.
    pub(crate) fn of(&self, cr: &PulseIngest) -> BTreeMap<String, Arc<K>> {
        let objects = self.0.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(&ObjectRef::from_obj(cr)).cloned().unwrap_or_default()
    }

    /// Returns after the first complete list of each namespace.
    pub(crate) async fn wait_until_ready(&self) {
        self.0.lists.wait_until_complete().await;
    }
}

impl<K> Cache<K> {
    /// An empty cache that is ready after the first lists of `watches`.
    pub(crate) fn new(watches: usize) -> Self {
        Self(Arc::new(Shared { objects: RwLock::default(), lists: Lists::new(watches) }))
    }
}

/// Writes the events of one watch into a cache.
pub(crate) struct CacheWriter<K> {
    cache: Cache<K>,
    /// Namespace of the watch; `None` for all namespaces.
    namespace: Option<String>,
    listing: Objects<K>,
    is_listed: bool,
}

impl<K: Resource<DynamicType = ()>> CacheWriter<K> {
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
            Event::InitApply(object) => drop(insert(&mut self.listing, object)),
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
            Event::Apply(object) => return insert(&mut objects(), object).into_iter().collect(),
            Event::Delete(object) => return remove(&mut objects(), &object).into_iter().collect(),
        }
        Vec::new()
    }
}

fn insert<K: Resource<DynamicType = ()>>(objects: &mut Objects<K>, object: K) -> Option<ObjectRef<PulseIngest>> {
    let owner = owner_of(&object)?;
    objects.entry(owner.clone()).or_default().insert(object.name_any(), Arc::new(object));
    Some(owner)
}

fn remove<K: Resource<DynamicType = ()>>(objects: &mut Objects<K>, object: &K) -> Option<ObjectRef<PulseIngest>> {
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
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    fn pod(name: &str, instance: &str) -> Pod {
        let labels = json!({ "app.kubernetes.io/instance": instance });
        serde_json::from_value(json!({ "metadata": { "name": name, "namespace": "here", "labels": labels } }))
            .expect("a pod")
    }

    fn names(writer: &CacheWriter<Pod>, instance: &str) -> Vec<String> {
        let objects = writer.cache.0.objects.read().expect("not poisoned");
        let owner = ObjectRef::new(instance).within("here");
        objects.get(&owner).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    #[test]
    fn relist_removes_missing_objects_and_returns_their_owners() {
        let mut writer = CacheWriter::new(Cache::new(1), Some("here".into()));
        let mut elsewhere = CacheWriter::new(writer.cache.clone(), Some("elsewhere".into()));
        elsewhere.apply(Event::Init);
        elsewhere.apply(Event::InitDone);
        assert_eq!(writer.apply(Event::Apply(pod("a", "one"))), [ObjectRef::new("one").within("here")]);
        writer.apply(Event::Apply(pod("b", "two")));
        writer.apply(Event::Init);
        writer.apply(Event::InitApply(pod("c", "two")));
        elsewhere.apply(Event::Init);
        elsewhere.apply(Event::InitDone);
        assert_eq!(names(&writer, "one"), ["a"], "until the list is complete");
        let mut affected = writer.apply(Event::InitDone);
        affected.sort_by(|left, right| left.name.cmp(&right.name));
        affected.dedup();
        assert_eq!(affected, ["one", "two"].map(|name| ObjectRef::new(name).within("here")));
        assert_eq!((names(&writer, "one"), names(&writer, "two")), (vec![], vec!["c".to_owned()]));
        writer.apply(Event::Delete(pod("c", "two")));
        assert!(writer.cache.0.objects.read().expect("not poisoned").is_empty());
    }
}

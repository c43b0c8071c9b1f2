//! What we made, by the owner that it belongs to: a round costs what its own object has, however many others there are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use tokio::sync::watch;

use crate::crd::PulseIngest;

type Objects<K> = HashMap<ObjectRef<PulseIngest>, BTreeMap<String, Arc<K>>>;

/// The objects of one kind. Cheap to clone.
pub struct Cache<K>(Arc<Shared<K>>);

struct Shared<K> {
    objects: RwLock<Objects<K>>,
    is_ready: watch::Sender<bool>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Resource<DynamicType = ()>> Cache<K> {
    /// The objects that carry the labels of `cr`, by name; whether it owns them is for the caller to ask.
    pub fn of(&self, cr: &PulseIngest) -> BTreeMap<String, Arc<K>> {
        let objects = self.0.objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(&ObjectRef::from_obj(cr)).cloned().unwrap_or_default()
    }

    /// Returns once all objects were listed.
    pub async fn wait_until_ready(&self) {
        // An error means that the watch has ended, and then so have we.
        let _ = self.0.is_ready.subscribe().wait_for(|ready| *ready).await;
    }
}

/// Fills a cache with what a watch brings.
pub(crate) struct Filler<K> {
    cache: Cache<K>,
    listing: Objects<K>,
}

impl<K: Resource<DynamicType = ()>> Filler<K> {
    /// With an empty cache.
    pub(crate) fn new() -> Self {
        let shared = Shared { objects: RwLock::default(), is_ready: watch::Sender::new(false) };
        Self { cache: Cache(Arc::new(shared)), listing: HashMap::new() }
    }

    /// What is filled.
    pub(crate) fn cache(&self) -> Cache<K> {
        self.cache.clone()
    }

    /// Takes an event in; returns whom it is about. A list takes effect, and is told, at its end.
    pub(crate) fn take(&mut self, event: Event<K>) -> Vec<ObjectRef<PulseIngest>> {
        let shared = &self.cache.0;
        let objects = || shared.objects.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => drop(insert(&mut self.listing, object)),
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                let mut about: Vec<_> = listed.keys().cloned().collect();
                let before = std::mem::replace(&mut *objects(), listed);
                about.extend(before.into_keys());
                shared.is_ready.send_replace(true);
                return about;
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

    fn names(filler: &Filler<Pod>, instance: &str) -> Vec<String> {
        let objects = filler.cache.0.objects.read().expect("nobody panics here");
        let owner = ObjectRef::new(instance).within("here");
        objects.get(&owner).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    #[test]
    fn what_a_list_does_not_bring_again_is_gone_and_its_ingest_is_told() {
        let mut filler = Filler::new();
        assert_eq!(filler.take(Event::Apply(pod("a", "one"))), [ObjectRef::new("one").within("here")]);
        filler.take(Event::Apply(pod("b", "two")));
        filler.take(Event::Init);
        filler.take(Event::InitApply(pod("c", "two")));
        assert_eq!(names(&filler, "one"), ["a"], "until the list is complete");
        let mut about = filler.take(Event::InitDone);
        about.sort_by(|left, right| left.name.cmp(&right.name));
        about.dedup();
        assert_eq!(about, ["one", "two"].map(|name| ObjectRef::new(name).within("here")));
        assert_eq!((names(&filler, "one"), names(&filler, "two")), (vec![], vec!["c".to_owned()]));
        filler.take(Event::Delete(pod("c", "two")));
        assert!(filler.cache.0.objects.read().expect("nobody panics here").is_empty());
    }
}

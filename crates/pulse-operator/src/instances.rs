//! The cache of `PulseIngest` objects, written by one watch per watched namespace.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use pulse_crd::PulseIngest;

use crate::cache::Lists;

/// An object, or the reason why this version cannot read it: a newer one may have more values of an enum.
pub(crate) type Readable = DeserializeGuard<PulseIngest>;

/// The reference to an object.
pub(crate) fn reference(object: &Readable) -> ObjectRef<PulseIngest> {
    ObjectRef::from_obj(object).into_kind_unchecked(())
}

/// The cached objects. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Instances {
    store: Store<Readable>,
    lists: Arc<Lists>,
}

impl Instances {
    /// The store, for kube's applier.
    pub(crate) fn store(&self) -> Store<Readable> {
        self.store.clone()
    }

    /// Number of objects.
    pub(crate) fn count(&self) -> usize {
        self.store.len()
    }

    /// Returns after the first complete list of each namespace.
    pub(crate) async fn wait_until_ready(&self) {
        self.lists.wait_until_complete().await;
    }
}

/// The writers of all namespaces.
pub(crate) struct Writers {
    instances: Instances,
    writer: Arc<Mutex<Writer<Readable>>>,
}

/// An empty cache that is ready after the first lists of `watches`.
pub(crate) fn instances(watches: usize) -> (Instances, Writers) {
    let (store, mut writer) = store();
    // The store counts as listed from now on, because each namespace is listed separately.
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    let instances = Instances { store, lists: Arc::new(Lists::new(watches)) };
    (instances.clone(), Writers { instances, writer: Arc::new(Mutex::new(writer)) })
}

impl Writers {
    /// The writer of the watch of a namespace; `None` for all namespaces.
    pub(crate) fn of(&self, namespace: Option<String>) -> InstanceWriter {
        let Self { instances, writer } = self;
        InstanceWriter {
            instances: instances.clone(),
            writer: writer.clone(),
            namespace,
            known: HashMap::new(),
            listing: Vec::new(),
            is_listed: false,
        }
    }
}

/// Writes the events of one watch.
pub(crate) struct InstanceWriter {
    instances: Instances,
    writer: Arc<Mutex<Writer<Readable>>>,
    namespace: Option<String>,
    known: HashMap<ObjectRef<PulseIngest>, Version>,
    listing: Vec<Readable>,
    is_listed: bool,
}

impl InstanceWriter {
    /// Applies an event. Returns the objects with a changed spec, with changed annotations, or deleted ones. Otherwise,
    /// each write of the status would trigger another reconcile.
    pub(crate) fn apply(&mut self, event: Event<Readable>) -> Vec<ObjectRef<PulseIngest>> {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(object) => self.listing.push(object),
            Event::InitDone => return self.listed(),
            Event::Apply(object) => return self.changed(object).into_iter().collect(),
            Event::Delete(object) => return vec![self.deleted(&object)],
        }
        Vec::new()
    }

    fn listed(&mut self) -> Vec<ObjectRef<PulseIngest>> {
        let listing = std::mem::take(&mut self.listing);
        let listed: HashSet<_> = listing.iter().map(reference).collect();
        let mut affected: Vec<_> = listing.into_iter().filter_map(|object| self.changed(object)).collect();
        let is_gone = |object: &Readable| {
            let is_watched = self.namespace.is_none() || object.namespace() == self.namespace;
            is_watched && !listed.contains(&reference(object))
        };
        let gone = self.instances.store.state().into_iter().filter(|object| is_gone(object));
        for object in gone.collect::<Vec<_>>() {
            affected.push(self.deleted(&object));
        }
        if !std::mem::replace(&mut self.is_listed, true) {
            self.instances.lists.completed();
        }
        affected
    }

    /// Stores an object. Returns it if it has changed.
    fn changed(&mut self, object: Readable) -> Option<ObjectRef<PulseIngest>> {
        let (key, version) = (reference(&object), version(&object));
        self.write(&Event::Apply(object));
        let before = self.known.insert(key.clone(), version.clone());
        (before != Some(version)).then_some(key)
    }

    fn deleted(&mut self, object: &Readable) -> ObjectRef<PulseIngest> {
        let key = reference(object);
        self.known.remove(&key);
        self.write(&Event::Delete(object.clone()));
        key
    }

    fn write(&self, event: &Event<Readable>) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).apply_watcher_event(event);
    }
}

/// What a change is detected by: UID, generation, whether it is being deleted, and annotations.
type Version = (Option<String>, Option<i64>, bool, Vec<String>);

fn version(object: &Readable) -> Version {
    let annotations = object.annotations().iter().map(|(name, value)| format!("{name}={value}")).collect();
    (object.uid(), object.meta().generation, object.meta().deletion_timestamp.is_some(), annotations)
}

#[cfg(test)]
mod tests {
    use pulse_crd::fixture::pulse_ingest;

    use super::*;

    fn object(namespace: &str, name: &str) -> Readable {
        let mut object = pulse_ingest(serde_json::json!({}));
        object.metadata.namespace = Some(namespace.into());
        object.metadata.name = Some(name.into());
        DeserializeGuard(Ok(object))
    }

    fn list(writer: &mut InstanceWriter, objects: &[Readable]) -> Vec<String> {
        writer.apply(Event::Init);
        for object in objects {
            writer.apply(Event::InitApply(object.clone()));
        }
        let mut names: Vec<String> = writer.apply(Event::InitDone).into_iter().map(|key| key.name).collect();
        names.sort();
        names
    }

    #[test]
    fn list_of_one_namespace_keeps_the_objects_of_others_and_triggers_only_for_changes() {
        let (instances, writers) = instances(2);
        let (mut one, mut two) = (writers.of(Some("one".into())), writers.of(Some("two".into())));
        assert_eq!(list(&mut one, &[object("one", "a"), object("one", "b")]), ["a", "b"]);
        assert_eq!(list(&mut two, &[object("two", "c")]), ["c"]);
        let mut reported = object("one", "a");
        reported.0.as_mut().expect("readable").status.get_or_insert_default().observed_generation = 1;
        assert_eq!(list(&mut one, &[reported]), ["b"], "a has only another status, and b is gone");
        assert_eq!(instances.count(), 2);
        assert_eq!(one.apply(Event::Delete(object("one", "a"))), [reference(&object("one", "a"))]);
        assert_eq!(instances.count(), 1);
    }
}

use k8s_openapi::api::core::v1::Pod;
use pulse_crd::fixture::pulse_ingest;
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
fn cached_object_is_read_as_it_was_seen() {
    let mut writer = CacheWriter::new(Cache::new(1), None);
    let text = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "a",
            "namespace": "shop",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": { "app.kubernetes.io/instance": "main" },
        },
        "spec": { "containers": [{ "name": "pulse", "resources": { "limits": { "cpu": "1500m" } } }] },
        "status": { "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": null }] },
    });
    let seen: Pod = serde_json::from_value(text).expect("a pod");
    writer.apply(Event::Apply(seen.clone()));
    let cached = writer.cache.of(&pulse_ingest(json!({})));
    assert_eq!(cached, [("a".to_owned(), Arc::new(seen))].into());
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

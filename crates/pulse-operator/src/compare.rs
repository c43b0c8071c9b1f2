//! Whether an object is as it was applied, also where the API server writes a value in another way than we do. Pure.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// What was applied to the objects of one ingest, and what came of it.
#[derive(Default)]
pub(crate) struct AppliedCache(Mutex<HashMap<String, Known>>);

struct Known {
    /// Of what was applied.
    hash: String,
    /// The newest version that was as it should be.
    version: String,
    /// Of what the API server made of it.
    result: String,
}

impl AppliedCache {
    /// Whether this version is known to be as it should be.
    pub(crate) fn is(&self, key: &str, hash: &str, version: &str) -> bool {
        self.lock().get(key).is_some_and(|known| known.hash == hash && known.version == version)
    }

    /// Whether the API server has made the same of it before.
    pub(crate) fn knows(&self, key: &str, hash: &str, result: &Value) -> bool {
        self.lock().get(key).is_some_and(|known| known.hash == hash && known.result == self::hash(result))
    }

    /// Remembers a version that is as it should be.
    pub(crate) fn remember(&self, key: String, hash: &str, version: String, result: &Value) {
        self.lock().insert(key, Known { hash: hash.to_owned(), version, result: self::hash(result) });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `live` has where `wanted` has something.
pub(crate) fn project(live: &Value, wanted: &Value) -> Value {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().filter_map(|(name, value)| Some((name.clone(), project(live.get(name)?, value)))).collect()
        }
        (Value::Array(live), Value::Array(wanted)) if wanted.iter().all(|item| item["name"].is_string()) => {
            let found = |item: &Value| live.iter().find(|found| found["name"] == item["name"]).cloned();
            wanted.iter().map(|item| found(item).map_or(Value::Null, |found| project(&found, item))).collect()
        }
        (live, _) => live.clone(),
    }
}

/// Of the JSON text, whose maps are sorted.
pub(crate) fn hash(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether everything in `wanted` is in `live`. The API server adds defaults, and others may add fields; lists of named
/// things are compared by name, other lists by place.
pub(crate) fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, value)| live.get(name).map_or_else(|| is_empty(value), |found| contains(found, value))),
        (Value::Array(live), Value::Array(wanted)) => {
            let named = wanted.iter().all(|item| item["name"].is_string());
            if named {
                wanted
                    .iter()
                    .all(|item| live.iter().any(|found| found["name"] == item["name"] && contains(found, item)))
            } else {
                live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
            }
        }
        (live, wanted) => live == wanted,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(value) => !value,
        Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_server_adds_is_no_difference() {
        let wanted = json!({ "a": 1, "list": [{ "name": "x", "v": 1 }], "flag": false });
        assert!(contains(
            &json!({ "a": 1, "b": 2, "list": [{ "name": "y" }, { "name": "x", "v": 1, "w": 2 }] }),
            &wanted
        ));
        assert!(!contains(&json!({ "a": 1, "list": [{ "name": "x", "v": 2 }] }), &wanted));
        assert!(!contains(&json!({ "args": ["a", "b"] }), &json!({ "args": ["a"] })));
    }

    #[test]
    fn what_the_server_made_of_it_is_known_again_whatever_else_changes() {
        let wanted = json!({ "spec": { "cpu": "1000m", "list": [{ "name": "x", "v": "0.5" }], "args": ["a"] } });
        let live = |cpu: &str, ready: i32| {
            json!({
                "spec": { "cpu": cpu, "replicas": ready, "list": [{ "name": "y" }, { "name": "x", "v": "500m" }], "args": ["a"] },
                "status": { "ready": ready },
            })
        };
        assert!(!contains(&live("1", 1), &wanted));
        let memory = AppliedCache::default();
        memory.remember("key".into(), "hash", "1".into(), &project(&live("1", 1), &wanted));
        assert!(memory.knows("key", "hash", &project(&live("1", 2), &wanted)));
        assert!(!memory.knows("key", "hash", &project(&live("2", 1), &wanted)));
        assert!(!memory.knows("key", "other", &project(&live("1", 1), &wanted)));
    }
}

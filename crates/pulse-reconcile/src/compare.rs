//! Compares live objects with applied ones, also where the API server normalises a value (`1000m` to `1`). No I/O.

use std::collections::HashMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// The objects that were applied for one instance, and the API server's results.
#[derive(Debug, Clone, Default)]
pub struct AppliedCache(HashMap<String, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    /// Hash of the applied object.
    hash: String,
    /// Newest resource version that matches it.
    version: String,
    /// Hash of the applied fields, as the API server returned them.
    result: String,
}

impl AppliedCache {
    /// Whether this resource version is known to match the applied object.
    pub fn is_current(&self, key: &str, hash: &str, version: &str) -> bool {
        self.0.get(key).is_some_and(|entry| entry.hash == hash && entry.version == version)
    }

    /// Whether `result` is what the API server returned for the same applied object before.
    pub fn is_known_result(&self, key: &str, hash: &str, result: &Value) -> bool {
        self.0.get(key).is_some_and(|entry| entry.hash == hash && entry.result == self::hash(result))
    }

    /// Records a resource version that matches the applied object.
    pub fn remember(&mut self, key: String, hash: &str, version: String, result: &Value) {
        self.0.insert(key, Entry { hash: hash.to_owned(), version, result: self::hash(result) });
    }
}

/// The fields of `live` that `desired` has.
pub fn project(live: &Value, desired: &Value) -> Value {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            desired.iter().filter_map(|(name, value)| Some((name.clone(), project(live.get(name)?, value)))).collect()
        }
        (Value::Array(live), Value::Array(desired)) if desired.iter().all(|item| item_key(item).is_some()) => {
            let found = |item: &Value| live.iter().find(|found| item_key(found) == item_key(item)).cloned();
            desired.iter().map(|item| found(item).map_or(Value::Null, |found| project(&found, item))).collect()
        }
        (live, _) => live.clone(),
    }
}

/// The text that identifies an item of a list. Several mounts of one volume have the same name.
pub fn item_key(item: &Value) -> Option<&str> {
    item["mountPath"].as_str().or(item["name"].as_str())
}

/// Hash of the JSON text, whose maps are sorted.
pub fn hash(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether `live` has every field of `desired`. More fields are no difference: the API server adds defaults, and other
/// writers add fields. Lists of named items are compared by name, other lists by position.
pub fn contains(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => desired
            .iter()
            .all(|(name, value)| live.get(name).map_or_else(|| is_empty(value), |found| contains(found, value))),
        (Value::Array(live), Value::Array(desired)) => {
            let named = desired.iter().all(|item| item_key(item).is_some());
            if named {
                desired
                    .iter()
                    .all(|item| live.iter().any(|found| item_key(found) == item_key(item) && contains(found, item)))
            } else {
                live.len() == desired.len() && live.iter().zip(desired).all(|(live, desired)| contains(live, desired))
            }
        }
        (live, desired) => live == desired,
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
    fn contains_ignores_fields_added_by_the_server() {
        let desired = json!({ "a": 1, "list": [{ "name": "x", "v": 1 }], "flag": false });
        assert!(contains(
            &json!({ "a": 1, "b": 2, "list": [{ "name": "y" }, { "name": "x", "v": 1, "w": 2 }] }),
            &desired
        ));
        assert!(!contains(&json!({ "a": 1, "list": [{ "name": "x", "v": 2 }] }), &desired));
        assert!(!contains(&json!({ "args": ["a", "b"] }), &json!({ "args": ["a"] })));
    }

    #[test]
    fn normalised_result_is_recognised_after_unrelated_changes() {
        let desired = json!({ "spec": { "cpu": "1000m", "list": [{ "name": "x", "v": "0.5" }], "args": ["a"] } });
        let live = |cpu: &str, ready: i32| {
            json!({
                "spec": { "cpu": cpu, "replicas": ready, "list": [{ "name": "y" }, { "name": "x", "v": "500m" }], "args": ["a"] },
                "status": { "ready": ready },
            })
        };
        assert!(!contains(&live("1", 1), &desired));
        let mut memory = AppliedCache::default();
        memory.remember("key".into(), "hash", "1".into(), &project(&live("1", 1), &desired));
        assert!(memory.is_known_result("key", "hash", &project(&live("1", 2), &desired)));
        assert!(!memory.is_known_result("key", "hash", &project(&live("2", 1), &desired)));
        assert!(!memory.is_known_result("key", "other", &project(&live("1", 1), &desired)));
    }
}

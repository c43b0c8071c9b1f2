//! Objects for unit tests.

use serde_json::{Value, json};

use crate::PulseIngest;

/// A PulseIngest as the API server stores it, with `changes` merged into its spec.
pub fn pulse_ingest(changes: Value) -> PulseIngest {
    let mut object = json!({
        "apiVersion": "pulseboard.dev/v1alpha1",
        "kind": "PulseIngest",
        "metadata": { "name": "main", "namespace": "shop", "uid": "11111111-2222-3333-4444-555555555555", "generation": 1 },
        "spec": {
            "image": { "repository": "example.com/pulse", "tag": "1.0.0" },
            "database": { "urlSecretRef": { "name": "database", "key": "uri" } },
            "redis": { "urlSecretRef": { "name": "redis", "key": "url" } },
            "auth": { "jwtSecretRef": { "name": "auth", "key": "secret" } },
        },
    });
    merge(&mut object["spec"], changes);
    serde_json::from_value(object).expect("a valid object")
}

/// Merges `changes` into an object like a JSON merge patch, but keeps nulls.
pub fn merge(into: &mut Value, changes: Value) {
    let Value::Object(changes) = changes else {
        *into = changes;
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    changes.into_iter().for_each(|(name, value)| merge(&mut into[name], value));
}

//! Schemas of Kubernetes' own types, as parts of a pod template.
//!
//! Small types have their whole schema, so the API server refuses a mistake when the object is applied. Affinity, volumes,
//! containers and security contexts are free-form objects: their schemas would have 500 kB in four pod templates, and
//! `kubectl apply` cannot store more than 256 KiB. `desired` reads them with the types of Kubernetes.

use k8s_openapi::api::core::v1 as core;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// An object of a Kubernetes type that is not part of the schema.
pub type Object = Map<String, Value>;

/// Maximum length of a text, in bytes.
const MAX_TEXT: u32 = 4096;
/// Maximum number of items and of keys.
const MAX_ITEMS: u32 = 64;

pub(super) fn tolerations(generator: &mut SchemaGenerator) -> Schema {
    list(of::<core::Toleration>(generator), 16)
}

pub(super) fn topology_spread_constraints(generator: &mut SchemaGenerator) -> Schema {
    map(of::<core::TopologySpreadConstraint>(generator), &["topologyKey", "whenUnsatisfiable"], 8)
}

pub(super) fn env(generator: &mut SchemaGenerator) -> Schema {
    map(of::<core::EnvVar>(generator), &["name"], 64)
}

pub(super) fn env_from(generator: &mut SchemaGenerator) -> Schema {
    list(of::<core::EnvFromSource>(generator), 16)
}

pub(super) fn volume_mounts(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = map(of::<core::VolumeMount>(generator), &["mountPath"], 32);
    let rule = "self.all(mount, mount.mountPath != '/etc/pulse' && !mount.mountPath.startsWith('/etc/pulse/'))";
    schema.insert(
        "x-kubernetes-validations".into(),
        json!([{ "rule": rule, "message": "the operator mounts its own files in /etc/pulse: use another mountPath" }]),
    );
    schema
}

pub(super) fn host_aliases(generator: &mut SchemaGenerator) -> Schema {
    map(of::<core::HostAlias>(generator), &["ip"], 32)
}

pub(super) fn dns_config(generator: &mut SchemaGenerator) -> Schema {
    of::<core::PodDNSConfig>(generator)
}

pub(super) fn object(_: &mut SchemaGenerator) -> Schema {
    free(&json!({}))
}

pub(super) fn volumes(_: &mut SchemaGenerator) -> Schema {
    named(
        32,
        "self.all(volume, !volume.name.startsWith('pulse-'))",
        "names of volumes that start with pulse- are those of the operator: use another name",
    )
}

pub(super) fn containers(_: &mut SchemaGenerator) -> Schema {
    named(
        16,
        "self.all(container, container.name != 'pulse')",
        "the container pulse is the operator's: use another name",
    )
}

/// A list of free-form objects with unique names.
fn named(max: u32, rule: &str, message: &str) -> Schema {
    let name = json!({ "type": "string", "minLength": 1, "maxLength": 63, "description": "Name, unique in the pod." });
    let mut schema = map(free(&json!({ "name": name })), &["name"], max);
    schema.insert("x-kubernetes-validations".into(), json!([{ "rule": rule, "message": message }]));
    schema
}

/// An object of which only these properties are part of the schema.
fn free(properties: &Value) -> Schema {
    json_schema!({
        "type": "object",
        "properties": properties,
        "required": properties.as_object().into_iter().flat_map(|properties| properties.keys()).collect::<Vec<_>>(),
        "maxProperties": MAX_ITEMS,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

fn list(items: Schema, max: u32) -> Schema {
    json_schema!({ "type": "array", "items": items, "maxItems": max })
}

/// A list whose items are identified by their keys: two of the same keys are refused, and server-side apply merges the
/// items of several managers.
fn map(items: Schema, keys: &[&str], max: u32) -> Schema {
    let mut schema = list(items, max);
    schema.insert("x-kubernetes-list-type".into(), "map".into());
    schema.insert("x-kubernetes-list-map-keys".into(), json!(keys));
    schema
}

/// The schema of a Kubernetes type, bounded. It has no descriptions, which would be most of it: `kubectl explain pod.spec`
/// shows them.
fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = T::json_schema(generator);
    RecursiveTransform(bound).transform(&mut schema);
    schema
}

fn bound(schema: &mut Schema) {
    let Some(schema) = schema.as_object_mut() else { return };
    schema.remove("description");
    // The bounds of numbers are tighter.
    schema.remove("format");
    let (limit, value) = match schema.get("type").and_then(Value::as_str) {
        Some("string") => ("maxLength", MAX_TEXT),
        Some("array") => ("maxItems", MAX_ITEMS),
        Some("integer") => ("maximum", i32::MAX.unsigned_abs()),
        Some("object") if schema.contains_key("additionalProperties") => ("maxProperties", MAX_ITEMS),
        _ => return,
    };
    schema.insert(limit.into(), value.into());
}

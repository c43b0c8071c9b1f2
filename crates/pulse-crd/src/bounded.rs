//! Schemas that `derive` cannot express: bounded maps, quantities and lists with keys.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::{Schema, SchemaGenerator, json_schema};

/// Amounts by resource name, such as `cpu: 100m`.
pub type Quantities = BTreeMap<String, IntOrString>;

/// At most 8 quantities.
pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 8,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{ "type": "integer" }, { "type": "string" }],
            "pattern": "^(\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\\+|-)?(([0-9]+(\\.[0-9]*)?)|(\\.[0-9]+))))?$",
            "maxLength": 32,
        },
    })
}

/// At most 32 labels of objects or nodes.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {
            "type": "string",
            "maxLength": 63,
            "pattern": "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$",
        },
        "x-kubernetes-validations": [key_rule()],
    })
}

/// At most 32 annotations.
pub(super) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 1024 },
        "x-kubernetes-validations": [key_rule()],
    })
}

/// A schema cannot bound the keys of a map, so a CEL rule bounds their length.
fn key_rule() -> serde_json::Value {
    serde_json::json!({
        "rule": "self.all(key, size(key) <= 317)",
        "message": "a key must have at most 317 characters: a prefix of 253, a slash, and a name of 63",
    })
}

/// The standard conditions, as a list with one item per type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 64, "description": "Type of the condition." },
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Status of the condition: `True`, `False` or `Unknown`.",
                },
                "reason": {
                    "type": "string",
                    "maxLength": 128,
                    "description": "Reason for the status, in CamelCase.",
                },
                "message": {
                    "type": "string",
                    "maxLength": 4096,
                    "description": "Details of the status, and what to do about it.",
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "Time at which the status last changed.",
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "description": "Generation of the spec that the condition describes.",
                },
            },
        },
    })
}

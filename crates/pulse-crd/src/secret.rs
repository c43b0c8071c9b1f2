//! References to keys of Secrets, and the defaults of their keys.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Reference to a key of a Secret in the namespace of this object.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretKey {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// A reference whose key has a default. The API server fills it in; this does it for objects that were not read from
/// there.
#[derive(Deserialize)]
struct KeyOptional {
    name: String,
    key: Option<String>,
}

pub(super) fn with_uri_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretKey, D::Error> {
    let KeyOptional { name, key } = KeyOptional::deserialize(deserializer)?;
    Ok(SecretKey { name, key: key.unwrap_or_else(|| "uri".into()) })
}

pub(super) fn with_url_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SecretKey, D::Error> {
    let KeyOptional { name, key } = KeyOptional::deserialize(deserializer)?;
    Ok(SecretKey { name, key: key.unwrap_or_else(|| "url".into()) })
}

pub(super) fn with_optional_uri_key<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SecretKey>, D::Error> {
    with_optional_key(deserializer, "uri")
}

pub(super) fn with_ca_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SecretKey>, D::Error> {
    with_optional_key(deserializer, "ca.crt")
}

fn with_optional_key<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
    default: &str,
) -> Result<Option<SecretKey>, D::Error> {
    let given = Option::<KeyOptional>::deserialize(deserializer)?;
    Ok(given.map(|KeyOptional { name, key }| SecretKey { name, key: key.unwrap_or_else(|| default.into()) }))
}

pub(super) fn uri_secret(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    secret_with_default_key("uri")
}

pub(super) fn url_secret(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    secret_with_default_key("url")
}

pub(super) fn ca_secret(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    secret_with_default_key("ca.crt")
}

fn secret_with_default_key(key: &str) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string", "minLength": 1, "maxLength": 253, "description": "Name of the Secret." },
            "key": {
                "type": "string",
                "minLength": 1,
                "maxLength": 253,
                "default": key,
                "description": format!("Key in the Secret. Defaults to `{key}`."),
            },
        },
    })
}

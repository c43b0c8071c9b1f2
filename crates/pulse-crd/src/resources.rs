//! CPU and memory of a container.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bounded::{Quantities, quantities};

/// CPU and memory requests and limits of a container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Amounts that are reserved for the container. Defaults to `cpu: 100m` and `memory: 128Mi`.
    #[schemars(schema_with = "quantities", default = "default_requests")]
    pub requests: Quantities,
    /// Amounts that the container cannot exceed. Defaults to `memory: 512Mi`.
    #[schemars(schema_with = "quantities", default = "default_limits")]
    pub limits: Quantities,
}

impl Default for Resources {
    fn default() -> Self {
        Self { requests: default_requests(), limits: default_limits() }
    }
}

fn default_requests() -> Quantities {
    amounts([("cpu", "100m"), ("memory", "128Mi")])
}

fn default_limits() -> Quantities {
    amounts([("memory", "512Mi")])
}

fn amounts<const N: usize>(amounts: [(&str, &str); N]) -> Quantities {
    amounts.into_iter().map(|(name, amount)| (name.to_owned(), IntOrString::String(amount.to_owned()))).collect()
}

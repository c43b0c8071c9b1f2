//! Reads the free-form parts of a pod template with the types of Kubernetes.

use k8s_openapi::api::core::v1::{Affinity, Container, PodSecurityContext, SecurityContext, Volume};
use pulse_crd::PodTemplate;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The parts that are free-form in the schema.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) affinity: Option<Affinity>,
    pub(super) volumes: Vec<Volume>,
    pub(super) init_containers: Vec<Container>,
    pub(super) sidecars: Vec<Container>,
    pub(super) pod_security_context: Option<PodSecurityContext>,
    pub(super) security_context: Option<SecurityContext>,
}

impl Parts {
    /// # Errors
    /// The path of the first field that has another type or that Kubernetes does not have, and what is wrong with it. The
    /// API server would drop an unknown field without a message when it creates an object.
    pub(super) fn read(template: &PodTemplate) -> Result<Self, String> {
        let PodTemplate {
            affinity, volumes, init_containers, sidecars, pod_security_context, security_context, ..
        } = template;
        Ok(Self {
            affinity: read("affinity", serde_json::to_value(affinity))?,
            volumes: read("volumes", serde_json::to_value(volumes))?,
            init_containers: read("initContainers", serde_json::to_value(init_containers))?,
            sidecars: read("sidecars", serde_json::to_value(sidecars))?,
            pod_security_context: read("podSecurityContext", serde_json::to_value(pod_security_context))?,
            security_context: read("securityContext", serde_json::to_value(security_context))?,
        })
    }
}

fn read<T: DeserializeOwned>(field: &str, value: serde_json::Result<Value>) -> Result<T, String> {
    let mut value = value.map_err(|error| format!("{field}: {error}"))?;
    quantities_as_text(&mut value);
    let mut unknown = None;
    let mut track = serde_path_to_error::Track::new();
    let deserializer = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = serde_ignored::deserialize(deserializer, |path| {
        // `?` stands for an optional value, which the text does not show.
        unknown.get_or_insert_with(|| format!(".{path}").replace(".?", "")[1..].to_owned());
    });
    let read = read.map_err(|error| format!("{field}: {}: {error}", track.path()))?;
    match unknown {
        Some(path) => Err(format!("{field}: Kubernetes 1.33 has no field {path}")),
        None => Ok(read),
    }
}

/// Kubernetes accepts a quantity as a number, its type in Rust only as text.
fn quantities_as_text(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(quantities_as_text),
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), field) {
                    ("requests" | "limits", Value::Object(amounts)) => amounts.values_mut().for_each(number_as_text),
                    ("sizeLimit" | "divisor", amount) => number_as_text(amount),
                    (_, field) => quantities_as_text(field),
                }
            }
        }
        _ => {}
    }
}

fn number_as_text(value: &mut Value) {
    if let Value::Number(number) = value {
        *value = Value::String(number.to_string());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_name_the_field() {
        let table = [
            (
                json!({ "affinity": { "nodeAffinity": { "requiredDuringScheduling": {} } } }),
                "affinity: Kubernetes 1.33 has no field nodeAffinity.requiredDuringScheduling",
            ),
            (
                json!({ "volumes": [{ "name": "a", "secrt": { "secretName": "b" } }] }),
                "volumes: Kubernetes 1.33 has no field 0.secrt",
            ),
            (
                json!({ "sidecars": [{ "name": "a", "image": 3 }] }),
                "sidecars: [0].image: invalid type: integer `3`, expected a string",
            ),
            (
                json!({ "securityContext": { "runAsUser": "root" } }),
                "securityContext: runAsUser: invalid type: string \"root\", expected i64",
            ),
        ];
        for (template, expected) in table {
            let template: PodTemplate = serde_json::from_value(template).expect("the schema accepts it");
            assert_eq!(Parts::read(&template).expect_err("is refused"), expected);
        }
    }

    #[test]
    fn quantities_may_be_numbers() {
        let template: PodTemplate = serde_json::from_value(json!({
            "volumes": [{ "name": "a", "emptyDir": { "sizeLimit": 1024 } }],
            "sidecars": [{ "name": "a", "resources": { "limits": { "cpu": 1, "memory": "1Gi" } } }],
        }))
        .expect("is valid");
        let parts = serde_json::to_value(Parts::read(&template).expect("is read").sidecars).expect("prints");
        assert_eq!(parts[0]["resources"]["limits"], json!({ "cpu": "1", "memory": "1Gi" }));
    }
}

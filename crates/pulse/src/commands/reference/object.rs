//! Every field of a `PulseIngest`, from the schema of its CustomResourceDefinition.

use anyhow::Context;
use serde_json::Value;

use super::page::{Page, Table, cell_text, code};

const INTRODUCTION: &str = "\
The fields of `PulseIngest`, `pulseboard.dev/v1alpha1`. `kubectl explain pulseingest.spec` lists them, too, with those that
Kubernetes defines. [Install, change and remove instances](../how-to/kubernetes.md) says what a change of a field does.";

/// Fields that several roles have, with tables for themselves and what the tables are about.
const COMMON: [(&str, &str); 2] = [
    ("podTemplate", "Additional settings of the pods of a role, in the format of a pod."),
    ("probes", "Times of the probes of a role."),
];

pub(super) fn page() -> anyhow::Result<Page> {
    let crd = serde_json::to_value(pulse_crd::crd())?;
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").context("the CRD has no schema")?;
    let api = &schema["spec"]["properties"]["api"]["properties"];
    let mut text = INTRODUCTION.to_owned();
    text.push_str(&sections("spec", &schema["spec"], api));
    for (name, description) in COMMON {
        let mut field = api[name].clone();
        field["description"] = description.into();
        text.push_str(&section(&format!("`{name}`"), &field, api));
    }
    text.push_str(&sections("status", &schema["status"], api));
    Ok(Page { path: "pulseingest.md".into(), title: "Fields of PulseIngest".into(), text })
}

/// A table of the fields at the top, and one for each of those that have fields. `api` has the common fields.
fn sections(name: &str, parent: &Value, api: &Value) -> String {
    let fields = parent["properties"].as_object().into_iter().flatten();
    let (groups, others): (Vec<_>, Vec<_>) = fields.partition(|(_, field)| field["properties"].is_object());
    let mut top = parent.clone();
    top["properties"] = others.into_iter().map(|(name, field)| (name.clone(), field.clone())).collect();
    let mut text = section(&format!("`{name}`"), &top, api);
    for (group, field) in groups {
        text.push_str(&section(&format!("`{name}.{group}`"), field, api));
    }
    text
}

fn section(heading: &str, parent: &Value, api: &Value) -> String {
    let mut table = Table::new(&["field", "type", "default", "description"]);
    add_fields(&mut table, "", parent, api);
    let description = parent["description"].as_str().map(cell_text).unwrap_or_default();
    format!("\n\n## {heading}\n\n{description}\n\n{}", table.0.trim_end())
}

/// Adds the fields below one. Those without a description are defined by Kubernetes.
fn add_fields(table: &mut Table, prefix: &str, parent: &Value, api: &Value) {
    let required =
        |name: &str| parent["required"].as_array().is_some_and(|names| names.iter().any(|other| other == name));
    for (name, field) in parent["properties"].as_object().into_iter().flatten() {
        let Some(description) = field["description"].as_str() else { continue };
        let (path, description) = (format!("{prefix}{name}"), description.replace('\n', " "));
        if COMMON.iter().any(|(common, _)| common == name) && field["properties"] == api[name]["properties"] {
            table.row(&[
                &code(&path),
                "object",
                "",
                &format!("{description} See [`{name}`](#{}).", name.to_lowercase()),
            ]);
            continue;
        }
        let default = match &field["default"] {
            Value::Null if required(name) => "required".to_owned(),
            Value::Null | Value::Object(_) | Value::Array(_) => String::new(),
            Value::String(text) => code(text),
            value => code(&value.to_string()),
        };
        let description = match description.split_once(" Defaults to ") {
            Some((before, after)) if default.starts_with('`') && !after.contains(". ") => before,
            _ => &description,
        };
        table.row(&[&code(&path), &kind(field), &default, description]);
        add_fields(table, &format!("{path}."), field, api);
        add_fields(table, &format!("{path}[]."), &field["items"], api);
    }
}

fn kind(field: &Value) -> String {
    match field["type"].as_str() {
        Some("array") => {
            format!("list of {}", field.pointer("/items/type").and_then(Value::as_str).unwrap_or("values"))
        }
        Some(name) => name.to_owned(),
        None => "number or text".to_owned(),
    }
}

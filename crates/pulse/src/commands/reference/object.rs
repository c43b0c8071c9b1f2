//! Every field of a `PulseIngest`, from the schema of its CustomResourceDefinition.

use anyhow::Context;
use serde_json::Value;

use super::{Page, Table, code};

const INTRODUCTION: &str = "\
The fields of `PulseIngest`, `pulseboard.dev/v1alpha1`. `kubectl explain pulseingest.spec` lists them, too, with those that
Kubernetes defines. [Install, change and remove instances](../how-to/kubernetes.md) says what a change of a field does.";

pub(super) fn page() -> anyhow::Result<Page> {
    let crd = serde_json::to_value(pulse_crd::crd())?;
    let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties").context("the CRD has no schema")?;
    let mut text = INTRODUCTION.to_owned();
    let template = schema.pointer("/spec/properties/api/properties/podTemplate").context("there is no podTemplate")?;
    for (heading, prefix, fields) in [
        ("`spec`", "", &schema["spec"]),
        ("`podTemplate`", "podTemplate.", template),
        ("`status`", "", &schema["status"]),
    ] {
        let mut table = Table::new(&["field", "type", "default", "description"]);
        add_fields(&mut table, prefix, fields);
        text.push_str(&format!("\n\n## {heading}\n\n{}", table.0.trim_end()));
    }
    Ok(Page { path: "pulseingest.md".into(), title: "Fields of PulseIngest".into(), text })
}

/// Adds the fields below one. Those without a description are defined by Kubernetes.
fn add_fields(table: &mut Table, prefix: &str, parent: &Value) {
    let required =
        |name: &str| parent["required"].as_array().is_some_and(|names| names.iter().any(|other| other == name));
    for (name, field) in parent["properties"].as_object().into_iter().flatten() {
        let Some(description) = field["description"].as_str() else { continue };
        let path = format!("{prefix}{name}");
        let default = match &field["default"] {
            Value::Null if required(name) => "required".to_owned(),
            Value::Null | Value::Object(_) | Value::Array(_) => String::new(),
            Value::String(text) => code(text),
            value => code(&value.to_string()),
        };
        let description = match description.split_once(" Defaults to ") {
            Some((before, after)) if default.starts_with('`') && !after.contains(". ") => before,
            _ => description,
        };
        if name == "podTemplate" {
            table.row(&[&code(&path), "object", "", "see [`podTemplate`](#podtemplate)"]);
            continue;
        }
        table.row(&[&code(&path), &kind(field), &default, description]);
        add_fields(table, &format!("{path}."), field);
        add_fields(table, &format!("{path}[]."), &field["items"]);
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

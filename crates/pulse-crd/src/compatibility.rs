//! The rule for changes of the CRD: only additions. Pure.

use serde_json::Value;

use super::schema_changes::{BreakingChange, Comparison, breaking_changes};

/// The changes from one CustomResourceDefinition to another that are not additions, in the schema of each served version
/// and in what identifies the resource.
pub fn breaking_changes_of_crd(old: &Value, new: &Value) -> Vec<BreakingChange> {
    let mut found = Comparison::default();
    for pointer in ["group", "scope", "names/kind", "names/plural", "names/singular"] {
        found.unchanged(&format!("definition.{}", pointer.replace('/', ".")), at(old, pointer), at(new, pointer));
    }
    // The API server adds the default.
    let strategy = |crd: &Value| at(crd, "conversion/strategy").as_str().unwrap_or("None").into();
    found.unchanged("definition.conversion.strategy", &strategy(old), &strategy(new));
    found.kept("definition.names.shortNames", at(old, "names/shortNames"), at(new, "names/shortNames"));
    let served = |crd: &Value| at(crd, "versions").as_array().cloned().unwrap_or_default();
    for version in served(old).iter().filter(|version| version["served"] == true) {
        let name = version["name"].as_str().unwrap_or_default();
        let same = served(new).into_iter().find(|new| new["name"] == version["name"] && new["served"] == true);
        let Some(new) = same else {
            found.add("definition.versions", format!("{name} is no longer served"));
            continue;
        };
        found.unchanged("definition.subresources", &version["subresources"], &new["subresources"]);
        found.kept("definition.selectableFields", &version["selectableFields"], &new["selectableFields"]);
        let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
        found.0.extend(breaking_changes(&schema(version), &schema(&new)));
    }
    found.0
}

fn at<'a>(crd: &'a Value, pointer: &str) -> &'a Value {
    crd.pointer(&format!("/spec/{pointer}")).unwrap_or(&Value::Null)
}

#[cfg(test)]
#[path = "compatibility_tests.rs"]
mod tests;

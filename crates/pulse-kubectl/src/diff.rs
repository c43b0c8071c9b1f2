//! The fields that applying an object would change in the live one. Pure.

use pulse_reconcile::compare::item_key;
use serde::Serialize;
use serde_json::Value;

/// A field that would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Path of the field, with the name or index of a list item in brackets.
    pub path: String,
    /// Live value; `None` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// Desired value; `None` if the field is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// The fields of `desired` that differ in `live`. Fields that the API server adds, and another notation of a quantity,
/// are not a difference.
pub(crate) fn changed(live: &Value, desired: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    compare(Some(live), desired, "", &mut fields);
    sorted(fields)
}

fn sorted(mut fields: Vec<Field>) -> Vec<Field> {
    fields.sort_by(|one, other| one.path.cmp(&other.path));
    fields
}

fn compare(live: Option<&Value>, desired: &Value, path: &str, fields: &mut Vec<Field>) {
    match (live, desired) {
        (Some(Value::Object(live)), Value::Object(desired)) => {
            for (name, value) in desired {
                compare(live.get(name), value, &join(path, name), fields);
            }
        }
        (Some(Value::Array(live)), Value::Array(desired)) if desired.iter().all(|item| item_key(item).is_some()) => {
            for item in desired {
                let found = live.iter().find(|found| item_key(found) == item_key(item));
                compare(found, item, &format!("{path}[{}]", item_key(item).unwrap_or_default()), fields);
            }
        }
        (Some(Value::Array(live)), Value::Array(desired)) if live.len() == desired.len() => {
            for (index, (live, desired)) in live.iter().zip(desired).enumerate() {
                compare(Some(live), desired, &format!("{path}[{index}]"), fields);
            }
        }
        (Some(Value::String(live)), Value::String(desired)) if is_same_quantity(path, live, desired) => {}
        (live, desired) if live == Some(desired) || (live.is_none() && is_empty(desired)) => {}
        (live, desired) => {
            fields.push(Field { path: path.to_owned(), from: live.cloned(), to: Some(desired.clone()) });
        }
    }
}

/// The fields that `manager` applied and that are not in `desired` any more: applying removes them.
pub(crate) fn dropped(live: &Value, desired: &Value, manager: &str) -> Vec<Field> {
    let entries = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut fields = Vec::new();
    for entry in entries.filter(|entry| entry["manager"] == manager && entry["operation"] == "Apply") {
        walk(&entry["fieldsV1"], Some(live), desired, "", &mut fields);
    }
    sorted(fields)
}

/// `owned` names fields as managedFields does: `f:name`, `k:{keys of an item}`, `v:value of an item`.
fn walk(owned: &Value, live: Option<&Value>, desired: &Value, path: &str, fields: &mut Vec<Field>) {
    for (key, below) in owned.as_object().into_iter().flatten().filter(|(key, _)| *key != ".") {
        let Some((kind, text)) = key.split_once(':') else { continue };
        let keys: Value = serde_json::from_str(text).unwrap_or_default();
        let child = |value: &'_ Value| -> Option<Value> {
            let items = || value.as_array().into_iter().flatten();
            match kind {
                "f" => value.get(text).cloned(),
                "k" => items()
                    .find(|item| keys.as_object().into_iter().flatten().all(|(key, of)| item[key] == *of))
                    .cloned(),
                _ => items().find(|item| **item == keys).cloned(),
            }
        };
        let path = match kind {
            "f" => join(path, text),
            "k" => format!(
                "{path}[{}]",
                keys.as_object().and_then(|keys| keys.values().next()).map(plain).unwrap_or_default()
            ),
            _ => format!("{path}[{}]", plain(&keys)),
        };
        let there = live.and_then(child);
        match child(desired) {
            Some(desired) => walk(below, there.as_ref(), &desired, &path, fields),
            // Absent, or empty.
            None if there.as_ref().is_none_or(is_empty) => {}
            None => fields.push(Field { path, from: there, to: None }),
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a value is one that the API server may omit.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Bool(value) => !value,
        Value::String(text) => text.is_empty(),
        Value::Number(_) => false,
    }
}

/// Compares quantities. Only for paths that hold quantities: elsewhere, `1` and `1000m` are different strings.
fn is_same_quantity(path: &str, one: &str, other: &str) -> bool {
    let takes_quantities = [".resources.", ".sizeLimit"].iter().any(|part| path.contains(part));
    takes_quantities && quantity(one).is_some_and(|one| quantity(other) == Some(one))
}

/// The quantity in thousandths, so that `0.5` and `500m` are exact. `None` if the text is not a quantity.
fn quantity(text: &str) -> Option<f64> {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let thousandths = match unit {
        "m" => 1.0,
        "" => 1e3,
        "k" => 1e6,
        "M" => 1e9,
        "G" => 1e12,
        "T" => 1e15,
        "Ki" => 1e3 * 1024.0,
        "Mi" => 1e3 * 1_048_576.0,
        "Gi" => 1e3 * 1_073_741_824.0,
        "Ti" => 1e3 * 1_099_511_627_776.0,
        _ => return None,
    };
    Some((number.parse::<f64>().ok()? * thousandths).round())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(fields: &[Field]) -> Vec<&str> {
        fields.iter().map(|field| field.path.as_str()).collect()
    }

    #[test]
    fn changed_fields_are_named_by_their_paths() {
        let live = json!({ "spec": { "a": 1, "b": "theirs", "containers": [{ "name": "pulse", "image": "x:1", "args": ["api"] }] } });
        let desired = json!({ "spec": { "a": 1, "flag": false, "text": "", "containers": [
            { "name": "pulse", "image": "x:2", "args": ["api", "--more"] }, { "name": "more" },
        ] } });
        let fields = changed(&live, &desired);
        let expected = ["spec.containers[more]", "spec.containers[pulse].args", "spec.containers[pulse].image"];
        assert_eq!(paths(&fields), expected);
        assert_eq!((&fields[2].from, &fields[2].to), (&Some(json!("x:1")), &Some(json!("x:2"))));
    }

    #[test]
    fn mounts_of_one_volume_are_distinguished_by_their_paths() {
        let mounts = |second: &str| json!([{ "name": "a", "mountPath": "/a" }, { "name": "a", "mountPath": "/b", "subPath": second }]);
        assert_eq!(changed(&mounts("x"), &mounts("x")), []);
        assert_eq!(paths(&changed(&mounts("x"), &mounts("y"))), ["[/b].subPath"]);
    }

    #[test]
    fn equal_quantities_are_not_a_change() {
        let of = |cpu: &str, memory: &str| json!({ "spec": { "resources": { "limits": { "cpu": cpu, "memory": memory } }, "x": cpu } });
        assert_eq!(paths(&changed(&of("1", "1Gi"), &of("1000m", "1024Mi"))), ["spec.x"]);
        let fields = changed(&of("1", "1Gi"), &of("1", "1G"));
        assert_eq!(paths(&fields), ["spec.resources.limits.memory"]);
    }

    #[test]
    fn fields_that_are_not_applied_any_more_are_dropped_unless_another_manager_owns_them() {
        let live = json!({
            "metadata": { "managedFields": [
                { "manager": "us", "operation": "Apply", "fieldsV1": { "f:spec": {
                    "f:selector": { "f:disk": {} }, "f:kept": {},
                    "f:env": { "k:{\"name\":\"A\"}": { ".": {}, "f:value": {} }, "k:{\"name\":\"B\"}": { ".": {} } },
                } } },
                { "manager": "us", "operation": "Update", "fieldsV1": { "f:spec": { "f:replicas": {} } } },
                { "manager": "them", "operation": "Apply", "fieldsV1": { "f:spec": { "f:theirs": {} } } },
            ] },
            "spec": {
                "selector": { "disk": "ssd" }, "kept": 1, "replicas": 2, "theirs": 3,
                "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
            },
        });
        let desired = json!({ "spec": { "kept": 1, "env": [{ "name": "A", "value": "1" }] } });
        assert_eq!(paths(&dropped(&live, &desired, "us")), ["spec.env[B]", "spec.selector"]);
    }
}

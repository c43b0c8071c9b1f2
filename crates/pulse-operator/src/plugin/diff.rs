//! What applying an object would change in what is there, field by field. Pure.

use serde::Serialize;
use serde_json::Value;

/// A field that would change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Where: names and, in brackets, what names an item of a list.
    pub path: String,
    /// What is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What should be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// The fields of `wanted` that `live` does not have so. What the API server adds, and how it writes a quantity, is no
/// difference.
pub(super) fn changed(live: &Value, wanted: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    compare(Some(live), wanted, "", &mut fields);
    fields
}

fn compare(live: Option<&Value>, wanted: &Value, path: &str, fields: &mut Vec<Field>) {
    match (live, wanted) {
        (Some(Value::Object(live)), Value::Object(wanted)) => {
            for (name, value) in wanted {
                compare(live.get(name), value, &join(path, name), fields);
            }
        }
        (Some(Value::Array(live)), Value::Array(wanted)) if wanted.iter().all(|item| item["name"].is_string()) => {
            for item in wanted {
                let found = live.iter().find(|found| found["name"] == item["name"]);
                compare(found, item, &format!("{path}[{}]", item["name"].as_str().unwrap_or_default()), fields);
            }
        }
        (Some(Value::Array(live)), Value::Array(wanted)) if live.len() == wanted.len() => {
            for (index, (live, wanted)) in live.iter().zip(wanted).enumerate() {
                compare(Some(live), wanted, &format!("{path}[{index}]"), fields);
            }
        }
        (Some(Value::String(live)), Value::String(wanted)) if is_same_quantity(path, live, wanted) => {}
        (live, wanted) if live == Some(wanted) || (live.is_none() && is_empty(wanted)) => {}
        (live, wanted) => {
            fields.push(Field { path: path.to_owned(), from: live.cloned(), to: Some(wanted.clone()) });
        }
    }
}

/// The fields that `manager` applied and `wanted` has no more: applying removes them.
pub(super) fn dropped(live: &Value, wanted: &Value, manager: &str) -> Vec<Field> {
    let entries = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut fields = Vec::new();
    for entry in entries.filter(|entry| entry["manager"] == manager && entry["operation"] == "Apply") {
        walk(&entry["fieldsV1"], Some(live), wanted, "", &mut fields);
    }
    fields
}

/// `owned` names fields as managedFields does: `f:name`, `k:{keys of an item}`, `v:value of an item`.
fn walk(owned: &Value, live: Option<&Value>, wanted: &Value, path: &str, fields: &mut Vec<Field>) {
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
        match child(wanted) {
            Some(wanted) => walk(below, there.as_ref(), &wanted, &path, fields),
            // Gone already, or never more than empty.
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

/// What the API server may leave out.
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

/// Only below `resources`, `limits` and the like: elsewhere, `1` and `1000m` are two texts.
fn is_same_quantity(path: &str, one: &str, other: &str) -> bool {
    let takes_quantities = [".resources.", ".sizeLimit"].iter().any(|part| path.contains(part));
    takes_quantities && quantity(one).is_some_and(|one| quantity(other) == Some(one))
}

/// In thousandths, so that halves and millis are exact.
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
    fn a_changed_field_is_named_by_its_path() {
        let live = json!({ "spec": { "a": 1, "b": "theirs", "containers": [{ "name": "pulse", "image": "x:1", "args": ["api"] }] } });
        let wanted = json!({ "spec": { "a": 1, "flag": false, "text": "", "containers": [
            { "name": "pulse", "image": "x:2", "args": ["api", "--more"] }, { "name": "more" },
        ] } });
        let fields = changed(&live, &wanted);
        let expected = ["spec.containers[pulse].args", "spec.containers[pulse].image", "spec.containers[more]"];
        assert_eq!(paths(&fields), expected);
        assert_eq!((&fields[1].from, &fields[1].to), (&Some(json!("x:1")), &Some(json!("x:2"))));
    }

    #[test]
    fn a_quantity_in_another_spelling_is_no_change() {
        let of = |cpu: &str, memory: &str| json!({ "spec": { "resources": { "limits": { "cpu": cpu, "memory": memory } }, "x": cpu } });
        assert_eq!(paths(&changed(&of("1", "1Gi"), &of("1000m", "1024Mi"))), ["spec.x"]);
        let fields = changed(&of("1", "1Gi"), &of("1", "1G"));
        assert_eq!(paths(&fields), ["spec.resources.limits.memory"]);
    }

    #[test]
    fn what_is_no_longer_wanted_is_dropped_and_what_is_of_others_stays() {
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
        let wanted = json!({ "spec": { "kept": 1, "env": [{ "name": "A", "value": "1" }] } });
        assert_eq!(paths(&dropped(&live, &wanted, "us")), ["spec.env[B]", "spec.selector"]);
    }
}

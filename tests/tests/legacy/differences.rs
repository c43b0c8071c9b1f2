//! Compares the answers of two services to the same script.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

/// Fields whose values differ from run to run, so that only their types are compared.
const GENERATED: [&str; 6] = ["id", "event_id", "event_ids", "task_id", "user_id", "session_id"];

/// One answer that the script printed.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub step: String,
    pub status: u16,
    pub content_type: String,
    pub body: Value,
}

/// Returns what differs, each as `field: before → now`. Bodies are compared if the statuses are equal.
pub(crate) fn differences(before: &[Answer], now: &[Answer]) -> BTreeSet<String> {
    let steps = |answers: &[Answer]| answers.iter().map(|answer| answer.step.clone()).collect::<Vec<_>>();
    assert_eq!(steps(before), steps(now), "the script does the same");
    let mut found = BTreeSet::new();
    for (before, now) in before.iter().zip(now) {
        if before.status != now.status {
            found.insert(format!("{}: {} → {}", before.step, before.status, now.status));
            continue;
        }
        if before.content_type != now.content_type {
            found.insert(format!("Content-Type: {} → {}", before.content_type, now.content_type));
        }
        compare("", &before.body, &now.body, &mut found);
    }
    found
}

fn compare(field: &str, before: &Value, now: &Value, found: &mut BTreeSet<String>) {
    match (before, now) {
        (Value::Object(before), Value::Object(now)) => compare_objects(field, before, now, found),
        (Value::Array(before), Value::Array(now)) => {
            if before.len() != now.len() {
                found.insert(format!("{field}: {} items → {} items", before.len(), now.len()));
            }
            before.iter().zip(now).for_each(|(before, now)| compare(field, before, now, found));
        }
        // The list of events was the whole body.
        (Value::Array(_), Value::Object(page)) if page.contains_key("events") => {
            let before = Map::from_iter([("events".to_owned(), before.clone())]);
            found.insert("body of the list: list → object".to_owned());
            compare_objects(field, &before, page, found);
        }
        _ => {
            let (was, is) = (class(before), class(now));
            let generated = GENERATED.contains(&field.rsplit('.').next().unwrap_or_default());
            if was != is {
                found.insert(format!("{field}: {was} → {is}"));
            } else if before != now && !was.starts_with("time") && !generated {
                found.insert(format!("{field}: {was} → other {is}"));
            }
        }
    }
}

fn compare_objects(field: &str, before: &Map<String, Value>, now: &Map<String, Value>, found: &mut BTreeSet<String>) {
    let mut now = now.clone();
    for (name, was) in before {
        // Events have the same names in a list and alone.
        let path = if field.is_empty() || field == "events" { name.clone() } else { format!("{field}.{name}") };
        match now.remove(name) {
            // The list of invalid values has moved.
            Some(Value::String(_)) if was.is_array() && now.contains_key("errors") => {
                found.insert(format!("{path}: list → text"));
                let errors = now.remove("errors").unwrap_or_default();
                found.insert("errors: added".to_owned());
                compare("errors", was, &errors, found);
            }
            Some(is) => compare(&path, was, &is, found),
            None => {
                found.insert(format!("{path}: removed"));
            }
        }
    }
    for name in now.keys() {
        let path = if field.is_empty() || field == "events" { name.clone() } else { format!("{field}.{name}") };
        found.insert(format!("{path}: added"));
    }
}

/// What is compared of a value besides the value itself.
fn class(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(text) if is_time(text) => {
            if text.ends_with('Z') {
                "time with Z"
            } else {
                "time without offset"
            }
        }
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}

fn is_time(text: &str) -> bool {
    text.len() >= 19 && text.as_bytes()[10] == b'T' && pulse_core::parse_time(text).is_some()
}

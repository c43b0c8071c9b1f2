//! Compares two schemas, and names each change after which an object or a program that relies on the first one fails, or
//! means something else. Pure.

use std::fmt;

use serde_json::{Map, Value};

/// Keywords that bound a value from below, and those that bound it from above.
const LOWER_BOUNDS: [&str; 4] = ["minimum", "minLength", "minItems", "minProperties"];
const UPPER_BOUNDS: [&str; 4] = ["maximum", "maxLength", "maxItems", "maxProperties"];
/// Keywords without a meaning for objects.
const TEXTS: [&str; 4] = ["description", "title", "example", "externalDocs"];
/// Keywords with a rule in this file. All others must stay as they are.
const CHECKED: [&str; 9] = [
    "type",
    "default",
    "enum",
    "nullable",
    "properties",
    "items",
    "additionalProperties",
    "required",
    "x-kubernetes-validations",
];

/// A change that is not an addition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakingChange {
    /// Field, such as `spec.api.replicas`; `[]` stands for the items of a list or the values of a map.
    pub path: String,
    /// What is different.
    pub what: String,
}

impl fmt::Display for BreakingChange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.path, self.what)
    }
}

/// The changes from one schema of the object to another that are not additions.
pub fn breaking_changes(old: &Value, new: &Value) -> Vec<BreakingChange> {
    let mut found = Comparison::default();
    for part in ["spec", "status"] {
        found.compare(part, &old["properties"][part], &new["properties"][part]);
    }
    // Rules about the whole object.
    found.rules("object", old, new);
    found.0
}

/// The changes found so far.
#[derive(Default)]
pub(super) struct Comparison(pub(super) Vec<BreakingChange>);

impl Comparison {
    pub(super) fn add(&mut self, path: &str, what: String) {
        self.0.push(BreakingChange { path: path.to_owned(), what });
    }

    pub(super) fn unchanged(&mut self, path: &str, old: &Value, new: &Value) {
        if old != new {
            self.add(path, format!("was {old}, is {new}"));
        }
    }

    /// Every item of a list is still there.
    pub(super) fn kept(&mut self, path: &str, old: &Value, new: &Value) {
        for item in old.as_array().into_iter().flatten() {
            if !new.as_array().is_some_and(|items| items.contains(item)) {
                self.add(path, format!("{item} is removed"));
            }
        }
    }

    fn compare(&mut self, path: &str, old: &Value, new: &Value) {
        if new.is_null() {
            if !old.is_null() {
                self.add(path, "the field is removed".into());
            }
            return;
        }
        if old["type"] != new["type"] {
            return self.add(path, format!("the type was {}, is {}", old["type"], new["type"]));
        }
        self.bounds(path, old, new);
        self.values(path, old, new);
        self.rules(path, old, new);
        self.other_keywords(path, old, new);
        for name in old["properties"].as_object().into_iter().flatten().map(|(name, _)| name) {
            self.compare(&format!("{path}.{name}"), &old["properties"][name], &new["properties"][name]);
        }
        for inner in ["items", "additionalProperties"].into_iter().filter(|inner| old[*inner].is_object()) {
            self.compare(&format!("{path}[]"), &old[inner], &new[inner]);
        }
        for name in names(new, "required").filter(|name| !names(old, "required").any(|before| before == *name)) {
            // The API server adds the default before it validates.
            if new["properties"][name]["default"].is_null() {
                self.add(&format!("{path}.{name}"), "the field is now required".into());
            }
        }
    }

    fn bounds(&mut self, path: &str, old: &Value, new: &Value) {
        let of = |schema: &Value, keyword: &str| schema[keyword].as_f64();
        for keyword in LOWER_BOUNDS {
            let narrower = of(new, keyword).is_some_and(|new| of(old, keyword).is_none_or(|old| new > old));
            if narrower {
                self.add(path, format!("{keyword} was {}, is {}", old[keyword], new[keyword]));
            }
        }
        for keyword in UPPER_BOUNDS {
            let narrower = of(new, keyword).is_some_and(|new| of(old, keyword).is_none_or(|old| new < old));
            if narrower {
                self.add(path, format!("{keyword} was {}, is {}", old[keyword], new[keyword]));
            }
        }
    }

    fn values(&mut self, path: &str, old: &Value, new: &Value) {
        if !extends(&old["default"], &new["default"], new) {
            self.unchanged(&format!("{path} (default)"), &old["default"], &new["default"]);
        }
        if old["nullable"] == true && new["nullable"] != true {
            self.add(path, "null is no longer allowed".into());
        }
        match (old["enum"].as_array(), new["enum"].as_array()) {
            (None, Some(_)) => self.add(path, format!("only {} are allowed now", new["enum"])),
            (Some(old), Some(new)) => {
                for value in old.iter().filter(|value| !new.contains(value)) {
                    self.add(path, format!("the value {value} is removed"));
                }
                // A program of the earlier version reads the status, which the operator writes without being asked.
                for value in new.iter().filter(|value| path.starts_with("status") && !old.contains(value)) {
                    self.add(path, format!("the value {value} is new in the status"));
                }
            }
            (_, None) => {}
        }
    }

    fn rules(&mut self, path: &str, old: &Value, new: &Value) {
        let rules = |schema: &Value| {
            let rules = schema["x-kubernetes-validations"].as_array().cloned().unwrap_or_default();
            rules.into_iter().map(|rule| rule["rule"].to_string()).collect::<Vec<_>>()
        };
        let before = rules(old);
        for rule in rules(new).iter().filter(|rule| !before.contains(rule)) {
            self.add(path, format!("the rule {rule} is new"));
        }
    }

    fn other_keywords(&mut self, path: &str, old: &Value, new: &Value) {
        let empty = Map::new();
        let [old_map, new_map] = [old, new].map(|schema| schema.as_object().unwrap_or(&empty));
        let known = |keyword: &str| {
            [&CHECKED[..], &TEXTS, &LOWER_BOUNDS, &UPPER_BOUNDS].iter().any(|known| known.contains(&keyword))
        };
        let mut keywords: Vec<&String> = old_map.keys().chain(new_map.keys()).filter(|name| !known(name)).collect();
        keywords.sort();
        keywords.dedup();
        // An OpenAPI document spells out what this keyword means.
        let is_int_or_string = old["x-kubernetes-int-or-string"] == true && new["x-kubernetes-int-or-string"] == true;
        let implied = |keyword: &str| is_int_or_string && matches!(keyword, "anyOf" | "allOf" | "oneOf");
        for keyword in keywords.into_iter().filter(|keyword| !implied(keyword)) {
            self.unchanged(&format!("{path} ({keyword})"), &old[keyword], &new[keyword]);
        }
    }
}

/// Whether a default is the same, apart from new fields of objects, and from fields that `schema` no longer has.
fn extends(old: &Value, new: &Value, schema: &Value) -> bool {
    match (old.as_object(), new.as_object()) {
        (Some(old), Some(new)) => old.iter().all(|(name, value)| {
            let field = &schema["properties"][name];
            new.get(name).map_or(field.is_null(), |found| extends(value, found, field))
        }),
        _ => old == new,
    }
}

fn names<'a>(schema: &'a Value, keyword: &str) -> impl Iterator<Item = &'a str> {
    schema[keyword].as_array().into_iter().flatten().filter_map(Value::as_str)
}

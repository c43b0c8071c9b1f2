//! Fits a value into the schema of an older version. Pure.

use serde_json::Value;

/// The value without the fields that the schema does not have, with texts and lists cut to its bounds. `None` if nothing
/// of it fits.
pub fn fit(value: Value, schema: &Value) -> Option<Value> {
    let is_allowed = schema["enum"].as_array().is_none_or(|allowed| allowed.contains(&value));
    let limit = |keyword: &str| schema[keyword].as_u64().and_then(|limit| usize::try_from(limit).ok());
    match value {
        _ if !is_allowed => None,
        Value::Object(fields) if schema["properties"].is_object() => {
            let known = |name: &str| schema["properties"].get(name);
            let fields: serde_json::Map<String, Value> = fields
                .into_iter()
                .filter_map(|(name, value)| fit(value, known(&name)?).map(|value| (name, value)))
                .collect();
            // An object without a field that it needs is refused.
            let needed = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let is_complete = needed.into_iter().all(|name| fields.contains_key(name));
            is_complete.then_some(Value::Object(fields))
        }
        Value::Array(items) if schema["items"].is_object() => {
            let items = items.into_iter().filter_map(|item| fit(item, &schema["items"]));
            Some(items.take(limit("maxItems").unwrap_or(usize::MAX)).collect())
        }
        Value::String(text) => match limit("maxLength") {
            Some(longest) => Some(text.chars().take(longest).collect::<String>().into()),
            None => Some(Value::String(text)),
        },
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn value_keeps_only_what_the_schema_accepts() {
        let schema = json!({ "type": "object", "properties": {
            "text": { "type": "string", "maxLength": 3 },
            "state": { "type": "string", "enum": ["On", "Off"] },
            "list": { "type": "array", "maxItems": 2, "items": {
                "type": "object", "required": ["key"], "properties": { "key": { "type": "string", "enum": ["a", "b"] } },
            } },
            "any": { "type": "object", "additionalProperties": { "type": "string" } },
            "group": { "type": "object", "required": ["needed"], "properties": { "needed": { "enum": ["x"] } } },
        } });
        let value = json!({
            "text": "数字と文", "state": "Paused", "new": 1, "any": { "x": "y" }, "group": { "needed": "y" },
            "list": [{ "key": "c" }, { "key": "a", "new": 1 }, { "key": "b" }, { "key": "a" }],
        });
        let fitted = json!({ "text": "数字と", "any": { "x": "y" }, "list": [{ "key": "a" }, { "key": "b" }] });
        assert_eq!(fit(value, &schema), Some(fitted.clone()));
        assert_eq!(fit(fitted.clone(), &schema), Some(fitted), "what fits is unchanged");
    }
}

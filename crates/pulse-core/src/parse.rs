//! Parses and validates an event once, when a request arrives.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::diagnostic::{FieldError, Warning};
use crate::event::{Limits, NewEvent};
use crate::json::{JsonError, check_text};

/// The known fields of an event; `timestamp` is an alias of `event_timestamp`.
pub const EVENT_FIELDS: [&str; 9] = [
    "event_name",
    "event_type",
    "source",
    "session_id",
    "payload",
    "ip_address",
    "user_agent",
    "event_timestamp",
    "timestamp",
];

/// Parses one event from JSON text. Call [`crate::repair`] on the text first.
///
/// Unknown fields are ignored and reported in the warnings, at most 20 of them.
///
/// # Errors
/// Every invalid field, so that a client can correct all of them at once. A text that is too large, is nested too deep,
/// has a number out of range, or is not a JSON object gives only that error.
pub fn parse_event(text: &str, limits: &Limits) -> Result<(NewEvent, Vec<Warning>), Vec<FieldError>> {
    if text.len() > limits.event_bytes {
        let msg =
            format!("the event has {} bytes, the limit is {}: send a smaller event", text.len(), limits.event_bytes);
        return Err(vec![FieldError::new("", "event_too_large", msg)]);
    }
    check_text(text, limits.depth).map_err(|error| {
        let kind = match error {
            JsonError::TooDeep { .. } => "too_deep",
            JsonError::NumberOutOfRange { .. } => "number_out_of_range",
        };
        vec![FieldError::new("", kind, error.to_string())]
    })?;
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text)
        .map_err(|_| vec![FieldError::new("", "object_type", "an event is a JSON object")])?;

    let mut fields = Fields { fields, errors: Vec::new() };
    let event_name = fields.required_text("event_name", 255);
    let event_type = fields.required_text("event_type", 100);
    let source = fields.optional_text("source", 100);
    let session_id = fields.optional_text("session_id", 255);
    let payload = fields.payload();
    let ip_address = fields.ip_address();
    let user_agent = fields.optional_text("user_agent", limits.user_agent_chars);
    let event_timestamp = fields.timestamp("event_timestamp").or_else(|| fields.timestamp("timestamp"));
    let warnings = fields.unknown();
    match (event_name, event_type, fields.errors) {
        (Some(event_name), Some(event_type), errors) if errors.is_empty() => {
            let event = NewEvent {
                event_name,
                event_type,
                source,
                session_id,
                payload,
                ip_address,
                user_agent,
                event_timestamp,
            };
            Ok((event, warnings))
        }
        (_, _, errors) => Err(errors),
    }
}

/// The fields of one event that is being parsed, and the errors found so far.
struct Fields<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    errors: Vec<FieldError>,
}

impl Fields<'_> {
    fn fail(&mut self, field: &'static str, kind: &'static str, msg: impl Into<String>) {
        self.errors.push(FieldError::new(field, kind, msg));
    }

    /// Returns the value of the field; `null` counts as absent.
    fn optional<T: DeserializeOwned>(&mut self, field: &'static str, kind: &'static str, expected: &str) -> Option<T> {
        let raw = self.fields.get(field).filter(|raw| raw.get() != "null")?;
        let parsed = serde_json::from_str(raw.get()).ok();
        if parsed.is_none() {
            self.fail(field, kind, format!("input should be {expected}"));
        }
        parsed
    }

    fn optional_text(&mut self, field: &'static str, max_chars: usize) -> Option<String> {
        let text: String = self.optional(field, "string_type", "a string")?;
        let length = text.chars().count();
        if length > max_chars {
            self.fail(
                field,
                "string_too_long",
                format!("the string has {length} characters, the limit is {max_chars}"),
            );
        }
        Some(text)
    }

    fn required_text(&mut self, field: &'static str, max_chars: usize) -> Option<String> {
        if self.fields.get(field).is_none_or(|raw| raw.get() == "null") {
            self.fail(field, "missing", "field required");
            return None;
        }
        let text = self.optional_text(field, max_chars)?;
        if text.is_empty() {
            self.fail(field, "string_too_short", "the string should have at least 1 character");
        }
        Some(text)
    }

    fn payload(&mut self) -> String {
        match self.fields.get("payload").map(|raw| raw.get()) {
            None | Some("null") => "{}".to_owned(),
            Some(text) if text.starts_with('{') => text.to_owned(),
            Some(_) => {
                self.fail("payload", "object_type", "input should be a JSON object");
                String::new()
            }
        }
    }

    fn ip_address(&mut self) -> Option<String> {
        let text = self.optional_text("ip_address", 45)?;
        if text.parse::<IpAddr>().is_err() {
            self.fail("ip_address", "ip_address", "input should be an IPv4 or IPv6 address");
        }
        Some(text)
    }

    /// Parses an RFC 3339 time. A time without an offset is UTC: existing clients send such times.
    fn timestamp(&mut self, field: &'static str) -> Option<DateTime<Utc>> {
        let text: String = self.optional(field, "datetime_type", "an RFC 3339 date and time")?;
        let parsed = DateTime::parse_from_rfc3339(&text)
            .map(|time| time.to_utc())
            .or_else(|_| text.parse::<NaiveDateTime>().map(|time| time.and_utc()))
            .ok()
            .filter(|time| (1970..=9999).contains(&chrono::Datelike::year(time)));
        if parsed.is_none() {
            self.fail(field, "datetime_parsing", "input should be an RFC 3339 date and time from 1970 to 9999");
        }
        parsed
    }

    fn unknown(&self) -> Vec<Warning> {
        self.fields
            .keys()
            .filter(|name| !EVENT_FIELDS.contains(&name.as_ref()))
            .take(20)
            .map(|name| {
                let shown: String = name.chars().take(64).collect();
                Warning::new("unknown_field", format!("field `{shown}` is not part of an event and was ignored"))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { event_bytes: 2000, depth: 5, user_agent_chars: 50 };

    fn errors(text: &str) -> Vec<(String, &'static str)> {
        let errors = parse_event(text, &LIMITS).expect_err("rejected");
        errors.into_iter().map(|error| (serde_json::to_string(&error.loc).expect("serialises"), error.kind)).collect()
    }

    #[test]
    fn parsing_requires_only_name_and_type() {
        let (event, warnings) =
            parse_event(r#"{"event_name":"a","event_type":"b","source":null}"#, &LIMITS).expect("parses");
        assert_eq!((event.payload.as_str(), event.source, warnings), ("{}", None, vec![]));
    }

    #[test]
    fn payload_keeps_all_digits() {
        let text = r#"{"event_name":"a","event_type":"b","payload":{"n":123456789012345678901234567890}}"#;
        let (event, _) = parse_event(text, &LIMITS).expect("parses");
        assert_eq!(event.payload, r#"{"n":123456789012345678901234567890}"#);
    }

    #[test]
    fn parsing_reports_every_invalid_field_with_its_path() {
        let text =
            r#"{"event_name":"","event_type":7,"payload":[],"ip_address":"1.2.3","event_timestamp":"yesterday"}"#;
        assert_eq!(
            errors(text),
            [
                (r#"["body","event_name"]"#.to_owned(), "string_too_short"),
                (r#"["body","event_type"]"#.to_owned(), "string_type"),
                (r#"["body","payload"]"#.to_owned(), "object_type"),
                (r#"["body","ip_address"]"#.to_owned(), "ip_address"),
                (r#"["body","event_timestamp"]"#.to_owned(), "datetime_parsing"),
            ]
        );
    }

    #[test]
    fn length_limits_count_characters() {
        let name = "é".repeat(255);
        let good = format!(r#"{{"event_name":"{name}","event_type":"b"}}"#);
        assert!(parse_event(&good, &LIMITS).is_ok());
        let bad = format!(r#"{{"event_name":"{name}x","event_type":"b"}}"#);
        assert_eq!(errors(&bad)[0].1, "string_too_long");
    }

    #[test]
    fn size_depth_and_shape_are_checked_before_fields() {
        assert_eq!(errors(&"x".repeat(2001))[0].1, "event_too_large");
        assert_eq!(errors("[[[[[[1]]]]]]")[0].1, "too_deep");
        assert_eq!(errors(r#"{"event_name":1e999}"#)[0].1, "number_out_of_range");
        assert_eq!(errors("[]")[0].1, "object_type");
    }

    #[test]
    fn unknown_fields_are_ignored_with_a_warning() {
        let (_, warnings) = parse_event(r#"{"event_name":"a","event_type":"b","colour":1}"#, &LIMITS).expect("parses");
        assert_eq!(warnings[0].code, "unknown_field");
    }

    #[test]
    fn timestamp_without_offset_is_utc() {
        let text = r#"{"event_name":"a","event_type":"b","timestamp":"2025-12-18T10:30:00"}"#;
        let (event, _) = parse_event(text, &LIMITS).expect("parses");
        assert_eq!(event.event_timestamp.expect("given").to_rfc3339(), "2025-12-18T10:30:00+00:00");
    }
}

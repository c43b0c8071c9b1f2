//! Parses and validates an event once, when a request arrives.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::diagnostic::{FieldError, Warning};
use crate::event::{Limits, NewEvent};
use crate::fields::{TEXT_FIELDS, TextField, TextFields, TextFormat};
use crate::json::{JsonError, check_text};

/// The fields of an event besides the text fields; `timestamp` is an alias of `event_timestamp`.
const OTHER_FIELDS: [&str; 3] = ["payload", "event_timestamp", "timestamp"];

/// Returns whether an event has a field with this name.
pub fn is_event_field(name: &str) -> bool {
    TEXT_FIELDS.iter().any(|field| field.name == name) || OTHER_FIELDS.contains(&name)
}

/// Parses one event from JSON text. Call [`crate::repair`] on the text first.
///
/// Unknown fields are ignored and reported in the warnings, at most 20 of them.
///
/// # Errors
/// Every invalid field, so that a client can correct all of them at once. A text that is too large or is not a JSON
/// object gives only that error.
pub fn parse_event(text: &str, limits: &Limits) -> Result<(NewEvent, Vec<Warning>), Vec<FieldError>> {
    if text.len() > limits.event_bytes {
        let msg =
            format!("the event has {} bytes, the limit is {}: send a smaller event", text.len(), limits.event_bytes);
        return Err(vec![FieldError::new("", "event_too_large", msg)]);
    }
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text)
        .map_err(|_| vec![FieldError::new("", "object_type", "an event is a JSON object")])?;

    let mut parser = Parser { fields, errors: Vec::new(), stored_bytes: 0 };
    let event = NewEvent {
        fields: parser.text_fields(),
        payload: parser.payload(limits),
        stored_bytes: parser.stored_bytes,
        event_timestamp: parser.timestamp("event_timestamp").or_else(|| parser.timestamp("timestamp")),
    };
    let warnings = parser.unknown();
    if parser.errors.is_empty() { Ok((event, warnings)) } else { Err(parser.errors) }
}

/// The fields of one event that is being parsed, and the errors found so far.
struct Parser<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    errors: Vec<FieldError>,
    /// [`NewEvent::stored_bytes`] of the fields that are parsed already.
    stored_bytes: usize,
}

impl Parser<'_> {
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

    /// Returns the valid text fields. If there are errors, the others are empty.
    fn text_fields(&mut self) -> TextFields {
        let mut fields = TextFields::default();
        for field in TEXT_FIELDS {
            if let Some(text) = self.text(field) {
                self.stored_bytes += text.len();
                (field.set)(&mut fields, text);
            }
        }
        fields
    }

    fn text(&mut self, field: &TextField) -> Option<String> {
        if field.required && self.fields.get(field.name).is_none_or(|raw| raw.get() == "null") {
            self.fail(field.name, "missing", "field required");
            return None;
        }
        let text: String = self.optional(field.name, "string_type", "a string")?;
        let (length, limit) = (text.chars().count(), field.max_chars);
        if length > limit {
            let msg = format!("the string has {length} characters, the limit is {limit}");
            self.fail(field.name, "string_too_long", msg);
        }
        if field.required && text.is_empty() {
            self.fail(field.name, "string_too_short", "the string should have at least 1 character");
        }
        match field.format {
            TextFormat::IpAddress if text.parse::<IpAddr>().is_err() => {
                self.fail(field.name, "ip_address", "input should be an IPv4 or IPv6 address");
            }
            TextFormat::IpAddress | TextFormat::Any => {}
        }
        Some(text)
    }

    /// Returns the payload. Call this after [`Self::text_fields`]: the limit applies to the sum of their bytes.
    fn payload(&mut self, limits: &Limits) -> String {
        let text = match self.fields.get("payload").map(|raw| raw.get()) {
            None | Some("null") => "{}",
            Some(text) if text.starts_with('{') => text,
            Some(_) => {
                self.fail("payload", "object_type", "input should be a JSON object");
                return String::new();
            }
        };
        match check_text(text, limits.depth.saturating_sub(1)) {
            Ok(bytes) => self.stored_bytes += bytes,
            Err(JsonError::TooDeep) => {
                let msg = format!("the event is nested deeper than {} levels", limits.depth);
                self.fail("payload", "too_deep", msg);
            }
            Err(error @ JsonError::NumberOutOfRange { .. }) => {
                self.fail("payload", "number_out_of_range", error.to_string());
            }
        }
        let (bytes, limit) = (self.stored_bytes, limits.stored_bytes());
        if bytes > limit {
            let msg = format!(
                "the event has {bytes} bytes when it is read back, because numbers are stored without an exponent (1e300 \
                 has 301 digits); the limit is {limit}: send numbers without large exponents, or as strings"
            );
            self.fail("payload", "event_too_large", msg);
        }
        text.to_owned()
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
            .filter(|name| !is_event_field(name))
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

    const LIMITS: Limits = Limits { event_bytes: 2000, depth: 5 };

    fn errors(text: &str) -> Vec<(String, &'static str)> {
        let errors = parse_event(text, &LIMITS).expect_err("rejected");
        errors.into_iter().map(|error| (serde_json::to_string(&error.loc).expect("serialises"), error.kind)).collect()
    }

    #[test]
    fn parsing_requires_only_name_and_type() {
        let (event, warnings) =
            parse_event(r#"{"event_name":"a","event_type":"b","source":null}"#, &LIMITS).expect("parses");
        assert_eq!((event.payload.as_str(), event.fields.source, warnings), ("{}", None, vec![]));
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
                (r#"["body","ip_address"]"#.to_owned(), "ip_address"),
                (r#"["body","payload"]"#.to_owned(), "object_type"),
                (r#"["body","event_timestamp"]"#.to_owned(), "datetime_parsing"),
            ]
        );
    }

    #[test]
    fn length_limits_count_characters() {
        let event = |name: &str, text: String| format!(r#"{{"event_name":"a","event_type":"b","{name}":"{text}"}}"#);
        for field in TEXT_FIELDS.iter().filter(|field| field.format == TextFormat::Any) {
            let longest = "é".repeat(field.max_chars);
            let limits = Limits { event_bytes: 10_000, ..LIMITS };
            assert!(parse_event(&event(field.name, longest.clone()), &limits).is_ok(), "{}", field.name);
            let errors = parse_event(&event(field.name, longest + "x"), &limits).expect_err("rejected");
            assert_eq!(errors[0].kind, "string_too_long", "{}", field.name);
        }
    }

    #[test]
    fn size_depth_and_shape_are_checked_before_fields() {
        assert_eq!(errors(&"x".repeat(2001))[0].1, "event_too_large");
        assert_eq!(errors("[[[[[[1]]]]]]"), [(r#"["body"]"#.to_owned(), "object_type")]);
    }

    #[test]
    fn payload_that_postgresql_cannot_store_is_invalid_at_its_path() {
        for (payload, kind) in [("[[[[1]]]]", "too_deep"), ("1e999", "number_out_of_range")] {
            let text = format!(r#"{{"event_type":"b","payload":{{"n":{payload}}}}}"#);
            let expected = [("event_name", "missing"), ("payload", kind)];
            assert_eq!(errors(&text), expected.map(|(field, kind)| (format!(r#"["body","{field}"]"#), kind)));
        }
        parse_event(r#"{"event_name":"a","event_type":"b","x":[[[[[1e999]]]]],"payload":{"n":[[[1]]]}}"#, &LIMITS)
            .expect("only what is stored is checked");
    }

    #[test]
    fn stored_bytes_are_those_of_payload_and_text_fields_and_limited() {
        let event = |numbers: usize| {
            let numbers = vec!["1e-400"; numbers].join(",");
            format!(r#"{{"event_name":"\u00e9","event_type":"b","x":[1e-400],"payload":{{"n":[{numbers}]}}}}"#)
        };
        let (parsed, _) = parse_event(&event(9), &LIMITS).expect("parses");
        assert_eq!(parsed.stored_bytes, "éb".len() + r#"{"n": []}"#.len() + 9 * 402 + 8 * ", ".len());
        assert!(event(10).len() < LIMITS.event_bytes, "small as sent");
        let error = parse_event(&event(10), &LIMITS).expect_err("4,050 bytes").remove(0);
        assert_eq!(error.kind, "event_too_large");
        assert!(error.msg.starts_with("the event has 4050 bytes when it is read back"), "{}", error.msg);
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

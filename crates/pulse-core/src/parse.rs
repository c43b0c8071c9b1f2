//! Parses and validates an event once, when a request arrives.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::diagnostic::{FieldError, Warning};
use crate::event::{Limits, NewEvent};
use crate::fields::{TEXT_FIELDS, TextField, TextFields, TextFormat};
use crate::json::{JsonError, check_text};
use crate::time::{EXPECTED_TIME, parse_epoch, parse_time};

/// The fields of an event besides the text fields; `timestamp` is an alias of `event_timestamp`.
const OTHER_FIELDS: [&str; 3] = ["payload", "event_timestamp", "timestamp"];

/// Maximum number of unknown fields that are reported.
const MAX_UNKNOWN_FIELDS: usize = 20;
/// Maximum length of a text that a warning or an error repeats, in characters.
const MAX_SHOWN_CHARS: usize = 64;

/// Returns whether an event has a field with this name.
fn is_event_field(name: &str) -> bool {
    TEXT_FIELDS.iter().any(|field| field.name == name) || OTHER_FIELDS.contains(&name)
}

/// Returns the names that are not known, for warnings and errors: the first 20, each cut at 64 characters.
pub fn unknown_fields<'a>(
    names: impl Iterator<Item = &'a Cow<'a, str>>,
    is_known: impl Fn(&str) -> bool,
) -> Vec<String> {
    names.filter(|name| !is_known(name)).take(MAX_UNKNOWN_FIELDS).map(|name| shown(name)).collect()
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).collect()
}

/// Parses one event from JSON text. Call [`crate::repair`] on the text first.
///
/// Unknown fields, an `ip_address` that is none, an empty time, and a `timestamp` that differs from `event_timestamp` are
/// ignored and reported in the warnings; if `strict`, they are errors.
///
/// # Errors
/// Every invalid field, so that a client can correct all of them at once. A text that is too large or is not a JSON
/// object gives only that error.
pub fn parse_event(text: &str, limits: &Limits, strict: bool) -> Result<(NewEvent, Vec<Warning>), Vec<FieldError>> {
    if text.len() > limits.event_bytes {
        let msg =
            format!("the event has {} bytes, the limit is {}: send a smaller event", text.len(), limits.event_bytes);
        return Err(vec![FieldError::new("", "event_too_large", msg)]);
    }
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(text)
        .map_err(|_| vec![FieldError::new("", "object_type", "an event is a JSON object")])?;

    let mut parser = Parser { fields, strict, errors: Vec::new(), warnings: Vec::new(), stored_bytes: 0 };
    let event = NewEvent {
        fields: parser.text_fields(),
        payload: parser.payload(limits),
        stored_bytes: parser.stored_bytes,
        event_timestamp: parser.event_timestamp(),
    };
    parser.unknown();
    if parser.errors.is_empty() { Ok((event, parser.warnings)) } else { Err(parser.errors) }
}

/// The fields of one event that is being parsed, and what was found so far.
struct Parser<'a> {
    fields: BTreeMap<Cow<'a, str>, &'a RawValue>,
    strict: bool,
    errors: Vec<FieldError>,
    warnings: Vec<Warning>,
    /// [`NewEvent::stored_bytes`] of the fields that are parsed already.
    stored_bytes: usize,
}

impl Parser<'_> {
    fn fail(&mut self, field: &'static str, kind: &'static str, msg: impl Into<String>) {
        self.errors.push(FieldError::new(field, kind, msg));
    }

    /// Ignores a field with a warning, or with an error of the type `kind` if the client is strict.
    fn ignore(&mut self, field: impl Into<Cow<'static, str>>, code: &'static str, kind: &'static str, reason: &str) {
        if self.strict {
            self.errors.push(FieldError::new(field, kind, reason));
        } else {
            self.warnings.push(Warning::ignored(field, code, reason));
        }
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
        if field.format == TextFormat::IpAddress {
            return self.ip_address(field.name, text);
        }
        let (length, limit) = (text.chars().count(), field.max_chars);
        if length > limit {
            let msg = format!("the string has {length} characters, the limit is {limit}");
            self.fail(field.name, "string_too_long", msg);
        }
        if field.required && text.is_empty() {
            self.fail(field.name, "string_too_short", "the string should have at least 1 character");
        }
        Some(text)
    }

    /// Returns the text if it is an address. Gateways also write a port, brackets, a zone, a list or a word, and an event
    /// is worth more than its address.
    fn ip_address(&mut self, field: &'static str, text: String) -> Option<String> {
        if text.parse::<IpAddr>().is_ok() {
            return Some(text);
        }
        let reason = format!("`{}` is not one IPv4 or IPv6 address without port, brackets and zone", shown(&text));
        self.ignore(field, "invalid_ip_address", "ip_address", &reason);
        None
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

    /// Returns the time in `event_timestamp`, or else in `timestamp`.
    fn event_timestamp(&mut self) -> Option<DateTime<Utc>> {
        match (self.time("event_timestamp"), self.time("timestamp")) {
            (Some(Ok(time)), alias) => {
                if alias.is_some_and(|alias| alias != Ok(time)) {
                    let reason = "`event_timestamp` has another value";
                    self.ignore("timestamp", "differing_timestamp", "differing_timestamp", reason);
                }
                Some(time)
            }
            (given, alias) => {
                let given = given.and_then(|time| self.valid("event_timestamp", time));
                given.or(alias.and_then(|time| self.valid("timestamp", time)))
            }
        }
    }

    /// Returns the time of a field, or the type of its error. An absent, null or empty field has none.
    fn time(&mut self, field: &'static str) -> Option<Result<DateTime<Utc>, &'static str>> {
        let literal = self.fields.get(field)?.get();
        let time = match literal.as_bytes() {
            b"null" => return None,
            br#""""# => {
                self.ignore(field, "empty_timestamp", "datetime_parsing", "the string is empty");
                return None;
            }
            [b'"', ..] => serde_json::from_str::<Cow<'_, str>>(literal).ok().and_then(|text| parse_time(&text)),
            [b'-' | b'0'..=b'9', ..] => parse_epoch(literal),
            _ => return Some(Err("datetime_type")),
        };
        Some(time.ok_or("datetime_parsing"))
    }

    fn valid(&mut self, field: &'static str, time: Result<DateTime<Utc>, &'static str>) -> Option<DateTime<Utc>> {
        time.map_err(|kind| self.fail(field, kind, format!("input should be {EXPECTED_TIME}"))).ok()
    }

    fn unknown(&mut self) {
        for name in unknown_fields(self.fields.keys(), is_event_field) {
            self.ignore(name, "unknown_field", "extra_forbidden", "it is not part of an event");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { event_bytes: 2000, depth: 5 };

    fn errors(text: &str) -> Vec<(String, &'static str)> {
        let errors = parse_event(text, &LIMITS, false).expect_err("rejected");
        errors.into_iter().map(|error| (serde_json::to_string(&error.loc).expect("serialises"), error.kind)).collect()
    }

    #[test]
    fn parsing_requires_only_name_and_type() {
        let (event, warnings) =
            parse_event(r#"{"event_name":"a","event_type":"b","source":null}"#, &LIMITS, false).expect("parses");
        assert_eq!((event.payload.as_str(), event.fields.source, warnings), ("{}", None, vec![]));
    }

    #[test]
    fn payload_keeps_all_digits() {
        let text = r#"{"event_name":"a","event_type":"b","payload":{"n":123456789012345678901234567890}}"#;
        let (event, _) = parse_event(text, &LIMITS, false).expect("parses");
        assert_eq!(event.payload, r#"{"n":123456789012345678901234567890}"#);
    }

    #[test]
    fn parsing_reports_every_invalid_field_with_its_path() {
        let text = r#"{"event_name":"","event_type":7,"payload":[],"ip_address":1,"event_timestamp":"yesterday"}"#;
        assert_eq!(
            errors(text),
            [
                (r#"["body","event_name"]"#.to_owned(), "string_too_short"),
                (r#"["body","event_type"]"#.to_owned(), "string_type"),
                (r#"["body","ip_address"]"#.to_owned(), "string_type"),
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
            assert!(parse_event(&event(field.name, longest.clone()), &limits, false).is_ok(), "{}", field.name);
            let errors = parse_event(&event(field.name, longest + "x"), &limits, false).expect_err("rejected");
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
        parse_event(
            r#"{"event_name":"a","event_type":"b","x":[[[[[1e999]]]]],"payload":{"n":[[[1]]]}}"#,
            &LIMITS,
            false,
        )
        .expect("only what is stored is checked");
    }

    #[test]
    fn stored_bytes_are_those_of_payload_and_text_fields_and_limited() {
        let event = |numbers: usize| {
            let numbers = vec!["1e-400"; numbers].join(",");
            format!(r#"{{"event_name":"\u00e9","event_type":"b","x":[1e-400],"payload":{{"n":[{numbers}]}}}}"#)
        };
        let (parsed, _) = parse_event(&event(9), &LIMITS, false).expect("parses");
        assert_eq!(parsed.stored_bytes, "éb".len() + r#"{"n": []}"#.len() + 9 * 402 + 8 * ", ".len());
        assert!(event(10).len() < LIMITS.event_bytes, "small as sent");
        let error = parse_event(&event(10), &LIMITS, false).expect_err("4,050 bytes").remove(0);
        assert_eq!(error.kind, "event_too_large");
        assert!(error.msg.starts_with("the event has 4050 bytes when it is read back"), "{}", error.msg);
    }

    /// An event with this field, and its warnings as code and detail.
    fn parsed(field: &str) -> (NewEvent, Vec<(&'static str, String)>) {
        let text = format!(r#"{{"event_name":"a","event_type":"b",{field}}}"#);
        let (event, warnings) =
            parse_event(&text, &LIMITS, false).unwrap_or_else(|errors| panic!("{field}: {errors:?}"));
        (event, warnings.into_iter().map(|warning| (warning.code, warning.detail)).collect())
    }

    /// Types of the errors of an event with this field, for a strict client.
    fn strict_errors(field: &str) -> Vec<&'static str> {
        let text = format!(r#"{{"event_name":"a","event_type":"b",{field}}}"#);
        let errors = parse_event(&text, &LIMITS, true).err().unwrap_or_default();
        errors.into_iter().map(|error| error.kind).collect()
    }

    #[test]
    fn unknown_fields_are_ignored_with_a_warning() {
        let (_, warnings) = parsed(r#""colour":1"#);
        assert_eq!(warnings, [("unknown_field", "field `colour` was ignored: it is not part of an event".into())]);
        assert_eq!(strict_errors(r#""colour":1"#), ["extra_forbidden"]);
    }

    #[test]
    fn ip_address_that_is_none_is_ignored_with_a_warning() {
        let list = ["10.0.0.1"; 9].join(", ");
        for odd in ["", "unknown", "1.2.3.4:5678", "[::1]", "[::1]:443", "fe80::1%eth0", "1.2.3.4, 5.6.7.8", &list] {
            let field = format!(r#""ip_address":"{odd}""#);
            let (event, warnings) = parsed(&field);
            assert_eq!((event.fields.ip_address, event.stored_bytes), (None, 4), "{odd}");
            let detail = format!("field `ip_address` was ignored: `{}` is not one IPv4 or IPv6 address", shown(odd));
            assert_eq!(warnings.len(), 1, "{odd}");
            assert!(warnings[0].0 == "invalid_ip_address" && warnings[0].1.starts_with(&detail), "{}", warnings[0].1);
            assert_eq!(strict_errors(&field), ["ip_address"]);
        }
        for good in ["1.2.3.4", "::1", "2001:db8::ff00:42:8329", "::ffff:192.0.2.128"] {
            let (event, warnings) = parsed(&format!(r#""ip_address":"{good}""#));
            assert_eq!((event.fields.ip_address.as_deref(), warnings), (Some(good), vec![]));
        }
    }

    #[test]
    fn times_are_read_from_text_and_numbers() {
        for field in [
            r#""timestamp":"2025-12-18T10:30:00""#,
            r#""event_timestamp":"2025-12-18 10:30:00""#,
            r#""event_timestamp":"2025-12-18\u005f10:30:00""#,
            r#""event_timestamp":1766053800"#,
            r#""event_timestamp":1766053800000"#,
            r#""event_timestamp":1.7660538e9"#,
            r#""event_timestamp":"1766053800""#,
            r#""event_timestamp":null,"timestamp":1766053800"#,
            r#""event_timestamp":"2025-12-18T10:30:00Z","timestamp":1766053800"#,
        ] {
            let (event, warnings) = parsed(field);
            let time = event.event_timestamp.map(|time| time.to_rfc3339());
            assert_eq!((time.as_deref(), warnings), (Some("2025-12-18T10:30:00+00:00"), vec![]), "{field}");
        }
    }

    #[test]
    fn times_that_are_none_are_errors() {
        for (time, kind) in [
            (r#""now""#, "datetime_parsing"),
            (r#"" ""#, "datetime_parsing"),
            ("1e300", "datetime_parsing"),
            ("true", "datetime_type"),
            ("{}", "datetime_type"),
        ] {
            for name in ["event_timestamp", "timestamp"] {
                let text = format!(r#"{{"event_name":"a","event_type":"b","{name}":{time}}}"#);
                assert_eq!(errors(&text), [(format!(r#"["body","{name}"]"#), kind)]);
            }
        }
        let both = r#"{"event_name":"a","event_type":"b","event_timestamp":"x","timestamp":"y"}"#;
        assert_eq!(errors(both).len(), 2);
    }

    #[test]
    fn empty_time_is_ignored_with_a_warning() {
        for name in ["event_timestamp", "timestamp"] {
            let field = format!(r#""{name}":"""#);
            let (event, warnings) = parsed(&field);
            assert_eq!(event.event_timestamp, None);
            assert_eq!(warnings, [("empty_timestamp", format!("field `{name}` was ignored: the string is empty"))]);
            assert_eq!(strict_errors(&field), ["datetime_parsing"]);
        }
        let (event, _) = parsed(r#""event_timestamp":"","timestamp":1766053800"#);
        assert!(event.event_timestamp.is_some(), "the alias is used instead");
    }

    #[test]
    fn timestamp_that_differs_from_event_timestamp_is_ignored_with_a_warning() {
        for other in [r#""2025-12-18T10:30:01Z""#, r#""yesterday""#, "true"] {
            let field = format!(r#""event_timestamp":"2025-12-18T10:30:00Z","timestamp":{other}"#);
            let (event, warnings) = parsed(&field);
            assert_eq!(event.event_timestamp.map(|time| time.timestamp()), Some(1_766_053_800));
            assert_eq!(warnings[0].0, "differing_timestamp");
            assert_eq!(strict_errors(&field), ["differing_timestamp"]);
        }
    }
}

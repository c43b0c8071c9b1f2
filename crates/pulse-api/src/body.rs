//! Parses the body of a request into valid events, or into a list of all errors.
//!
//! No I/O. The common case parses each event once. Only after an error is the JSON syntax checked separately, to
//! distinguish a body that is not JSON (400) from JSON that is not a valid event (422).

use std::borrow::Cow;
use std::collections::BTreeMap;

use pulse_core::{FieldError, Limits, NewEvent, Warning, parse_event, repair, unknown_fields};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::prefer::Handling;

/// Why a body was rejected.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum BodyError {
    /// Not UTF-8 or not JSON; the text names the position.
    Malformed(String),
    /// The event of a single post is too large.
    TooLarge(FieldError),
    /// The batch has more items than the limit.
    TooMany { items: usize, limit: usize },
    /// JSON with invalid values: all of them.
    Invalid(Vec<FieldError>),
}

/// An event and the warnings about it.
pub(crate) type Parsed = (NewEvent, Vec<Warning>);

/// A parsed batch.
#[derive(Debug, PartialEq)]
pub(crate) struct ParsedBatch {
    /// Number of items in the request.
    pub items: usize,
    /// The valid events, in the order of the request.
    pub events: Vec<NewEvent>,
    /// Warnings about the valid events and about the batch.
    pub warnings: Vec<Warning>,
    /// Index and errors of the invalid items, in the order of the request; empty unless the handling is lenient.
    pub rejected: Vec<(usize, Vec<FieldError>)>,
}

/// Parses the body of a single event.
pub(crate) fn parse_single(body: &[u8], limits: &Limits, handling: Handling) -> Result<Parsed, BodyError> {
    let (text, mut warnings) = repair(utf8(body)?);
    match parse_item(trim(&text), limits, handling) {
        Ok((event, others)) => {
            warnings.extend(others);
            Ok((event, warnings))
        }
        Err(errors) => {
            check_syntax(&text)?;
            match <[FieldError; 1]>::try_from(errors) {
                Ok([error]) if error.kind == "event_too_large" => Err(BodyError::TooLarge(error)),
                Ok([error]) => Err(BodyError::Invalid(vec![error])),
                Err(errors) => Err(BodyError::Invalid(errors)),
            }
        }
    }
}

/// Parses the body of a batch of 1 to `max_items` events.
///
/// Unless the handling is lenient, one invalid item rejects the whole batch.
pub(crate) fn parse_batch(
    body: &[u8],
    limits: &Limits,
    max_items: usize,
    handling: Handling,
) -> Result<ParsedBatch, BodyError> {
    let (text, mut warnings) = repair(utf8(body)?);
    let fields = match serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(&text) {
        Ok(fields) => fields,
        Err(_) => {
            check_syntax(&text)?;
            return Err(invalid("", "object_type", "a batch is a JSON object with the field `events`"));
        }
    };
    let items = items(&fields, max_items)?;
    let mut errors = Vec::new();
    for name in unknown_fields(fields.keys(), |name| name == "events") {
        let reason = "it is not part of a batch";
        match handling {
            Handling::Strict => errors.push(FieldError::new(name, "extra_forbidden", reason)),
            Handling::Default | Handling::Lenient => warnings.push(Warning::ignored(name, "unknown_field", reason)),
        }
    }
    let mut batch = ParsedBatch { items: items.len(), events: Vec::new(), warnings, rejected: Vec::new() };
    for (index, item) in items.into_iter().enumerate() {
        match parse_item(item.get(), limits, handling) {
            Ok((event, warnings)) => {
                batch.events.push(event);
                batch.warnings.extend(warnings.into_iter().map(|warning| Warning { index: Some(index), ..warning }));
            }
            Err(errors) => {
                batch.rejected.push((index, errors.into_iter().map(|error| error.in_batch(index)).collect()));
            }
        }
    }
    if handling != Handling::Lenient || batch.events.is_empty() {
        errors.extend(std::mem::take(&mut batch.rejected).into_iter().flat_map(|(_, errors)| errors));
    }
    if errors.is_empty() { Ok(batch) } else { Err(BodyError::Invalid(errors)) }
}

fn items<'a>(fields: &BTreeMap<Cow<'_, str>, &'a RawValue>, limit: usize) -> Result<Vec<&'a RawValue>, BodyError> {
    let events = match fields.get("events").map(|events| events.get()) {
        None | Some("null") => return Err(invalid("events", "missing", "field required")),
        Some(events) => events,
    };
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(events) else {
        return Err(invalid("events", "list_type", "input should be a list of events"));
    };
    match items.len() {
        0 => Err(invalid("events", "too_short", "the list should have at least 1 event")),
        items if items > limit => Err(BodyError::TooMany { items, limit }),
        _ => Ok(items),
    }
}

fn parse_item(text: &str, limits: &Limits, handling: Handling) -> Result<Parsed, Vec<FieldError>> {
    parse_event(text, limits, handling == Handling::Strict)
}

fn invalid(field: &'static str, kind: &'static str, msg: &str) -> BodyError {
    BodyError::Invalid(vec![FieldError::new(field, kind, msg)])
}

/// Returns the text of a body without the byte order mark that some clients send.
fn utf8(body: &[u8]) -> Result<&str, BodyError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| BodyError::Malformed(format!("the body is not UTF-8 from byte {}", error.valid_up_to())))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Removes the white space that JSON allows around a value.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

fn check_syntax(text: &str) -> Result<(), BodyError> {
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(IgnoredAny) => Ok(()),
        Err(error) => Err(BodyError::Malformed(format!("the body is not valid JSON: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { event_bytes: 500, depth: 8 };
    const VALID: &str = r#"{"event_name":"a","event_type":"b"}"#;

    fn single(body: &[u8]) -> Result<Parsed, BodyError> {
        parse_single(body, &LIMITS, Handling::Default)
    }

    fn batch(body: &str, handling: Handling) -> Result<ParsedBatch, BodyError> {
        parse_batch(body.as_bytes(), &LIMITS, 3, handling)
    }

    fn kinds<T: std::fmt::Debug>(result: Result<T, BodyError>) -> Vec<&'static str> {
        match result {
            Err(BodyError::Invalid(errors)) => errors.into_iter().map(|error| error.kind).collect(),
            other => panic!("expected Invalid, got {other:?}"),
        }
    }

    #[test]
    fn single_event_ignores_white_space_and_byte_order_mark() {
        let (event, warnings) = single(format!("\u{feff}\r\n {VALID}\t").as_bytes()).expect("parses");
        assert_eq!((event.fields.event_name.as_str(), warnings), ("a", vec![]));
    }

    #[test]
    fn invalid_syntax_is_malformed_with_its_position() {
        for body in ["", "{", r#"{"event_name":}"#, "nul", "{} {}", "\u{a0}{}", "{\"a\":\"\u{1}\"}", "[[[[[[[[[["] {
            assert!(matches!(single(body.as_bytes()), Err(BodyError::Malformed(_))), "{body:?}");
        }
        let Err(BodyError::Malformed(text)) = single(b"{\n\"a\" 1}") else { panic!("malformed") };
        assert!(text.ends_with("line 2 column 5"), "{text}");
        assert!(matches!(single(b"{\"a\":\"\xff\"}"), Err(BodyError::Malformed(_))));
        assert!(matches!(batch("{\"events\":[", Handling::Lenient), Err(BodyError::Malformed(_))));
    }

    #[test]
    fn json_that_is_not_an_event_is_invalid() {
        assert_eq!(kinds(single(b"[]")), ["object_type"]);
        assert_eq!(kinds(single(b"null")), ["object_type"]);
        assert_eq!(kinds(single(b"{}")), ["missing", "missing"]);
        assert_eq!(kinds(single(b"[[[[[[[[[1]]]]]]]]]")), ["object_type"]);
    }

    #[test]
    fn large_event_is_too_large_only_if_it_is_json() {
        let large = format!(r#"{{"event_name":"a","event_type":"b","payload":{{"x":"{}"}}}}"#, "x".repeat(500));
        assert!(matches!(single(large.as_bytes()), Err(BodyError::TooLarge(_))));
        assert!(matches!(single(&large.as_bytes()[1..]), Err(BodyError::Malformed(_))));
    }

    #[test]
    fn repairs_and_unknown_fields_give_warnings() {
        let body = r#"{"event_name":"a\u0000","event_type":"b","colour":1}"#;
        let (event, warnings) = single(body.as_bytes()).expect("parses");
        assert_eq!(event.fields.event_name, "a\u{fffd}");
        let codes: Vec<_> = warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, ["nul_replaced", "unknown_field"]);
    }

    #[test]
    fn strict_handling_rejects_unknown_fields() {
        let body = r#"{"event_name":"a","event_type":"b","colour":1}"#;
        let Err(BodyError::Invalid(errors)) = parse_single(body.as_bytes(), &LIMITS, Handling::Strict) else {
            panic!("rejected")
        };
        assert_eq!(errors, [FieldError::new("colour", "extra_forbidden", "it is not part of an event")]);
        let body = r#"{"timestamp":null,"event_name":"a\u0000","event_type":"b"}"#;
        let (_, warnings) = parse_single(body.as_bytes(), &LIMITS, Handling::Strict).expect("parses");
        assert_eq!(warnings.len(), 1, "a repair is not an error");
    }

    #[test]
    fn batch_has_from_one_event_to_the_limit() {
        assert_eq!(kinds(batch("[]", Handling::Default)), ["object_type"]);
        assert_eq!(kinds(batch("{}", Handling::Default)), ["missing"]);
        assert_eq!(kinds(batch(r#"{"events":null}"#, Handling::Default)), ["missing"]);
        assert_eq!(kinds(batch(r#"{"events":{}}"#, Handling::Default)), ["list_type"]);
        assert_eq!(kinds(batch(r#"{"events":[]}"#, Handling::Default)), ["too_short"]);
        assert_eq!(batch(r#"{"events":[1,2,3,4]}"#, Handling::Lenient), Err(BodyError::TooMany { items: 4, limit: 3 }));
    }

    #[test]
    fn batch_with_invalid_items_is_rejected_with_every_index() {
        let body = format!(r#"{{"events":[7,{VALID},{{"event_name":"a"}}]}}"#);
        let Err(BodyError::Invalid(errors)) = batch(&body, Handling::Default) else { panic!("rejected") };
        let indices: Vec<_> = errors.iter().map(|error| error.index).collect();
        assert_eq!(indices, [Some(0), Some(2)]);
        assert_eq!(serde_json::to_string(&errors[1].loc).expect("serialises"), r#"["body","events",2,"event_type"]"#);
    }

    #[test]
    fn batch_with_an_odd_ip_address_is_accepted_unless_handling_is_strict() {
        let body = format!(r#"{{"events":[{VALID},{{"event_name":"a","event_type":"b","ip_address":"unknown"}}]}}"#);
        let ParsedBatch { events, warnings, .. } = batch(&body, Handling::Default).expect("parses");
        assert_eq!(events.len(), 2);
        let warning = (warnings[0].code, warnings[0].field.as_deref(), warnings[0].index);
        assert_eq!(warning, ("invalid_ip_address", Some("ip_address"), Some(1)));
        assert_eq!(kinds(batch(&body, Handling::Strict)), ["ip_address"]);
    }

    #[test]
    fn lenient_handling_keeps_valid_items() {
        let body = format!(r#"{{"events":[7,{VALID}],"x":1}}"#);
        let batch = batch(&body, Handling::Lenient).expect("parses");
        assert_eq!((batch.items, batch.events.len()), (2, 1));
        assert_eq!(batch.rejected.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0]);
        assert_eq!(batch.warnings[0].index, None);
        assert_eq!(kinds(super::parse_batch(br#"{"events":[7]}"#, &LIMITS, 3, Handling::Lenient)), ["object_type"]);
    }

    #[test]
    fn strict_handling_applies_to_batch_and_items() {
        let body = r#"{"events":[{"event_name":"a","event_type":"b","x":1}],"y":2}"#;
        assert_eq!(kinds(batch(body, Handling::Strict)), ["extra_forbidden", "extra_forbidden"]);
        let warnings = batch(body, Handling::Default).expect("parses").warnings;
        assert_eq!(warnings.iter().map(|warning| warning.index).collect::<Vec<_>>(), [None, Some(0)]);
    }
}

//! From the bytes of a body to events that may be stored, or to every reason why not.
//!
//! Pure: no request, no store. The common case reads each event once; the syntax is looked at on its own only after
//! something was wrong, to tell a text that is no JSON (400) from JSON that is no event (422).

use std::borrow::Cow;
use std::collections::BTreeMap;

use pulse_core::{EVENT_FIELDS, FieldError, Limits, Location, NewEvent, Warning, parse_event, repair};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::prefer::Handling;

/// The fields that are part of a batch.
const BATCH_FIELDS: [&str; 1] = ["events"];
/// Unknown fields that are named, at the most.
const NAMED_FIELDS: usize = 20;

/// Why a body was refused.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum BodyError {
    /// Not UTF-8, or no JSON; the text says where.
    Malformed(String),
    /// The one event is too large.
    TooLarge(FieldError),
    /// More items than a batch may have.
    TooMany { items: usize, limit: usize },
    /// JSON, but not what it should be: every wrong place.
    Invalid(Vec<FieldError>),
}

/// One event of a body, with what was changed on the way.
pub(crate) type Parsed = (NewEvent, Vec<Warning>);

/// The events of a batch.
#[derive(Debug, PartialEq)]
pub(crate) struct ParsedBatch {
    /// How many items the batch had.
    pub items: usize,
    /// The good ones, in order.
    pub events: Vec<NewEvent>,
    /// What was changed on the way.
    pub warnings: Vec<Warning>,
    /// The bad ones, in order, each with its index; empty unless the client asked for leniency.
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
/// Unless the client asked for leniency, one bad item refuses them all.
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
    for name in unknown(fields.keys(), &BATCH_FIELDS) {
        match handling {
            Handling::Strict => errors.push(forbidden(name)),
            Handling::Default | Handling::Lenient => {
                let detail = format!("field `{name}` is not part of a batch and was ignored");
                warnings.push(Warning::new("unknown_field", detail));
            }
        }
    }
    let mut batch = ParsedBatch { items: items.len(), events: Vec::new(), warnings, rejected: Vec::new() };
    for (index, item) in items.into_iter().enumerate() {
        match parse_item(item.get(), limits, handling) {
            Ok((event, warnings)) => {
                batch.events.push(event);
                batch.warnings.extend(warnings.into_iter().map(|warning| Warning { index: Some(index), ..warning }));
            }
            Err(wrong) => {
                batch.rejected.push((index, wrong.into_iter().map(|error| error.in_batch(index)).collect()));
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
    let (event, warnings) = parse_event(text, limits)?;
    if handling == Handling::Strict && !warnings.is_empty() {
        let fields: BTreeMap<Cow<'_, str>, IgnoredAny> = serde_json::from_str(text).unwrap_or_default();
        let forbidden: Vec<_> = unknown(fields.keys(), &EVENT_FIELDS).map(forbidden).collect();
        if !forbidden.is_empty() {
            return Err(forbidden);
        }
    }
    Ok((event, warnings))
}

/// The names that are not `known`, cut to a safe length, the first few.
fn unknown<'a>(names: impl Iterator<Item = &'a Cow<'a, str>>, known: &[&str]) -> impl Iterator<Item = String> {
    names
        .filter(|name| !known.contains(&name.as_ref()))
        .take(NAMED_FIELDS)
        .map(|name| name.chars().take(64).collect::<String>())
}

fn forbidden(name: String) -> FieldError {
    let loc = vec![Location::Field("body".into()), Location::Field(name.into())];
    FieldError { loc, msg: "extra fields are not permitted".into(), kind: "extra_forbidden", index: None }
}

fn invalid(field: &'static str, kind: &'static str, msg: &str) -> BodyError {
    BodyError::Invalid(vec![FieldError::new(field, kind, msg)])
}

/// The text of a body, without the byte order mark that some clients write before it.
fn utf8(body: &[u8]) -> Result<&str, BodyError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| BodyError::Malformed(format!("the body is not UTF-8 from byte {} on", error.valid_up_to())))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Without the white space that JSON allows around a value.
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

    const LIMITS: Limits = Limits { event_bytes: 500, depth: 8, user_agent_chars: 100 };
    const GOOD: &str = r#"{"event_name":"a","event_type":"b"}"#;

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
    fn white_space_and_a_byte_order_mark_are_no_part_of_the_event() {
        let (event, warnings) = single(format!("\u{feff}\r\n {GOOD}\t").as_bytes()).expect("parses");
        assert_eq!((event.event_name.as_str(), warnings), ("a", vec![]));
    }

    #[test]
    fn no_json_is_malformed_and_the_place_is_told() {
        for body in ["", "{", r#"{"event_name":}"#, "nul", "{} {}", "\u{a0}{}", "{\"a\":\"\u{1}\"}", "[[[[[[[[[["] {
            assert!(matches!(single(body.as_bytes()), Err(BodyError::Malformed(_))), "{body:?}");
        }
        let Err(BodyError::Malformed(text)) = single(b"{\n\"a\" 1}") else { panic!("malformed") };
        assert!(text.ends_with("line 2 column 5"), "{text}");
        assert!(matches!(single(b"{\"a\":\"\xff\"}"), Err(BodyError::Malformed(_))));
        assert!(matches!(batch("{\"events\":[", Handling::Lenient), Err(BodyError::Malformed(_))));
    }

    #[test]
    fn json_that_is_no_event_is_invalid() {
        assert_eq!(kinds(single(b"[]")), ["object_type"]);
        assert_eq!(kinds(single(b"null")), ["object_type"]);
        assert_eq!(kinds(single(b"{}")), ["missing", "missing"]);
        assert_eq!(kinds(single(b"[[[[[[[[[1]]]]]]]]]")), ["too_deep"]);
    }

    #[test]
    fn a_large_event_is_too_large_only_if_it_is_json() {
        let large = format!(r#"{{"event_name":"a","event_type":"b","payload":{{"x":"{}"}}}}"#, "x".repeat(500));
        assert!(matches!(single(large.as_bytes()), Err(BodyError::TooLarge(_))));
        assert!(matches!(single(&large.as_bytes()[1..]), Err(BodyError::Malformed(_))));
    }

    #[test]
    fn repairs_and_unknown_fields_are_warnings() {
        let body = r#"{"event_name":"a\u0000","event_type":"b","colour":1}"#;
        let (event, warnings) = single(body.as_bytes()).expect("parses");
        assert_eq!(event.event_name, "a\u{fffd}");
        let codes: Vec<_> = warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, ["nul_replaced", "unknown_field"]);
    }

    #[test]
    fn strict_handling_refuses_unknown_fields() {
        let body = r#"{"event_name":"a","event_type":"b","colour":1}"#;
        let Err(BodyError::Invalid(errors)) = parse_single(body.as_bytes(), &LIMITS, Handling::Strict) else {
            panic!("refused")
        };
        assert_eq!(errors, [forbidden("colour".into())]);
        let known = EVENT_FIELDS.map(|name| format!(r#""{name}":null"#)).join(",");
        let body = format!(r#"{{{known},"event_name":"a\u0000","event_type":"b"}}"#);
        let (_, warnings) = parse_single(body.as_bytes(), &LIMITS, Handling::Strict).expect("parses");
        assert_eq!(warnings.len(), 1, "a repair is no mistake");
    }

    #[test]
    fn a_batch_has_one_event_to_the_limit() {
        assert_eq!(kinds(batch("[]", Handling::Default)), ["object_type"]);
        assert_eq!(kinds(batch("{}", Handling::Default)), ["missing"]);
        assert_eq!(kinds(batch(r#"{"events":null}"#, Handling::Default)), ["missing"]);
        assert_eq!(kinds(batch(r#"{"events":{}}"#, Handling::Default)), ["list_type"]);
        assert_eq!(kinds(batch(r#"{"events":[]}"#, Handling::Default)), ["too_short"]);
        assert_eq!(batch(r#"{"events":[1,2,3,4]}"#, Handling::Lenient), Err(BodyError::TooMany { items: 4, limit: 3 }));
    }

    #[test]
    fn one_bad_item_refuses_the_batch_and_every_bad_index_is_told() {
        let body = format!(r#"{{"events":[7,{GOOD},{{"event_name":"a"}}]}}"#);
        let Err(BodyError::Invalid(errors)) = batch(&body, Handling::Default) else { panic!("refused") };
        let indices: Vec<_> = errors.iter().map(|error| error.index).collect();
        assert_eq!(indices, [Some(0), Some(2)]);
        assert_eq!(serde_json::to_string(&errors[1].loc).expect("serialises"), r#"["body","events",2,"event_type"]"#);
    }

    #[test]
    fn lenient_handling_keeps_the_good_items() {
        let body = format!(r#"{{"events":[7,{GOOD}],"x":1}}"#);
        let batch = batch(&body, Handling::Lenient).expect("parses");
        assert_eq!((batch.items, batch.events.len()), (2, 1));
        assert_eq!(batch.rejected.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0]);
        assert_eq!(batch.warnings[0].index, None);
        assert_eq!(kinds(super::parse_batch(br#"{"events":[7]}"#, &LIMITS, 3, Handling::Lenient)), ["object_type"]);
    }

    #[test]
    fn strict_handling_reaches_into_the_batch() {
        let body = r#"{"events":[{"event_name":"a","event_type":"b","x":1}],"y":2}"#;
        assert_eq!(kinds(batch(body, Handling::Strict)), ["extra_forbidden", "extra_forbidden"]);
        let warnings = batch(body, Handling::Default).expect("parses").warnings;
        assert_eq!(warnings.iter().map(|warning| warning.index).collect::<Vec<_>>(), [None, Some(0)]);
    }
}

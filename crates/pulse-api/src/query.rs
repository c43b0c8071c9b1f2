//! The query of the event list, parsed by hand so that all errors are reported at once, each with its parameter.
//!
//! Unknown parameters are ignored. A known parameter that is repeated is an error, because its value is ambiguous.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use chrono::{DateTime, SecondsFormat, Utc};
use form_urlencoded::Serializer;
use pulse_core::{EXPECTED_TIME, FieldError, Location, TEXT_FIELDS, TextField, parse_time};
use pulse_store::EventFilter;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, Required};

/// Maximum page size.
const MAX_LIMIT: i64 = 500;
/// Default page size.
const DEFAULT_LIMIT: i64 = 50;
/// Maximum offset. PostgreSQL reads and discards every event before the offset; a cursor avoids that.
const MAX_OFFSET: i64 = 10_000;
/// Maximum length of a cursor, in characters.
const MAX_CURSOR_CHARS: usize = 256;

/// Filters and page of the event list.
#[derive(Debug, Clone, Default, PartialEq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// Maximum number of events on the page.
    #[param(value_type = i64, required = false, minimum = 1, maximum = 500, default = 50)]
    pub limit: Option<i64>,
    /// Number of the newest events to skip. Use `cursor` to skip more than 10 000.
    #[param(value_type = i64, required = false, minimum = 0, maximum = 10000, default = 0)]
    pub offset: Option<i64>,
    /// `next_cursor` of the previous page. Cannot be combined with `offset`.
    #[param(value_type = String, required = false, max_length = 256)]
    pub cursor: Option<String>,
    /// Values of the text fields that the events must have, by name.
    #[param(ignore)]
    pub texts: BTreeMap<&'static str, String>,
    /// `true` lists only processed events, `false` only events that are not processed. `1`, `t`, `yes`, `y`, `on` and
    /// their opposites mean the same, in any case.
    #[param(value_type = bool, required = false)]
    pub processed: Option<bool>,
    /// Only events accepted at this time or later. Times have the same forms as `event_timestamp` of a posted event.
    #[param(value_type = String, format = DateTime, required = false)]
    pub from: Option<DateTime<Utc>>,
    /// Only events accepted before this time.
    #[param(value_type = String, format = DateTime, required = false)]
    pub to: Option<DateTime<Utc>>,
    /// Only events whose `event_timestamp` is this time or later.
    #[param(value_type = String, format = DateTime, required = false)]
    pub event_timestamp_from: Option<DateTime<Utc>>,
    /// Only events whose `event_timestamp` is before this time.
    #[param(value_type = String, format = DateTime, required = false)]
    pub event_timestamp_to: Option<DateTime<Utc>>,
}

impl ListParams {
    /// Parses the query of a request.
    ///
    /// # Errors
    /// Every invalid parameter.
    pub(crate) fn parse(query: &str) -> Result<Self, Vec<FieldError>> {
        let mut query = Query { pairs: form_urlencoded::parse(query.as_bytes()).collect(), errors: Vec::new() };
        let params = Self {
            limit: query.integer("limit", 1..=MAX_LIMIT, ""),
            offset: query.integer("offset", 0..=MAX_OFFSET, "; use cursor to skip more"),
            cursor: query.text("cursor", MAX_CURSOR_CHARS),
            texts: filterable()
                .filter_map(|field| Some((field.name, query.text(field.name, field.max_chars)?)))
                .collect(),
            processed: query.boolean("processed"),
            from: query.time("from"),
            to: query.time("to"),
            event_timestamp_from: query.time("event_timestamp_from"),
            event_timestamp_to: query.time("event_timestamp_to"),
        };
        if params.cursor.is_some() && params.offset.is_some() {
            query.fail("cursor", "cursor_and_offset", "use either cursor or offset, not both");
        }
        if query.errors.is_empty() { Ok(params) } else { Err(query.errors) }
    }

    /// Returns the maximum number of events on the page.
    pub(crate) fn page_size(&self) -> i64 {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// Returns the filters, without the page.
    pub(crate) fn filter(&self) -> EventFilter {
        EventFilter {
            texts: self.texts.clone(),
            processed: self.processed,
            from: self.from,
            to: self.to,
            event_from: self.event_timestamp_from,
            event_to: self.event_timestamp_to,
        }
    }

    /// Returns the query of the page that starts at `next_cursor`.
    pub(crate) fn next_query(&self, next_cursor: &str) -> String {
        let mut query = Serializer::new(String::new());
        query.append_pair("limit", &self.page_size().to_string());
        query.extend_pairs(&self.texts);
        query.extend_pairs(self.processed.map(|processed| ("processed", processed.to_string())));
        for (name, time) in [
            ("from", self.from),
            ("to", self.to),
            ("event_timestamp_from", self.event_timestamp_from),
            ("event_timestamp_to", self.event_timestamp_to),
        ] {
            query.extend_pairs(time.map(|time| (name, time.to_rfc3339_opts(SecondsFormat::AutoSi, true))));
        }
        query.append_pair("cursor", next_cursor);
        query.finish()
    }
}

/// Returns the text fields that have a filter.
fn filterable() -> impl Iterator<Item = &'static TextField> {
    TEXT_FIELDS.iter().filter(|field| field.filterable)
}

/// The filters by text fields, in the OpenAPI document.
pub(crate) struct TextFilters;

impl IntoParams for TextFilters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        filterable()
            .map(|TextField { name, max_chars, .. }| {
                let schema = ObjectBuilder::new()
                    .schema_type(Type::String)
                    .max_length(Some(*max_chars))
                    .pattern(Some(r"^[^\x00]*$"))
                    .build();
                ParameterBuilder::new()
                    .name(*name)
                    .parameter_in(ParameterIn::Query)
                    .required(Required::False)
                    .description(Some(format!("Only events with this `{name}`.")))
                    .schema(Some(schema))
                    .build()
            })
            .collect()
    }
}

/// Creates an error about the parameter `name` in `location` (`query` or `path`).
pub(crate) fn parameter_error(
    location: &'static str,
    name: &'static str,
    kind: &'static str,
    msg: impl Into<String>,
) -> FieldError {
    FieldError {
        loc: vec![Location::Field(location.into()), Location::Field(name.into())],
        msg: msg.into(),
        kind,
        index: None,
    }
}

/// A query that is being parsed, and the errors found so far.
struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    errors: Vec<FieldError>,
}

impl<'a> Query<'a> {
    fn fail(&mut self, name: &'static str, kind: &'static str, msg: impl Into<String>) {
        self.errors.push(parameter_error("query", name, kind, msg));
    }

    fn value(&mut self, name: &'static str) -> Option<Cow<'a, str>> {
        let mut values = self.pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value);
        let value = values.next().cloned();
        if values.next().is_some() {
            self.fail(name, "repeated", "the parameter should be given once");
            return None;
        }
        value
    }

    fn integer(&mut self, name: &'static str, range: RangeInclusive<i64>, advice: &str) -> Option<i64> {
        let text = self.value(name)?;
        let digits = text.strip_prefix('-').unwrap_or(&text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            self.fail(name, "int_parsing", "input should be a whole number");
            return None;
        }
        // A number that overflows i64 is out of range too.
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let msg = format!("input should be from {} to {}{advice}", range.start(), range.end());
            self.fail(name, "out_of_range", msg);
        }
        number
    }

    fn text(&mut self, name: &'static str, max_chars: usize) -> Option<String> {
        let text = self.value(name)?;
        if text.contains('\0') {
            self.fail(name, "nul_character", "input should not contain a NUL character");
            return None;
        }
        let length = text.chars().count();
        if length > max_chars {
            let msg = format!("the string has {length} characters, the limit is {max_chars}");
            self.fail(name, "string_too_long", msg);
            return None;
        }
        Some(text.into_owned())
    }

    fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let text = self.value(name)?.to_ascii_lowercase();
        match text.as_str() {
            "true" | "t" | "1" | "yes" | "y" | "on" => Some(true),
            "false" | "f" | "0" | "no" | "n" | "off" => Some(false),
            _ => {
                self.fail(name, "bool_parsing", "input should be true or false");
                None
            }
        }
    }

    fn time(&mut self, name: &'static str) -> Option<DateTime<Utc>> {
        let time = parse_time(&with_plus(self.value(name)?));
        if time.is_none() {
            self.fail(name, "datetime_parsing", format!("input should be {EXPECTED_TIME}"));
        }
        time
    }
}

/// A `+` that the client did not write as `%2B` arrives as a space. Behind a time, it can only be that of an offset.
fn with_plus(text: Cow<'_, str>) -> Cow<'_, str> {
    match text.rsplit_once(' ') {
        Some((time, offset)) if time.contains(':') => format!("{time}+{offset}").into(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(query: &str) -> Vec<(String, &'static str)> {
        let errors = ListParams::parse(query).expect_err("rejected");
        errors.into_iter().map(|error| (serde_json::to_string(&error.loc).expect("serialises"), error.kind)).collect()
    }

    #[test]
    fn query_has_no_required_parameters() {
        let params = ListParams::parse("").expect("parses");
        assert_eq!(params, ListParams::default());
        assert_eq!(params.page_size(), 50);
    }

    #[test]
    fn query_is_decoded_and_unknown_parameters_are_ignored() {
        let query =
            "limit=500&event_name=page+view%21&processed=false&from=2025-12-18T10:30:00%2B02:00&colour=x&colour";
        let params = ListParams::parse(query).expect("parses");
        assert_eq!((params.limit, params.processed), (Some(500), Some(false)));
        assert_eq!(params.texts, BTreeMap::from([("event_name", "page view!".to_owned())]));
        assert_eq!(params.from.expect("given").to_rfc3339(), "2025-12-18T08:30:00+00:00");
    }

    #[test]
    fn query_errors_name_their_parameter() {
        let long = format!("source={}", "x".repeat(101));
        let huge = format!("limit={}", "9".repeat(400));
        for (query, name, kind) in [
            ("limit=0", "limit", "out_of_range"),
            ("limit=501", "limit", "out_of_range"),
            ("limit=-1", "limit", "out_of_range"),
            (huge.as_str(), "limit", "out_of_range"),
            ("limit=", "limit", "int_parsing"),
            ("limit=ten", "limit", "int_parsing"),
            ("limit=%2B5", "limit", "int_parsing"),
            ("limit=1&limit=1", "limit", "repeated"),
            ("processed=", "processed", "bool_parsing"),
            ("processed=maybe", "processed", "bool_parsing"),
            ("from=", "from", "datetime_parsing"),
            ("from=0000-01-01T00:00:00Z", "from", "datetime_parsing"),
            ("to=yesterday", "to", "datetime_parsing"),
            ("event_type=a%00b", "event_type", "nul_character"),
            (long.as_str(), "source", "string_too_long"),
            ("cursor=x&offset=1", "cursor", "cursor_and_offset"),
        ] {
            assert_eq!(errors(query), [(format!(r#"["query","{name}"]"#), kind)], "{query}");
        }
        assert_eq!(errors("limit=0&processed=2").len(), 2);
    }

    #[test]
    fn booleans_have_all_spellings_that_pydantic_reads() {
        for (value, spellings) in [
            (true, ["true", "True", "TRUE", "t", "1", "yes", "Y", "on"]),
            (false, ["false", "False", "FALSE", "f", "0", "no", "N", "off"]),
        ] {
            for text in spellings {
                let params = ListParams::parse(&format!("processed={text}")).expect("parses");
                assert_eq!(params.processed, Some(value), "{text}");
            }
        }
    }

    #[test]
    fn times_have_all_forms_also_with_a_plus_that_is_not_encoded() {
        for text in [
            "2025-12-18T12:30:00%2B02:00",
            "2025-12-18T12:30:00+02:00",
            "2025-12-18+12:30:00+02:00",
            "2025-12-18 12:30:00+0200",
            "2025-12-18%2012:30+02",
            "2025-12-18+10:30:00",
            "2025-12-18T10:30",
            "1766053800",
            "1766053800000",
        ] {
            let params =
                ListParams::parse(&format!("from={text}")).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
            assert_eq!(params.from.expect("given").to_rfc3339(), "2025-12-18T10:30:00+00:00", "{text}");
        }
        assert_eq!(errors("from=2025-12-18T12:30:00Z+02:00").len(), 1);
    }

    #[test]
    fn too_large_offset_error_mentions_cursor() {
        let errors = ListParams::parse("offset=10001").expect_err("rejected");
        assert!(errors[0].msg.contains("cursor"), "{}", errors[0].msg);
    }

    #[test]
    fn next_query_repeats_filters_and_limit() {
        let query = "limit=7&offset=3&source=a%26b&processed=true&to=2025-12-18T10:30:00.5Z&event_timestamp_from=2025-12-01T00:00:00Z";
        let params = ListParams::parse(query).expect("parses");
        let next = ListParams::parse(&params.next_query("abc")).expect("parses");
        assert_eq!(next, ListParams { offset: None, cursor: Some("abc".into()), ..params });
    }
}

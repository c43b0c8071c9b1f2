//! Times as clients send them: in RFC 3339, and in the other forms that pydantic reads.

use std::borrow::Cow;

use chrono::{DateTime, Datelike, SubsecRound, Utc};
use speedate::{Date, DateTime as AnyDateTime, DateTimeConfig, MicrosecondsPrecisionOverflowBehavior, TimeConfig};

/// What a text that [`parse_time`] does not read should be, for error messages.
pub const EXPECTED_TIME: &str = "a date and time of the years 1 to 9999, such as 2025-12-18T10:30:00Z";

/// Parses a time, to the microsecond: a date and a time with `T`, `t`, a space or `_` between them, with or without
/// seconds, fraction and offset; a date alone; or the seconds since 1970 as a number. A number whose absolute value is
/// above 2e10 counts milliseconds. Without an offset, the time is UTC.
///
/// Returns `None` for other text, and for years outside 1 to 9999 in UTC.
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    // chrono reads leap seconds, which pydantic refuses.
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).ok().or_else(|| parse_any(text))?;
    in_range(time)
}

/// Parses a time as [`parse_time`] does, from a number in JSON, which may have an exponent.
pub(crate) fn parse_epoch(literal: &str) -> Option<DateTime<Utc>> {
    parse_time(literal).or_else(|| {
        let time = AnyDateTime::from_float_with_config(literal.parse().ok()?, &config()).ok()?;
        in_range(to_utc(&time)?)
    })
}

fn in_range(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    Some(time.trunc_subsecs(6)).filter(|time| (1..=9999).contains(&time.year()))
}

fn parse_any(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = AnyDateTime::parse_str_with_config(&with_minutes(text), &config()) {
        return to_utc(&time);
    }
    let date = Date::parse_str_rfc3339(text).ok()?;
    DateTime::from_timestamp(date.timestamp(), 0)
}

fn config() -> DateTimeConfig {
    let time = TimeConfig::builder()
        .unix_timestamp_offset(Some(0))
        .microseconds_precision_overflow_behavior(MicrosecondsPrecisionOverflowBehavior::Truncate);
    DateTimeConfig::builder().time_config(time.build()).build()
}

fn to_utc(time: &AnyDateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.timestamp_tz(), time.time.microsecond.checked_mul(1000)?)
}

/// Adds the minutes to an offset of hours alone, which PostgreSQL and Python write: `+02`.
fn with_minutes(text: &str) -> Cow<'_, str> {
    match text.as_bytes() {
        [time @ .., b'+' | b'-', tens, ones]
            if time.contains(&b':') && tens.is_ascii_digit() && ones.is_ascii_digit() =>
        {
            format!("{text}:00").into()
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn utc(text: &str) -> String {
        parse_time(text).map(|time| time.to_rfc3339()).unwrap_or_default()
    }

    #[test]
    fn times_have_all_forms_that_pydantic_reads() {
        for text in [
            "2025-12-18T10:30:00Z",
            "2025-12-18t10:30:00z",
            "2025-12-18 10:30:00",
            "2025-12-18_10:30:00",
            "2025-12-18T10:30",
            "2025-12-18T10:30Z",
            "2025-12-18 10:30",
            "2025-12-18 12:30:00+02:00",
            "2025-12-18T12:30:00+0200",
            "2025-12-18 12:30:00+02",
            "2025-12-18T08:30-02",
            "2025-12-18T05:00:00.000-05:30",
            "1766053800",
            "1766053800.0",
            "1766053800000",
            "1766053800000.0",
        ] {
            assert_eq!(utc(text), "2025-12-18T10:30:00+00:00", "{text}");
        }
        assert_eq!(utc("2025-12-18"), "2025-12-18T00:00:00+00:00");
        assert_eq!(utc("2016-12-31T23:59:60Z"), "2016-12-31T23:59:60+00:00");
        assert_eq!(parse_epoch("1.7660538e9"), parse_time("1766053800"));
        assert_eq!(parse_epoch("-17e8"), parse_time("-1700000000"));
    }

    #[test]
    fn times_keep_microseconds() {
        for text in [
            "2025-12-18T10:30:00.123456Z",
            "2025-12-18 10:30:00.123456",
            "2025-12-18 10:30:00,123456",
            "2025-12-18T10:30:00.123456789",
            "2025-12-18T10:30:00.123456789Z",
            "1766053800.123456",
            "1766053800123.456",
        ] {
            assert_eq!(utc(text), "2025-12-18T10:30:00.123456+00:00", "{text}");
        }
        assert_eq!(utc("2025-12-18T10:30:00.5"), "2025-12-18T10:30:00.500+00:00");
    }

    #[test]
    fn times_before_1970_are_valid_back_to_the_first_year() {
        assert_eq!(utc("1969-07-20 20:17:40"), "1969-07-20T20:17:40+00:00");
        assert_eq!(utc("0001-01-01T00:00:00Z"), "0001-01-01T00:00:00+00:00");
        assert_eq!(utc("-1"), "1969-12-31T23:59:59+00:00");
        assert_eq!(utc("-1.5"), "1969-12-31T23:59:58.500+00:00");
        assert_eq!(utc("-20000000001"), "1969-05-14T12:26:39.999+00:00");
        assert_eq!(utc("20000000000"), "2603-10-11T11:33:20+00:00");
        assert_eq!(utc("20000000001"), "1970-08-20T11:33:20.001+00:00");
        assert_eq!(utc("9999-12-31T23:59:59.999999Z"), "9999-12-31T23:59:59.999999+00:00");
    }

    #[test]
    fn other_texts_and_years_are_no_times() {
        for text in [
            "",
            " ",
            "now",
            "yesterday",
            "nan",
            "inf",
            "1e400",
            "2025-13-01",
            "2025-02-30 10:00",
            "10:30:00",
            "2025-12-18T",
            "2025-12-18T25:00:00Z",
            "2025-12-18T10:30:00+25:00",
            "2025-12-18T10:30:00 Z",
            "18.12.2025",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "10000-01-01T00:00:00Z",
            "9223372036854775807",
            "-9223372036854775808",
            "99999999999999999999",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
        assert_eq!(parse_epoch("1e308"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = parse_time(&text);
        }

        #[test]
        fn arbitrary_numbers_never_panic(number in any::<i64>(), float in any::<f64>()) {
            let _ = parse_time(&number.to_string());
            let _ = parse_epoch(&format!("{float:e}"));
        }

        #[test]
        fn rfc_3339_is_read_as_it_is_written(micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000) {
            let time = DateTime::from_timestamp_micros(micros).expect("in range");
            let text = time.to_rfc3339();
            prop_assert_eq!(parse_time(&text), Some(time));
            prop_assert_eq!(parse_time(&text.replace('T', " ").replace("+00:00", "")), Some(time));
        }
    }
}

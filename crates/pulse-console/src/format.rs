//! Figures and times as text.

use chrono::{DateTime, Utc};

/// Maximum length of a text in a list, in characters.
const LONGEST: usize = 200;

/// With separators of thousands.
pub(crate) fn count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::from(if number < 0 { "−" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate, with one decimal place below 10.
pub(crate) fn rate(number: f64) -> String {
    if number > 0.0 && number < 9.95 { format!("{number:.1}") } else { count(number.round() as i64) }
}

/// A duration in seconds, as a number with a unit.
pub(crate) fn duration(seconds: f64) -> (String, &'static str) {
    match seconds {
        ..0.0 => ("0".into(), "s"),
        ..0.9995 => (format!("{:.0}", (seconds * 1000.0).max(f64::from(u8::from(seconds > 0.0)))), "ms"),
        ..9.95 => (format!("{seconds:.1}"), "s"),
        ..120.0 => (format!("{seconds:.0}"), "s"),
        ..7200.0 => (format!("{:.0}", seconds / 60.0), "min"),
        ..172_800.0 => (format!("{:.0}", seconds / 3600.0), "h"),
        _ => (format!("{:.0}", seconds / 86_400.0), "d"),
    }
}

/// A duration as one text, without a break before the unit.
pub(crate) fn duration_text(seconds: f64) -> String {
    let (number, unit) = duration(seconds);
    format!("{number}\u{a0}{unit}")
}

/// The time since `then`.
pub(crate) fn age(now: DateTime<Utc>, then: DateTime<Utc>) -> String {
    duration_text((now - then).as_seconds_f64().max(0.0))
}

/// A time of day with its date, in UTC.
pub(crate) fn time(at: DateTime<Utc>) -> String {
    at.format("%b %d %H:%M:%S").to_string()
}

/// The beginning of a text, for a list of many.
pub(crate) fn clipped(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The beginning and the end of an id.
pub(crate) fn short(id: uuid::Uuid) -> String {
    let id = id.to_string();
    format!("{}…{}", &id[..8], &id[28..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_clipped_between_characters() {
        assert_eq!(clipped("é"), "é");
        assert_eq!(clipped(&"é".repeat(201)), "é".repeat(200) + "…");
    }

    #[test]
    fn figures_have_units_and_separators() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0, 0.42, 9.96, 184.4].map(rate), ["0", "0.4", "10", "184"]);
        let texts = [0.0, 0.0002, 0.0031, 5.2, 38.0, 600.0, 90_000.0, 200_000.0].map(duration_text);
        let texts: Vec<String> = texts.iter().map(|text| text.replace('\u{a0}', " ")).collect();
        assert_eq!(texts, ["0 ms", "1 ms", "3 ms", "5.2 s", "38 s", "10 min", "25 h", "2 d"]);
    }
}

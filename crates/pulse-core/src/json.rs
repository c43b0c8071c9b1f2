//! JSON that PostgreSQL can store.
//!
//! `jsonb` rejects values that JSON allows: the NUL character, lone surrogates, and numbers outside `numeric`. The
//! functions here work on the text before it is parsed, so that numbers keep all their digits and are never rounded to
//! a double. The common case is one scan that finds nothing to change.

use std::borrow::Cow;

use memchr::memmem;

use crate::diagnostic::Warning;

/// Maximum length of a number literal, in bytes. No measurement needs more digits, and `numeric` ends at 16,383 digits
/// after the decimal point.
const MAX_NUMBER_BYTES: usize = 1000;
/// Maximum absolute value of the exponent in a number literal; the exponent of a double ends at 308.
const MAX_EXPONENT: i64 = 400;

/// Why a JSON text is rejected although its syntax may be valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Objects and arrays are nested deeper than the limit.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// Maximum nesting depth.
        limit: usize,
    },
    /// A number overflows a double, or its literal is too long or has a too large exponent for PostgreSQL.
    #[error("number out of range: {literal}; send it as a string")]
    NumberOutOfRange {
        /// The start of the literal, at most 40 bytes.
        literal: String,
    },
}

/// Replaces NUL characters and lone surrogates, both written as `\u` escapes, with U+FFFD.
///
/// The text need not be valid JSON: syntax errors are left for the parser.
pub fn repair(text: &str) -> (Cow<'_, str>, Vec<Warning>) {
    let bytes = text.as_bytes();
    let suspicious = memmem::find(bytes, b"\\u0000").is_some()
        || memmem::find(bytes, b"\\ud").is_some()
        || memmem::find(bytes, b"\\uD").is_some();
    if !suspicious {
        return (Cow::Borrowed(text), Vec::new());
    }
    let mut repaired = String::with_capacity(text.len());
    let (mut nuls, mut surrogates, mut copied, mut at) = (0, 0, 0, 0);
    while let Some(offset) = memchr::memchr(b'\\', &bytes[at..]) {
        let start = at + offset;
        let Some(unit) = unicode_escape(bytes, start) else {
            at = (start + 2).min(bytes.len());
            continue;
        };
        let low = || unicode_escape(bytes, start + 6).is_some_and(|unit| (0xDC00..0xE000).contains(&unit));
        at = start + 6;
        match unit {
            0 => nuls += 1,
            0xD800..0xDC00 if low() => {
                at += 6;
                continue;
            }
            0xD800..0xE000 => surrogates += 1,
            _ => continue,
        }
        repaired.push_str(&text[copied..start]);
        repaired.push_str("\\ufffd");
        copied = at;
    }
    repaired.push_str(&text[copied..]);
    let warnings = [(nuls, "nul_replaced", "NUL characters"), (surrogates, "surrogate_replaced", "lone surrogates")]
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, code, what)| Warning::new(code, format!("{count} {what} replaced with U+FFFD")))
        .collect();
    (Cow::Owned(repaired), warnings)
}

/// Returns the code unit of the `\uXXXX` escape at `start`, if there is one.
fn unicode_escape(bytes: &[u8], start: usize) -> Option<u16> {
    let escape = bytes.get(start..start + 6)?;
    let digits = escape.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let value = (*digit as char).to_digit(16)?;
        Some((unit << 4) | value as u16)
    })
}

/// Checks the nesting depth and the numbers of a JSON text without parsing it.
///
/// # Errors
/// [`JsonError`] for the first value that cannot be stored. Invalid syntax is not an error here.
pub fn check_text(text: &str, max_depth: usize) -> Result<(), JsonError> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0usize, 0usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at + 1),
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(JsonError::TooDeep { limit: max_depth });
                }
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..]
                    .iter()
                    .take_while(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'))
                    .count();
                check_number(&text[at..at + length])?;
                at += length;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// Returns the index after the closing quote of the string that starts at `at`.
fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(offset) = memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
        let found = at + offset;
        if bytes[found] == b'"' {
            return found + 1;
        }
        at = found + 2;
    }
    bytes.len()
}

fn check_number(literal: &str) -> Result<(), JsonError> {
    let exponent = literal.find(['e', 'E']).map(|at| literal[at + 1..].parse::<i64>());
    if exponent.is_none() && literal.len() <= 300 {
        return Ok(());
    }
    let storable = literal.len() <= MAX_NUMBER_BYTES
        && exponent.is_none_or(|parsed| parsed.is_ok_and(|value| value.abs() <= MAX_EXPONENT))
        && literal.parse::<f64>().is_ok_and(f64::is_finite);
    if storable { Ok(()) } else { Err(JsonError::NumberOutOfRange { literal: literal.chars().take(40).collect() }) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn repair_borrows_text_without_escapes_to_replace() {
        assert!(matches!(repair(r#"{"a":"b\nA"}"#), (Cow::Borrowed(_), warnings) if warnings.is_empty()));
    }

    #[test]
    fn repair_replaces_nul_and_lone_surrogates_with_warnings() {
        let (text, warnings) = repair(r#"{"a\u0000":"\ud800x","b":"\uDC00","c":"\ud83d\ude00","d":"\\u0000"}"#);
        assert_eq!(text, r#"{"a\ufffd":"\ufffdx","b":"\ufffd","c":"\ud83d\ude00","d":"\\u0000"}"#);
        let codes: Vec<_> = warnings.iter().map(|warning| warning.code).collect();
        assert_eq!(codes, ["nul_replaced", "surrogate_replaced"]);
        serde_json::from_str::<serde_json::Value>(&text).expect("repaired text parses");
    }

    #[test]
    fn depth_ignores_brackets_in_strings() {
        assert_eq!(check_text(r#"{"a":"[[[[","b":[1]}"#, 2), Ok(()));
        assert_eq!(check_text("[[[]]]", 2), Err(JsonError::TooDeep { limit: 2 }));
        assert_eq!(check_text(&"[".repeat(10_000), 32), Err(JsonError::TooDeep { limit: 32 }));
    }

    #[test]
    fn numbers_outside_postgresql_or_double_range_are_rejected() {
        for good in ["12345678901234567890123", "1e308", "-0.5e-300", "1E+10", r#""1e999""#, "true", "[1,-2]"] {
            assert_eq!(check_text(good, 9), Ok(()), "{good}");
        }
        for bad in [
            "1e400",
            "[1e999]",
            "1e-400000",
            "1e99999999999999999999",
            &"9".repeat(400),
            &format!("0.{}1", "0".repeat(2000)),
        ] {
            assert!(matches!(check_text(bad, 9), Err(JsonError::NumberOutOfRange { .. })), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let (repaired, _) = repair(&text);
            let _ = check_text(&repaired, 8);
        }

        #[test]
        fn repaired_escapes_always_parse(units in proptest::collection::vec(any::<u16>(), 0..20)) {
            let escapes: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let text = format!("\"{escapes}\"");
            let (repaired, _) = repair(&text);
            let parsed: String = serde_json::from_str(&repaired).expect("parses");
            prop_assert!(!parsed.contains('\0'));
        }
    }
}

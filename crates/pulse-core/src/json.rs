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
const MAX_EXPONENT: usize = 400;

/// Why a JSON text is rejected although its syntax may be valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Objects and arrays are nested deeper than the limit.
    #[error("nested too deep")]
    TooDeep,
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

/// Checks the nesting depth and the numbers of a JSON text without parsing it, and returns how many bytes
/// `jsonb::text` has for it.
///
/// `jsonb` writes numbers without an exponent (`1e-400` has 402 characters), no escapes that it does not need, and white
/// space only after `,` and `:`. The result is exact, except that it counts duplicate keys, which `jsonb` drops, and the
/// sign of a zero. Call [`repair`] on the text first.
///
/// # Errors
/// [`JsonError`] for the first value that cannot be stored. Invalid syntax is not an error here.
pub fn check_text(text: &str, max_depth: usize) -> Result<usize, JsonError> {
    let bytes = text.as_bytes();
    let (mut depth, mut at) = (0usize, 0usize);
    // The difference between the text and that of `jsonb`, so that most bytes need no counting.
    let (mut added, mut removed) = (0usize, 0usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                let (end, saved) = scan_string(bytes, at + 1);
                removed += saved;
                at = end;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > max_depth {
                    return Err(JsonError::TooDeep);
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
                added += check_number(&text[at..at + length])?;
                removed += length;
                at += length;
            }
            b',' | b':' => {
                added += 1;
                at += 1;
            }
            b' ' | b'\t' | b'\n' | b'\r' => {
                removed += 1;
                at += 1;
            }
            _ => at += 1,
        }
    }
    Ok(text.len() + added - removed)
}

/// Returns the index after the closing quote of the string that starts at `at`, and by how many bytes `jsonb` writes the
/// string shorter.
fn scan_string(bytes: &[u8], mut at: usize) -> (usize, usize) {
    let mut saved = 0;
    while let Some(offset) = memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
        at += offset;
        if bytes[at] == b'"' {
            return (at + 1, saved);
        }
        // Escapes often follow each other, and to compare is cheaper than to search.
        while bytes.get(at) == Some(&b'\\') {
            let (length, written) = escape(bytes, at);
            saved += length - written;
            at += length;
        }
    }
    (bytes.len(), saved)
}

/// Returns the length of the escape at `start`, and of what `jsonb` writes for it.
fn escape(bytes: &[u8], start: usize) -> (usize, usize) {
    match bytes.get(start + 1) {
        Some(b'/') => (2, 1),
        Some(b'u') => unicode_escape(bytes, start).map_or((2, 2), |unit| (6, written_bytes(unit))),
        _ => (2, 2),
    }
}

/// Returns how many bytes `jsonb` writes for the code unit of a `\u` escape.
fn written_bytes(unit: u16) -> usize {
    match unit {
        // `\b`, `\t`, `\n`, `\f`, `\r`, `\"` and `\\`.
        0x08..=0x0A | 0x0C | 0x0D | 0x22 | 0x5C => 2,
        0..0x20 => 6,
        0x20..0x80 => 1,
        // A surrogate pair is two escapes for one character of four bytes.
        0x80..0x800 | 0xD800..0xE000 => 2,
        _ => 3,
    }
}

/// Returns how many bytes `numeric` writes for the number.
fn check_number(literal: &str) -> Result<usize, JsonError> {
    let parts = literal.split_once(['e', 'E']);
    if parts.is_none() && literal.len() <= 300 {
        return Ok(literal.len());
    }
    let (mantissa, exponent) = parts.unwrap_or((literal, "0"));
    exponent
        .parse::<isize>()
        .ok()
        .filter(|exponent| exponent.unsigned_abs() <= MAX_EXPONENT && literal.len() <= MAX_NUMBER_BYTES)
        .filter(|_| literal.parse::<f64>().is_ok_and(f64::is_finite))
        .map(|exponent| plain_bytes(mantissa, exponent))
        .ok_or_else(|| JsonError::NumberOutOfRange { literal: literal.chars().take(40).collect() })
}

/// Returns the length of a number when it is written without its exponent. `numeric` keeps zeros at the end of decimals.
fn plain_bytes(mantissa: &str, exponent: isize) -> usize {
    let digits = mantissa.trim_start_matches('-');
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    let zeros = digits.bytes().filter(|byte| *byte != b'.').take_while(|byte| *byte == b'0').count();
    let is_zero = zeros == whole.len() + decimals.len();
    let shifted = if is_zero { 1 } else { whole.len().saturating_add_signed(exponent).saturating_sub(zeros).max(1) };
    let decimals = decimals.len().saturating_add_signed(-exponent);
    let point = usize::from(decimals > 0);
    (mantissa.len() - digits.len()) + shifted + point + decimals
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
        assert!(check_text(r#"{"a":"[[[[","b":[1]}"#, 2).is_ok());
        assert_eq!(check_text("[[[]]]", 2), Err(JsonError::TooDeep));
        assert_eq!(check_text(&"[".repeat(10_000), 32), Err(JsonError::TooDeep));
    }

    #[test]
    fn numbers_outside_postgresql_or_double_range_are_rejected() {
        for good in ["12345678901234567890123", "1e308", "-0.5e-300", "1E+10", r#""1e999""#, "true", "[1,-2]"] {
            assert!(check_text(good, 9).is_ok(), "{good}");
        }
        for bad in [
            "1e400",
            "[1e999]",
            "1e-400000",
            "1e99999999999999999999",
            "1e-9223372036854775808",
            &"9".repeat(400),
            &format!("0.{}1", "0".repeat(2000)),
        ] {
            assert!(matches!(check_text(bad, 9), Err(JsonError::NumberOutOfRange { .. })), "{bad}");
        }
    }

    /// `tests/tests/stored_bytes.rs` compares with PostgreSQL.
    #[test]
    fn bytes_are_those_of_the_text_that_jsonb_writes() {
        for (sent, written) in [
            (r#" { "a" : [ 1 ,2, true,null ] ,"b":{} } "#, r#"{"a": [1, 2, true, null], "b": {}}"#),
            (r#""\/\u0041\u00e9\u20ac\ud83d\ude00\u0001\u000a\u0022\n\\u0041""#, r#""/Aé€😀\u0001\n\"\n\\u0041""#),
            ("[1e2,-1.50e1,1.5e0,12e-1,1E+3,1.25]", "[100, -15.0, 1.5, 1.2, 1000, 1.25]"),
            ("[0.01e1,0.01e5,-0.012e2,0e300,0.0e9,0e-2,10e-1]", "[0.1, 1000, -1.2, 0, 0, 0.00, 1.0]"),
        ] {
            assert_eq!(check_text(sent, 9), Ok(written.len()), "{sent}");
        }
        for (sent, bytes) in [("1e-400", 402), ("1e300", 301), ("-1.5e-400", 404), (r#"{"a":1,"a":2}"#, 16)] {
            assert_eq!(check_text(sent, 9), Ok(bytes), "{sent}");
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

//! The `Prefer` header of RFC 7240. Supported preferences: `handling=strict` and `handling=lenient`.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Request header.
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Response header: the preference that was applied.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How invalid input is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handling {
    /// No preference: unknown fields are ignored with a warning, and one invalid item rejects a batch.
    Default,
    /// Unknown fields are errors too.
    Strict,
    /// The valid items of a batch are stored, and the invalid ones are rejected.
    Lenient,
}

impl Handling {
    /// Returns the preference of a request. Unknown ones are ignored; the first known one applies, as in RFC 7240.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers
            .get_all(PREFER)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(preference)
            .unwrap_or(Self::Default)
    }

    /// Returns the value of `Preference-Applied`.
    pub(crate) fn applied(self) -> Option<HeaderValue> {
        match self {
            Self::Default => None,
            Self::Strict => Some(HeaderValue::from_static("handling=strict")),
            Self::Lenient => Some(HeaderValue::from_static("handling=lenient")),
        }
    }

    /// Returns a byte that identifies the handling in a fingerprint.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Default => 0,
            Self::Strict => 1,
            Self::Lenient => 2,
        }
    }
}

/// Parses one preference: `name [= value] *( ; parameter )`.
fn preference(text: &str) -> Option<Handling> {
    let (name, value) = text.split(';').next()?.split_once('=')?;
    if !name.trim().eq_ignore_ascii_case("handling") {
        return None;
    }
    match value.trim().trim_matches('"').to_ascii_lowercase().as_str() {
        "strict" => Some(Handling::Strict),
        "lenient" => Some(Handling::Lenient),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handling(values: &[&str]) -> Handling {
        let headers = values.iter().map(|value| (PREFER, HeaderValue::from_str(value).expect("a value"))).collect();
        Handling::of(&headers)
    }

    #[test]
    fn handling_is_read_among_other_preferences() {
        assert_eq!(handling(&[]), Handling::Default);
        assert_eq!(handling(&["handling=lenient"]), Handling::Lenient);
        assert_eq!(handling(&["respond-async, Handling = \"strict\"; x=1"]), Handling::Strict);
        assert_eq!(handling(&["wait=10", "handling=lenient"]), Handling::Lenient);
    }

    #[test]
    fn handling_ignores_unknown_values_and_takes_the_first_known() {
        assert_eq!(handling(&["handling=loose"]), Handling::Default);
        assert_eq!(handling(&["handling"]), Handling::Default);
        assert_eq!(handling(&["handling=strict, handling=lenient"]), Handling::Strict);
    }
}

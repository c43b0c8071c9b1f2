//! The `Prefer` header of RFC 7240, as far as it is ours: `handling=strict` and `handling=lenient`.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The request header.
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The answer's header that says what was honoured.
pub(crate) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How the client wants mistakes to be handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handling {
    /// No preference: unknown fields are ignored and told, and one bad item refuses a batch.
    Default,
    /// Unknown fields are mistakes as well.
    Strict,
    /// The good items of a batch are stored, whatever the others are.
    Lenient,
}

impl Handling {
    /// Reads the preference; what we do not know is ignored, and of several the first counts, as RFC 7240 says.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers
            .get_all(PREFER)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .find_map(preference)
            .unwrap_or(Self::Default)
    }

    /// What `Preference-Applied` says.
    pub(crate) fn applied(self) -> Option<HeaderValue> {
        match self {
            Self::Default => None,
            Self::Strict => Some(HeaderValue::from_static("handling=strict")),
            Self::Lenient => Some(HeaderValue::from_static("handling=lenient")),
        }
    }

    /// A byte that tells the preferences apart in a fingerprint.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Default => 0,
            Self::Strict => 1,
            Self::Lenient => 2,
        }
    }
}

/// One preference: `name [= value] *( ; parameter )`.
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
    fn handling_is_found_among_other_preferences() {
        assert_eq!(handling(&[]), Handling::Default);
        assert_eq!(handling(&["handling=lenient"]), Handling::Lenient);
        assert_eq!(handling(&["respond-async, Handling = \"strict\"; x=1"]), Handling::Strict);
        assert_eq!(handling(&["wait=10", "handling=lenient"]), Handling::Lenient);
    }

    #[test]
    fn unknown_handling_is_ignored_and_the_first_known_counts() {
        assert_eq!(handling(&["handling=loose"]), Handling::Default);
        assert_eq!(handling(&["handling"]), Handling::Default);
        assert_eq!(handling(&["handling=strict, handling=lenient"]), Handling::Strict);
    }
}

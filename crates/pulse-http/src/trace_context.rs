//! The W3C trace context of a request.

use axum::http::HeaderMap;

/// Returns the request's `traceparent` if it is valid and of version 00. A malformed one is ignored.
///
/// See <https://www.w3.org/TR/trace-context/#traceparent-header>.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let text = values.next()?.to_str().ok()?;
    (values.next().is_none() && is_valid(text)).then_some(text)
}

fn is_valid(text: &str) -> bool {
    let lower_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts.as_slice() else { return false };
    *version == "00"
        && (trace.len(), span.len(), flags.len()) == (32, 16, 2)
        && [trace, span, flags].into_iter().all(|part| lower_hex(part))
        && trace.bytes().any(|byte| byte != b'0')
        && span.bytes().any(|byte| byte != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_must_be_valid() {
        assert!(is_valid("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        ] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}

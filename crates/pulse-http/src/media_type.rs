//! The media types of request bodies: JSON in UTF-8, and HTML forms.

use axum::http::{HeaderMap, header};
use mime::Mime;

use crate::problem::Problem;
use crate::problem_code::ProblemCode;

/// Accepts `application/json`, every `application/…+json`, and no header.
///
/// # Errors
/// 415 `unsupported_media_type` for another type, for a charset other than UTF-8, and for several types that differ.
pub(crate) fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(first) = values.next() else { return Ok(()) };
    if values.any(|other| other != first) {
        return Err(unsupported("the request has several media types: send one header Content-Type: application/json"));
    }
    let text = first.to_str().unwrap_or_default().trim_end_matches([';', ' ']);
    let kind = text.parse::<Mime>().ok().filter(is_json);
    let kind =
        kind.ok_or_else(|| unsupported("the media type is not JSON: send the header Content-Type: application/json"))?;
    let mut charsets = kind.params().filter(|(name, _)| *name == mime::CHARSET);
    if charsets.any(|(_, charset)| charset != mime::UTF_8) {
        return Err(unsupported("the charset is not supported: send the body in UTF-8"));
    }
    Ok(())
}

/// Accepts `application/x-www-form-urlencoded`, which a form of a page has.
///
/// # Errors
/// 415 `unsupported_media_type` for another type, and without one.
pub(crate) fn check_form(headers: &HeaderMap) -> Result<(), Problem> {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text.parse::<Mime>() {
        Ok(kind) if kind.essence_str() == mime::APPLICATION_WWW_FORM_URLENCODED => Ok(()),
        _ => Err(unsupported("the body is not an HTML form: use the page")),
    }
}

fn is_json(kind: &Mime) -> bool {
    kind.type_() == mime::APPLICATION && (kind.subtype() == mime::JSON || kind.suffix() == Some(mime::JSON))
}

fn unsupported(detail: &str) -> Problem {
    Problem::new(ProblemCode::UnsupportedMediaType, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(values: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_TYPE, value.parse().expect("a header"));
        }
        check(&headers).is_ok()
    }

    #[test]
    fn media_type_is_json_in_utf_8_or_absent() {
        assert!(is_accepted(&[]));
        for good in [
            "application/json",
            "Application/JSON;",
            "application/cloudevents+json",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json; profile=\"a;charset=b\"; charset=Utf-8",
        ] {
            assert!(is_accepted(&[good]), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "image/x+json",
            "application/xml",
            "application/json, application/json",
            "application/json; charset=utf-16",
            "application/json; charset=latin1",
            "application/json; charset=utf-8; charset=utf-16",
        ] {
            assert!(!is_accepted(&[bad]), "{bad}");
        }
    }

    #[test]
    fn several_media_types_are_accepted_only_if_they_are_equal() {
        assert!(is_accepted(&["application/json", "application/json"]));
        assert!(!is_accepted(&["application/json", "text/plain"]));
        assert!(!is_accepted(&["application/json", "application/json; charset=utf-16"]));
    }
}

//! The `Idempotency-Key` header: identifies a request, so that the client can safely send it again.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use pulse_http::{Problem, ProblemCode};
use sha2::{Digest, Sha256};

use crate::prefer::Handling;

/// Request header.
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Response header: the response repeats an earlier one.
pub(crate) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Returns the key of a request, if it has one.
///
/// # Errors
/// 400 `invalid_idempotency_key` unless it is one header of 1 to 255 visible ASCII characters.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match visible_ascii(value).filter(|_| values.next().is_none()) {
        Some(key) => Ok(Some(key.to_owned())),
        None => {
            let detail = "the Idempotency-Key is not valid: send one header of 1 to 255 visible ASCII characters";
            Err(Problem::new(ProblemCode::InvalidIdempotencyKey, detail))
        }
    }
}

fn visible_ascii(value: &HeaderValue) -> Option<&str> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    ((1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(text)
}

/// Returns the SHA-256 of the `Prefer` handling and the bytes of the body. Requests with one key must have the same
/// fingerprint.
pub(crate) fn fingerprint(body: &[u8], handling: Handling) -> [u8; 32] {
    Sha256::new().chain_update([handling.tag()]).chain_update(body).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(values: &[&[u8]]) -> Result<Option<String>, ProblemCode> {
        let value = |bytes: &&[u8]| (IDEMPOTENCY_KEY, HeaderValue::from_bytes(bytes).expect("a value"));
        key(&values.iter().map(value).collect()).map_err(|problem| problem.code())
    }

    #[test]
    fn key_is_one_header_of_visible_ascii() {
        let invalid = Err(ProblemCode::InvalidIdempotencyKey);
        assert_eq!(key_of(&[]), Ok(None));
        assert_eq!(key_of(&[b"\"8e03978e-40d5\""]), Ok(Some("\"8e03978e-40d5\"".into())));
        assert_eq!(key_of(&[&[b'k'; 255]]), Ok(Some("k".repeat(255))));
        assert_eq!(key_of(&[&[b'k'; 256]]), invalid);
        assert_eq!(key_of(&[b""]), invalid);
        assert_eq!(key_of(&[b"a b"]), invalid);
        assert_eq!(key_of(&["é".as_bytes()]), invalid);
        assert_eq!(key_of(&[b"a", b"a"]), invalid);
    }

    #[test]
    fn fingerprint_covers_body_and_prefer_handling() {
        let fingerprints = [
            fingerprint(b"{}", Handling::Default),
            fingerprint(b"{ }", Handling::Default),
            fingerprint(b"{}", Handling::Lenient),
        ];
        assert_ne!(fingerprints[0], fingerprints[1]);
        assert_ne!(fingerprints[0], fingerprints[2]);
    }
}

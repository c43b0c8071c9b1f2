//! Rules of HTTP that hyper leaves to the service.

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use crate::problem::Problem;
use crate::problem_code::ProblemCode;

/// Checks the headers that decide where a request ends, whom it is for and who sent it.
///
/// # Errors
/// 400 `invalid_request` for a missing, repeated or invalid `Host` (RFC 9112, section 3.2) and for a repeated
/// `Authorization`; 501 `unsupported_transfer_coding` for other codings than `chunked` (section 6.1).
pub(crate) fn check(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    match single(headers, header::HOST)? {
        Some(host) if host.is_empty() || Authority::try_from(host.as_bytes()).is_ok_and(|it| !has_user(&it)) => {}
        Some(_) => return Err(invalid("the Host header is not a host with an optional port")),
        None if request.version() >= Version::HTTP_11 => return Err(invalid("the request has no Host header")),
        None => {}
    }
    // RFC 9113, section 8.3.1: a proxy that looks at the one and a server that looks at the other would disagree.
    let authority = request.uri().authority().filter(|_| request.version() == Version::HTTP_2);
    let host = headers.get(header::HOST).map(HeaderValue::as_bytes).unwrap_or_default();
    if authority.is_some_and(|authority| !host.eq_ignore_ascii_case(authority.as_str().as_bytes())) {
        return Err(invalid("the Host header is not the authority of the request"));
    }
    single(headers, header::AUTHORIZATION)?;
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked")) {
        let detail = "the transfer coding is not supported: use chunked alone, and Content-Encoding to compress a body";
        return Err(Problem::new(ProblemCode::UnsupportedTransferCoding, detail));
    }
    Ok(())
}

fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&HeaderValue>, Problem> {
    let mut values = headers.get_all(&name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(invalid(&format!("the request has more than one {name} header"))),
        (value, None) => Ok(value),
    }
}

fn has_user(authority: &Authority) -> bool {
    authority.as_str().contains('@')
}

fn invalid(what: &str) -> Problem {
    Problem::new(ProblemCode::InvalidRequest, format!("{what}: send exactly one valid header"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_of(version: Version, headers: &[(&str, &str)]) -> Option<ProblemCode> {
        let mut request = axum::http::Request::builder().version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(axum::body::Body::empty()).expect("a request");
        check(&request).err().map(|problem| problem.code())
    }

    #[test]
    fn host_is_required_once_and_valid() {
        let invalid = Some(ProblemCode::InvalidRequest);
        for host in ["pulse", "pulse:8000", "[::1]:8000", "127.0.0.1", ""] {
            assert_eq!(code_of(Version::HTTP_11, &[("host", host)]), None, "{host}");
        }
        for host in ["a b", "a/b", "user@pulse", "a b/../"] {
            assert_eq!(code_of(Version::HTTP_11, &[("host", host)]), invalid, "{host}");
        }
        assert_eq!(code_of(Version::HTTP_11, &[]), invalid);
        assert_eq!(code_of(Version::HTTP_10, &[]), None);
        assert_eq!(code_of(Version::HTTP_10, &[("host", "a"), ("host", "a")]), invalid);
    }

    #[test]
    fn authorization_is_not_repeated_and_transfer_coding_is_chunked() {
        let with = |name, values: &[&'static str]| {
            let values = values.iter().map(|value| (name, *value));
            code_of(Version::HTTP_11, &[("host", "a")].into_iter().chain(values).collect::<Vec<_>>())
        };
        assert_eq!(with("authorization", &["Bearer a"]), None);
        assert_eq!(with("authorization", &["Bearer a", "Bearer a"]), Some(ProblemCode::InvalidRequest));
        assert_eq!(with("transfer-encoding", &["Chunked"]), None);
        for coding in ["gzip, chunked", "gzip", "identity"] {
            assert_eq!(with("transfer-encoding", &[coding]), Some(ProblemCode::UnsupportedTransferCoding), "{coding}");
        }
    }
}

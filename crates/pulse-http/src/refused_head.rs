//! Answers to heads that hyper refuses: problem details in place of hyper's response, which has no body.

use std::fmt::Write;

use axum::http::HeaderMap;

use crate::problem::Problem;
use crate::problem_code::ProblemCode;
use crate::request_id::{self, RequestId};

/// hyper's own responses end like this. Those of the service have a body with a media type.
const NO_BODY: &str = "\r\ncontent-length: 0\r\n";

/// Returns the response to send in place of `response`, or `None` if hyper did not refuse a head with it.
pub(crate) fn answer(response: &[u8]) -> Option<Vec<u8>> {
    let rest = response.strip_prefix(b"HTTP/1.1 4")?;
    let head = std::str::from_utf8(response).ok()?;
    if !head.contains(NO_BODY) || head.contains("\r\ncontent-type:") || !head.ends_with("\r\n\r\n") {
        return None;
    }
    let problem = match rest {
        [b'3', b'1', ..] => Problem::new(
            ProblemCode::HeadersTooLarge,
            "the request line and headers are larger than 16 KiB, or more than 100 headers: send fewer or shorter ones",
        ),
        [b'1', b'4', ..] => Problem::new(ProblemCode::UriTooLong, "the URL is too long: use fewer or shorter filters"),
        _ => Problem::new(ProblemCode::InvalidRequest, "the request is not valid HTTP/1.1: see RFC 9112"),
    };
    let id = RequestId::of(&HeaderMap::new());
    problem.log(&id.0);
    let body = problem.body(&id.0);
    let mut headers = format!("\r\ncontent-type: application/problem+json\r\n{}: {}", request_id::HEADER, id.0);
    write!(headers, "\r\ncontent-length: {}\r\n", body.len()).ok()?;
    let mut answer = head.replacen(NO_BODY, &headers, 1).into_bytes();
    answer.extend(body);
    Some(answer)
}

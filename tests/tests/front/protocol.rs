//! Requests that are not HTTP/1.1 as the RFCs want it: none is served twice, and each refusal is a problem document.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, token};

use crate::raw;

const SILENCE: Duration = Duration::from_millis(400);
const EVENT: &str = r#"{"event_name":"a","event_type":"b"}"#;
/// A second request, hidden in what a proxy could take for the body of the first.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";

/// Name, bytes, and the statuses of the answers in their order.
type Case = (&'static str, String, &'static [u16]);

/// Posts with a `Content-Length`.
fn lengths(post: &str) -> Vec<Case> {
    let length = EVENT.len();
    let with = |header: String| format!("{post}{header}\r\n\r\n{EVENT}");
    vec![
        ("length", with(format!("content-length: {length}")), &[202]),
        ("two equal lengths", with(format!("content-length: {length}\r\ncontent-length: {length}")), &[202]),
        ("two lengths", with(format!("content-length: {length}\r\ncontent-length: 3")), &[400]),
        ("list of lengths", with(format!("content-length: {length}, {length}")), &[400]),
        ("length with a sign", with(format!("content-length: +{length}")), &[400]),
        ("negative length", with("content-length: -1".into()), &[400]),
        ("hexadecimal length", with("content-length: 0x23".into()), &[400]),
        ("huge length", with("content-length: 99999999999999999999999".into()), &[400]),
        ("space before the colon", with(format!("content-length : {length}")), &[400]),
        ("continued line", with(format!("x-a: b\r\n c\r\ncontent-length: {length}")), &[400]),
        ("bare CR", with(format!("x-a: a\rb\r\ncontent-length: {length}")), &[400]),
        ("NUL", with(format!("x-a: a\0b\r\ncontent-length: {length}")), &[400]),
    ]
}

/// Posts with a `Transfer-Encoding`.
fn codings(post: &str) -> Vec<Case> {
    let chunks = format!("{:x}\r\n{EVENT}\r\n0\r\n\r\n", EVENT.len());
    let with = |header: &str, body: &str| format!("{post}{header}\r\n\r\n{body}");
    let framed = |body: String| with("transfer-encoding: chunked", &body);
    let size = EVENT.len();
    vec![
        ("chunked", with("transfer-encoding: chunked", &chunks), &[202]),
        ("tab before chunked", with("transfer-encoding:\tchunked", &chunks), &[202]),
        (
            "length and chunked",
            with("content-length: 4\r\ntransfer-encoding: chunked", &(chunks.clone() + HIDDEN)),
            &[202],
        ),
        (
            "chunked and length",
            with("transfer-encoding: chunked\r\ncontent-length: 4", &(chunks.clone() + HIDDEN)),
            &[202],
        ),
        ("xchunked", with("transfer-encoding: xchunked", &chunks), &[400]),
        ("chunked, identity", with("transfer-encoding: chunked, identity", &chunks), &[400]),
        ("gzip, chunked", with("transfer-encoding: gzip, chunked", &chunks), &[501]),
        ("chunked and identity", with("transfer-encoding: chunked\r\ntransfer-encoding: identity", &chunks), &[400]),
        ("vertical tab", with("transfer-encoding: \x0bchunked", &chunks), &[400]),
        ("space before the colon", with("transfer-encoding : chunked", &chunks), &[400]),
        ("continued coding", with("transfer-encoding:\r\n chunked", &chunks), &[400]),
        ("chunked in HTTP/1.0", with("transfer-encoding: chunked", &chunks).replacen("/1.1", "/1.0", 1), &[400]),
        ("LF in a chunk extension", framed(format!("{size:x};a\nb\r\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("chunk size ends with LF", framed(format!("{size:x}\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("chunk ends with LF", framed(format!("{size:x}\r\n{EVENT}\n0\r\n\r\n")), &[400]),
        ("chunk size with 0x", framed(format!("0x{size:x}\r\n{EVENT}\r\n0\r\n\r\n")), &[400]),
        ("chunk size overflows", framed(format!("{}\r\n{EVENT}\r\n0\r\n\r\n", "f".repeat(17))), &[400]),
        (
            "chunk extension of 100 kB",
            framed(format!("{size:x};{}\r\n{EVENT}\r\n0\r\n\r\n", "a".repeat(100_000))),
            &[400],
        ),
        (
            "trailers of 100 kB",
            framed(format!("{size:x}\r\n{EVENT}\r\n0\r\nx: {}\r\n\r\n", "a".repeat(100_000))),
            &[400],
        ),
    ]
}

/// Heads.
fn heads(authorization: &str) -> Vec<Case> {
    let get = |headers: &str| format!("GET /api/v1/events?limit=1 HTTP/1.1\r\n{headers}\r\n");
    let many: String = (0..101).map(|number| format!("x-{number}: a\r\n")).collect();
    let host = "host: a\r\n";
    vec![
        ("good", get(&format!("{host}{authorization}")), &[200]),
        ("pipelined", get(&format!("{host}{authorization}")).repeat(3), &[200, 200, 200]),
        ("absolute form", get(&format!("{host}{authorization}")).replacen(" /", " http://other/", 1), &[200]),
        ("no Host", get(authorization), &[400]),
        ("two Hosts", get(&format!("{host}{host}{authorization}")), &[400]),
        ("Host with a path", get(&format!("host: a b/../\r\n{authorization}")), &[400]),
        ("good and bad token", get(&format!("{host}{authorization}authorization: Bearer x\r\n")), &[400]),
        ("bad and good token", get(&format!("{host}authorization: Bearer x\r\n{authorization}")), &[400]),
        ("101 headers", get(&format!("{host}{many}")), &[431]),
        ("head of 17 kB", get(&format!("{host}x: {}\r\n", "a".repeat(17_000))), &[431]),
        ("head of 15 kB", get(&format!("{host}{authorization}x: {}\r\n", "a".repeat(15_000))), &[200]),
        (
            "body of a GET is a request",
            get(&format!("{host}{authorization}content-length: {}\r\n", HIDDEN.len())) + HIDDEN,
            &[200],
        ),
        ("encoded slash", get(&format!("{host}{authorization}")).replacen("events?", "events%2f1?", 1), &[404]),
        ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &[]),
        ("HTTP/0.9", "GET /docs\r\n\r\n".into(), &[400]),
        ("not HTTP", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}".into(), &[400]),
        ("TRACE", format!("TRACE / HTTP/1.1\r\n{host}\r\n"), &[404]),
        ("CONNECT", format!("CONNECT other:443 HTTP/1.1\r\n{host}\r\n"), &[404]),
    ]
}

/// The statuses of the final answers in a text.
fn statuses(text: &str) -> Vec<u16> {
    text.split("HTTP/1.")
        .skip(1)
        .filter_map(|rest| rest.get(2..5)?.parse().ok())
        .filter(|status| *status >= 200)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_http_is_served_once_or_refused_with_a_problem() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    api.client("ada").post_event("first").await?;
    let authorization = format!("authorization: Bearer {}\r\n", token("ada", None));
    let post = format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\n{authorization}content-type: application/json\r\n");
    let mut failed = Vec::new();
    for (name, request, expected) in [lengths(&post), codings(&post), heads(&authorization)].concat() {
        let mut stream = api.connect().await?;
        let answer =
            raw::exchange(&mut stream, request.as_bytes(), SILENCE).await.unwrap_or_else(|error| error.to_string());
        let got = statuses(&answer);
        let refused = got.first().is_some_and(|status| *status >= 400);
        let documented = !refused
            || (answer.contains("application/problem+json")
                && answer.contains("\r\nx-request-id: ")
                && answer.contains(r#""code":"#));
        let secured = got != [200] || (answer.contains("cache-control: no-store") && answer.contains("nosniff"));
        if got != expected || !documented || !secured {
            failed.push(format!("{name}: {got:?}, expected {expected:?}: {}", answer.get(..300).unwrap_or(&answer)));
        }
    }
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(api.metric("status=\"500\"").await?, 0.0);
    Ok(())
}

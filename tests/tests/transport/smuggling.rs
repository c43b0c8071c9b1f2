//! Requests of HTTP/2 that a proxy could turn into two of HTTP/1.1, or that say twice whom they are for: each is served
//! once or refused, and what is hidden in it is never answered.

use pulse_tests::{Process, TestEnv, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::frames::{self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE};

const EVENT: &str = r#"{"event_name":"a","event_type":"b"}"#;
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nhost: a\r\n\r\n";

/// What became of the request of stream 1.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// An answer whose body has this text.
    Answer(&'static str),
    /// The stream or the connection ended with an error.
    Refused,
    /// An answer without a body.
    Empty,
}

const ACCEPTED: Outcome = Outcome::Answer("\"task_id\"");
const INVALID: Outcome = Outcome::Answer("\"invalid_request\"");

type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str, Outcome);

/// Headers that a request of HTTP/2 must not have.
const FORBIDDEN: [(&str, &str); 18] = [
    ("transfer-encoding", "chunked"),
    ("connection", "close"),
    ("connection", "upgrade"),
    ("upgrade", "h2c"),
    ("keep-alive", "1"),
    ("proxy-connection", "keep-alive"),
    ("te", "gzip"),
    ("X-Upper", "a"),
    ("x y", "a"),
    ("x:y", "a"),
    ("", "a"),
    ("x\r\nhost: b", "a"),
    ("x", "a\r\nhost: b"),
    ("x", "a\0b"),
    ("x", "a\nb"),
    (":path", "/other"),
    (":other", "a"),
    (":status", "200"),
];

fn cases<'a>(bearer: &'a str, long: &'a str) -> Vec<Case<'a>> {
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/api/v1/events"), (":authority", "a")];
    let regular = [("authorization", bearer), ("content-type", "application/json")];
    let post = || [&pseudo[..], &regular[..]].concat();
    let with = |more: &[(&'a str, &'a str)]| [&post()[..], more].concat();
    let without = |name: &str| post().into_iter().filter(|(key, _)| *key != name).collect::<Vec<_>>();
    let but = |name: &str, value: &'a str| {
        post().into_iter().map(|(key, old)| (key, if key == name { value } else { old })).collect::<Vec<_>>()
    };
    let refused = Outcome::Refused;
    let mut cases = vec![
        ("good", post(), EVENT, ACCEPTED),
        ("right length", with(&[("content-length", "35")]), EVENT, ACCEPTED),
        ("shorter length", with(&[("content-length", "3")]), EVENT, refused.clone()),
        ("longer length", with(&[("content-length", "99")]), EVENT, refused.clone()),
        ("two lengths", with(&[("content-length", "35"), ("content-length", "3")]), EVENT, refused.clone()),
        ("length is no number", with(&[("content-length", "+35")]), EVENT, refused.clone()),
        ("same host twice", with(&[("host", "a")]), EVENT, ACCEPTED),
        ("other host", with(&[("host", "b")]), EVENT, INVALID),
        ("two hosts", with(&[("host", "a"), ("host", "a")]), EVENT, INVALID),
        ("host instead of authority", [&without(":authority")[..], &[("host", "a")]].concat(), EVENT, ACCEPTED),
        ("no host", without(":authority"), EVENT, INVALID),
        ("user in the authority", but(":authority", "u@a"), EVENT, INVALID),
        ("two tokens", with(&[("authorization", "Bearer x")]), EVENT, INVALID),
        ("head of 17 kB", with(&[("x", long)]), EVENT, Outcome::Empty),
        ("hidden in the body", post(), HIDDEN, Outcome::Answer("\"malformed_json\"")),
    ];
    for (name, value) in FORBIDDEN {
        cases.push((name, with(&[(name, value)]), EVENT, refused.clone()));
    }
    for name in [":method", ":scheme", ":path"] {
        cases.push((name, without(name), EVENT, refused.clone()));
    }
    for (name, value) in [
        (":method", "POST /hidden HTTP/1.1\r\nhost: a\r\n\r\nPOST"),
        (":path", "/api/v1/events HTTP/1.1\r\nhost: b"),
        (":path", ""),
        (":path", "api/v1/events"),
        (":scheme", "http://a/hidden?"),
        (":authority", "a\r\nx: y"),
    ] {
        cases.push((name, but(name, value), EVENT, refused.clone()));
    }
    cases
}

/// Sends the request as stream 1; returns what became of it, with all text of the server.
async fn exchange(address: &str, headers: &[(&str, &str)], body: &str) -> anyhow::Result<(Outcome, String)> {
    let mut stream = frames::open(address).await?;
    let block = frames::block(headers);
    let (first, rest) = block.split_at(block.len().min(16_000));
    let end = if rest.is_empty() { END_HEADERS } else { 0 };
    stream.write_all(&frames::frame(HEADERS, end, 1, first)).await?;
    if !rest.is_empty() {
        stream.write_all(&frames::frame(9, END_HEADERS, 1, rest)).await?;
    }
    // The server may have closed the connection.
    let _ = stream.write_all(&frames::frame(DATA, END_STREAM, 1, body.as_bytes())).await;
    let (mut text, mut has_answer) = (Vec::new(), false);
    while let Some(frame) = frames::read(&mut stream).await? {
        match frame.kind {
            DATA => text.extend(frame.payload),
            HEADERS => has_answer = true,
            WINDOW_UPDATE => continue,
            RST_STREAM if frame.stream == 1 && !has_answer => return Ok((Outcome::Refused, String::new())),
            GOAWAY if !has_answer => return Ok((Outcome::Refused, String::new())),
            _ => continue,
        }
        if frame.stream == 1 && frame.flags & END_STREAM != 0 {
            break;
        }
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    let outcome = match (has_answer, text.is_empty()) {
        (false, _) => Outcome::Refused,
        (true, true) => Outcome::Empty,
        (true, false) => Outcome::Answer(""),
    };
    Ok((outcome, text))
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_requests_of_http2_are_served_once_or_refused() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let (bearer, long) = (format!("Bearer {}", token("ada", None)), "a".repeat(17_000));
    let mut failed = Vec::new();
    for (name, headers, body, expected) in cases(&bearer, &long) {
        let value = headers.last().map_or("", |(_, value)| value).chars().take(20).collect::<String>();
        let (outcome, text) = exchange(api.address(), &headers, body).await?;
        let is_expected = match &expected {
            Outcome::Answer(part) => outcome == Outcome::Answer("") && text.contains(part),
            other => outcome == *other,
        };
        if !is_expected || text.contains("/hidden") {
            failed.push(format!("{name} {value:?}: {outcome:?} {text}, expected {expected:?}"));
        }
    }
    assert!(failed.is_empty(), "{} cases:\n{}", failed.len(), failed.join("\n"));
    assert_eq!(api.metric("status=\"500\"").await?, 0.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_from_http_1_is_ignored() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let mut stream = api.connect().await?;
    let request = format!(
        "GET /api/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nconnection: upgrade, http2-settings, close\r\n\
         upgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n",
        token("ada", None)
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    Ok(())
}

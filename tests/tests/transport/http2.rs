//! HTTP/2 without TLS, its limits, and the end of its connections.

use std::time::{Duration, Instant};

use http::Version;
use pulse_tests::{Process, TestEnv, eventually, token};
use rustix::process::Signal;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::Connection;
use crate::frames::{self, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS};

const EVENTS: &str = "/api/v1/events";
const EVENT: &str = r#"{"event_name":"a","event_type":"b"}"#;

fn get(path: &str, bearer: &str) -> Vec<u8> {
    frames::block(&[
        (":method", "GET"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "a"),
        ("authorization", bearer),
    ])
}

/// Reads until the server closes the connection; returns the kinds of frames.
async fn until_closed(stream: &mut TcpStream) -> anyhow::Result<Vec<u8>> {
    let mut kinds = Vec::new();
    while let Some(frame) = frames::read(stream).await? {
        kinds.push(frame.kind);
    }
    Ok(kinds)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_one_connection_are_answered_side_by_side() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let mut connection = Connection::open(api.connect().await?, Version::HTTP_2).await?;
    assert_eq!(connection.send("POST", EVENTS, EVENT).await?.0, 202);
    let Connection::Http2(sender) = &connection else { anyhow::bail!("HTTP/2") };
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let mut connection = Connection::Http2(sender.clone());
        requests.spawn(async move { connection.send("POST", EVENTS, EVENT).await });
    }
    while let Some(answer) = requests.join_next().await {
        let (status, text) = answer??;
        assert_eq!(status, 202, "{text}");
    }
    let accepted: i64 = sqlx::query_scalar("SELECT count(*) FROM events").fetch_one(&env.db).await?;
    assert_eq!(accepted, 301);
    let large = json!({ "events": vec![json!({ "event_name": "a", "event_type": "b", "payload": { "text": "s".repeat(200) } }); 100] });
    let (status, text) = connection.send("POST", "/api/v1/events/batch", &large.to_string()).await?;
    assert_eq!(status, 202, "{}", &text[..text.len().min(300)]);
    let (status, page) = connection.send("GET", "/api/v1/events?limit=500", "").await?;
    assert!(status == 200 && page.len() > 64 * 1024, "a page larger than the windows: {status} {}", page.len());
    assert_eq!(connection.send("GET", "/api/v1/nothing", "").await?.0, 404);
    let (status, _) = connection.send("POST", EVENTS, &" ".repeat(3 << 20)).await?;
    assert_eq!(status, 413, "an answer before the body was read");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_without_a_request_or_with_a_slow_one_is_closed() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--header-timeout", "1s"]).await?;
    for sent in [&b""[..], b"PRI * HTT", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let started = Instant::now();
        let mut stream = api.connect().await?;
        stream.write_all(sent).await?;
        until_closed(&mut stream).await?;
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", String::from_utf8_lossy(sent));
    }
    let mut half = frames::open(api.address()).await?;
    half.write_all(&frames::frame(HEADERS, 0, 1, &get(EVENTS, "Bearer x"))).await?;
    until_closed(&mut half).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_takes_no_answer_is_disconnected_and_others_are_not() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    api.client("ada").post_event("a").await?;
    let mut stream = TcpStream::connect(api.address()).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    // No byte of a body may be sent (SETTINGS_INITIAL_WINDOW_SIZE).
    stream.write_all(&frames::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await?;
    let block = get(EVENTS, &format!("Bearer {}", token("ada", None)));
    stream.write_all(&frames::frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).await?;
    let mut other = Connection::open(api.connect().await?, Version::HTTP_2).await?;
    assert_eq!(other.send("GET", EVENTS, "").await?.0, 200);
    let started = Instant::now();
    let kinds = until_closed(&mut stream).await?;
    assert!(kinds.contains(&HEADERS) && !kinds.contains(&DATA), "{kinds:?}");
    assert!((8..50).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(other.send("GET", EVENTS, "").await?.0, 200, "another connection stays open");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_cancels_its_requests_at_once_is_disconnected() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let mut stream = frames::open(api.address()).await?;
    let block = get(EVENTS, "Bearer x");
    for number in 0..5_000_u32 {
        let id = 2 * number + 1;
        let request = frames::frame(HEADERS, END_HEADERS | END_STREAM, id, &block);
        let cancelled = [request, frames::frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat();
        if stream.write_all(&cancelled).await.is_err() {
            break;
        }
    }
    assert!(until_closed(&mut stream).await?.contains(&GOAWAY));
    assert_eq!(api.client("ada").get(EVENTS).await?.status, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_answers_the_requests_that_were_sent() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut api = Process::start(&env, "api", &["--drain-delay", "0s"]).await?;
    let bearer = format!("Bearer {}", token("ada", None));
    let mut stream = frames::open(api.address()).await?;
    let headers = frames::block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", EVENTS),
        (":authority", "a"),
        ("authorization", &bearer),
        ("content-type", "application/json"),
    ]);
    let (first, rest) = EVENT.split_at(10);
    stream.write_all(&frames::frame(HEADERS, END_HEADERS, 1, &headers)).await?;
    stream.write_all(&frames::frame(DATA, 0, 1, first.as_bytes())).await?;
    while frames::read(&mut stream).await?.is_some_and(|frame| frame.kind != SETTINGS || frame.flags == 0) {}
    api.signal(Signal::TERM)?;
    while frames::read(&mut stream).await?.is_some_and(|frame| frame.kind != GOAWAY) {}
    stream.write_all(&frames::frame(DATA, END_STREAM, 1, rest.as_bytes())).await?;
    // The server asks for a sign that the client has seen GOAWAY.
    let mut text = Vec::new();
    while let Some(frame) = frames::read(&mut stream).await? {
        match frame.kind {
            6 if frame.flags == 0 => stream.write_all(&frames::frame(6, 1, 0, &frame.payload)).await?,
            DATA => text.extend(frame.payload),
            _ => {}
        }
    }
    assert!(String::from_utf8_lossy(&text).contains("task_id"), "{}", String::from_utf8_lossy(&text));
    eventually("the process ends", Duration::from_secs(20), async || api.has_ended()).await?;
    Ok(())
}

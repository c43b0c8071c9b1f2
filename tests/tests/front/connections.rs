//! Clients that hold connections.

use std::time::Duration;

use pulse_tests::latency::{self, p99, post_steadily};
use pulse_tests::{Process, TestEnv, eventually, token};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::raw;

const SILENCE: Duration = Duration::from_secs(5);
const NOT_FOUND: &[u8] = b"GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n";

/// Whether the server has closed the connection.
fn is_closed(stream: &TcpStream) -> bool {
    let mut piece = [0; 4096];
    loop {
        match stream.try_read(&mut piece) {
            Ok(1..) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
            Ok(0) | Err(_) => return true,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_beyond_the_descriptors_stop_neither_api_nor_probes() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::spawn_with_descriptors(&env, "api", "1024:1024", &[])?;
    api.wait_until_ready().await?;
    let client = api.client("ada");
    let alone = p99(&post_steadily(&client, Duration::from_secs(2)).await?);
    raw::allow_many_connections()?;
    let mut idle = Vec::new();
    for _ in 0..1100 {
        let mut stream = api.connect().await?;
        stream.write_all(NOT_FOUND).await?;
        stream.readable().await?;
        idle.push(stream);
    }
    let before = env.number("SELECT count(*) FROM events").await?;
    let beside = post_steadily(&client, Duration::from_secs(5)).await?;
    let limit = (3 * alone).max(latency::GOOD);
    assert!(p99(&beside) <= limit, "p99 of accepting is {:?} beside idle connections, {alone:?} alone", p99(&beside));
    for _ in 0..20 {
        // Each needs a new connection.
        api.client("new").post_event("beside").await?;
        assert_eq!(api.admin().get("/livez").await?.status, 200);
    }
    let open = idle.iter().filter(|stream| !is_closed(stream)).count();
    assert!((500..768).contains(&open), "{open} of 1,100 connections are open");
    let stored = env.number("SELECT count(*) FROM events").await? - before;
    assert_eq!(stored, i64::try_from(beside.len())? + 20);
    assert!(!std::fs::read_to_string(&api.log)?.contains("open files"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_limit_of_descriptors_is_raised_to_the_hard_limit() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::spawn_with_descriptors(&env, "api", "1024:4096", &[])?;
    api.wait_until_ready().await?;
    raw::allow_many_connections()?;
    let mut idle = Vec::new();
    for _ in 0..2000 {
        idle.push(api.connect().await?);
    }
    api.client("ada").post_event("beside").await?;
    assert!(idle.iter().all(|stream| !is_closed(stream)), "there are places for all");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_ends_its_side_gets_its_answer() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let event = json!({"event_name": "a", "event_type": "t"}).to_string();
    let head = format!("POST /api/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n", token("ada", None));
    for round in 1..=20 {
        let mut stream = api.connect().await?;
        stream.write_all(format!("{head}content-length: {}\r\n\r\n{event}", event.len()).as_bytes()).await?;
        stream.shutdown().await?;
        let answer = raw::read(&mut stream, SILENCE).await?;
        assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        assert_eq!(env.number("SELECT count(*) FROM events").await?, round);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_client_that_writes_before_it_reads_gets_the_refusal() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let good = format!("authorization: Bearer {}\r\n", token("ada", None));
    let cases = [
        ("POST /api/v1/events/batch", "", 401),
        ("POST /api/v1/events/batch", "authorization: Bearer x\r\n", 401),
        ("POST /api/v1/nothing", &good, 404),
        ("PUT /api/v1/events", &good, 405),
        ("POST /api/v1/events/batch", &format!("{good}content-type: text/csv\r\n"), 415),
        ("POST /api/v1/events/batch", &format!("{good}idempotency-key: a b\r\n"), 400),
        ("POST /api/v1/events/batch", &good, 413),
        ("GET /api/v1/events", &good, 200),
    ];
    for (line, headers, status) in cases {
        let bytes = if status == 413 { 15_000_000 } else { 1_000_000 };
        let head = format!("{line} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {bytes}\r\n\r\n");
        let request = [head.as_bytes(), &vec![b' '; bytes]].concat();
        for _ in 0..5 {
            let answer = raw::exchange(&mut api.connect().await?, &request, SILENCE).await?;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line} {status}: {answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_that_does_not_read_is_disconnected() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let event = json!({"event_name": "a", "event_type": "t", "payload": {"text": "x".repeat(30_000)}});
    for _ in 0..2 {
        let answer = client.post("/api/v1/events/batch", &json!({ "events": vec![&event; 30] })).await?;
        assert_eq!(answer.status, 202, "{}", answer.text);
    }
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let mut stream = socket.connect(api.address().parse()?).await?;
    let request = format!(
        "GET /api/v1/events?limit=60 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
        token("ada", None)
    );
    stream.write_all(request.repeat(10).as_bytes()).await?;
    let port = stream.local_addr()?.port();
    let gone = async || Ok(!sockets_of(&api)?.contains(&port));
    assert!(!gone().await?, "the API has the connection");
    eventually("the API closes the connection", Duration::from_secs(30), gone).await?;
    let mut text = Vec::new();
    let read = stream.read_to_end(&mut text).await;
    assert!(read.is_err() || text.len() < 10 * 1_800_000, "{read:?}");
    Ok(())
}

/// Ports of the peers of the API's established connections.
fn sockets_of(api: &Process) -> anyhow::Result<Vec<u16>> {
    let local = format!(":{:04X}", api.url.rsplit(':').next().unwrap_or_default().parse::<u16>()?);
    let table = std::fs::read_to_string("/proc/net/tcp")?;
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let peers = rows.filter(|row| row.len() > 3 && row[1].ends_with(&local) && row[3] == "01");
    Ok(peers.filter_map(|row| u16::from_str_radix(row[2].rsplit(':').next()?, 16).ok()).collect())
}

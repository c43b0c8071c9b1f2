//! Two APIs behind nginx and HAProxy: a client whose requests are refused gets each refusal, and a good client beside it
//! gets no error.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Method;
use pulse_http::NewClaims;
use pulse_tests::{Client, Process, Proxy, SECRET, TestEnv, token};
use serde_json::json;

/// Time of the attack on each proxy.
const DURATION: Duration = Duration::from_secs(if cfg!(feature = "long") { 60 } else { 6 });
const BATCH: &str = "/api/v1/events/batch";

/// A request that is refused with this status before its body is read.
struct Refused {
    name: &'static str,
    client: Client,
    method: Method,
    path: &'static str,
    bytes: usize,
    status: u16,
}

fn refused(url: &str) -> Vec<Refused> {
    let expired = NewClaims { sub: "bad", ..NewClaims::default() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expired = pulse_http::issue(SECRET.as_bytes(), &expired, now - 7200, now - 3600).unwrap_or_default();
    let good = token("bad", None);
    let row = |name, token: &str, method, path, bytes, status| Refused {
        name,
        client: Client::new(url, token),
        method,
        path,
        bytes,
        status,
    };
    vec![
        row("expired token", &expired, Method::POST, BATCH, 900_000, 401),
        row("expired token, 32 kB", &expired, Method::POST, BATCH, 32_000, 401),
        row("no token", "", Method::POST, BATCH, 900_000, 401),
        row("a token that is none", "x", Method::POST, BATCH, 100_000, 401),
        row("unknown path", &good, Method::POST, "/api/v1/nothing", 900_000, 404),
        row("unknown method", &good, Method::PUT, BATCH, 900_000, 405),
        row("3 MB", &good, Method::POST, BATCH, 3_000_000, 413),
    ]
}

/// Sends the requests in turn until `end`; returns how many got another answer than expected, with the first of them.
async fn attack(requests: &[Refused], end: Instant) -> (usize, Vec<String>) {
    let (mut sent, mut wrong) = (0, Vec::new());
    for request in requests.iter().cycle() {
        if Instant::now() > end {
            break;
        }
        let Refused { name, client, method, path, bytes, status } = request;
        let answer = client.send(method.clone(), path, &[], Bytes::from(vec![b' '; *bytes])).await;
        sent += 1;
        match answer {
            Ok(answer) if answer.status == *status && answer.json["code"].is_string() => {}
            Ok(answer) => wrong.push(format!("{name}: {} {}", answer.status, answer.text)),
            Err(error) => wrong.push(format!("{name}: {error:#}")),
        }
    }
    (sent, wrong)
}

/// Posts events until `end`; returns how many were accepted, and the other answers.
async fn post(client: &Client, end: Instant) -> (usize, Vec<String>) {
    let (mut accepted, mut failed) = (0, Vec::new());
    while Instant::now() < end {
        match client.post_event("a").await {
            Ok(_) => accepted += 1,
            Err(error) => failed.push(format!("{error:#}")),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (accepted, failed)
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_behind_proxies_get_their_status_and_disturb_no_other() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let (first, second) = (Process::start(&env, "api", &[]).await?, Process::start(&env, "api", &[]).await?);
    let nginx = Proxy::nginx(&env, &[&first, &second]).await?;
    let haproxy = Proxy::haproxy(&env, &[&first, &second]).await?;
    for (name, proxy) in [("nginx", &nginx), ("HAProxy", &haproxy)] {
        let end = Instant::now() + DURATION;
        let (requests, good) = (refused(&proxy.url), Client::new(&proxy.url, &token("good", None)));
        let (attacks, posts) = tokio::join!(attack(&requests, end), post(&good, end));
        let ((sent, wrong), (accepted, failed)) = (attacks, posts);
        assert!(failed.is_empty() && accepted > 20, "{name}: {accepted} accepted, {failed:#?}");
        assert!(wrong.is_empty() && sent > 20, "{name}: {} of {sent}: {wrong:#?}", wrong.len());
    }
    env.crash_postgres().await?;
    let event = json!({"event_name": "a", "event_type": "t", "payload": {"text": "x".repeat(30_000)}});
    let batch = json!({ "events": vec![event; 30] });
    for proxy in [&nginx, &haproxy] {
        // The user is not known, so its look-up fails before the body is read.
        let client = Client::new(&proxy.url, &token("new", None));
        for _ in 0..4 {
            let answer = client.post(BATCH, &batch).await?;
            assert_eq!((answer.status, &answer.json["code"]), (503, &json!("unavailable")), "{}", answer.text);
        }
    }
    Ok(())
}

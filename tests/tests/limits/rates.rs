//! Rates of requests, events and bytes.

use std::time::{Duration, Instant};

use pulse_tests::{Process, TestEnv, token};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BATCH, EVENTS, batch, event, header, post_at_once};

#[tokio::test(flavor = "multi_thread")]
async fn user_beyond_its_rate_gets_429_and_returns_after_retry_after() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--user-events-per-second", "5"]).await?;
    let (ada, bob) = (api.client("ada"), api.client("bob"));
    let started = Instant::now();
    let answers = post_at_once(&ada, 60).await?;
    let possible = 5.0 + 5.0 * started.elapsed().as_secs_f64() + 1.0;
    let (accepted, limited): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 202);
    assert!((5.0..=possible).contains(&(accepted.len() as f64)), "{} of at most {possible}", accepted.len());
    for answer in &limited {
        assert_eq!((answer.status, answer.json["code"].as_str()), (429, Some("rate_limited")), "{}", answer.text);
        assert_eq!(header(answer, "content-type"), "application/problem+json");
        assert_eq!(header(answer, "retry-after"), "1");
        assert_eq!(header(answer, "ratelimit-policy"), r#""events";q=5;w=1"#);
        assert!(answer.json["detail"].as_str().unwrap_or_default().contains("5 events per second"), "{}", answer.text);
    }
    assert!(limited.iter().any(|answer| header(answer, "ratelimit") == r#""events";r=0;t=1"#));
    assert!(header(&accepted[0], "ratelimit").starts_with(r#""events";r="#), "a 202 has the fields too");

    let other = bob.post(EVENTS, &event()).await?;
    assert_eq!((other.status, header(&other, "ratelimit")), (202, r#""events";r=4;t=1"#), "{}", other.text);
    let read = ada.get(EVENTS).await?;
    assert_eq!(read.status, 200, "reading costs no events: {}", read.text);

    // As `Retry-After` says.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ada.post(EVENTS, &event()).await?.status, 202);
    assert_eq!(api.metric("pulse_events_rejected_total{code=\"rate_limited\"}").await?, limited.len() as f64);
    assert_eq!(api.metric("pulse_requests_limited_total{limit=\"events\"}").await?, limited.len() as f64);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_costs_its_events() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--user-events-per-second", "10"]).await?;
    let client = api.client("ada");
    // A batch larger than the rate passes while nothing was taken, and leaves a debt.
    let started = Instant::now();
    assert_eq!(client.post(BATCH, &batch(60)).await?.status, 202);
    let next = client.post(EVENTS, &event()).await?;
    assert_eq!((next.status, next.json["code"].as_str()), (429, Some("rate_limited")), "{}", next.text);
    let seconds: u64 = header(&next, "retry-after").parse()?;
    let longest = Duration::from_secs(6).saturating_sub(started.elapsed());
    assert!((1..=6).contains(&seconds) && seconds >= longest.as_secs().saturating_sub(1), "{seconds} s");
    assert_eq!(header(&next, "ratelimit"), format!(r#""events";r=0;t={seconds}"#));
    assert_eq!(env.number("SELECT count(*) FROM events").await?, 60);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn limited_request_is_answered_before_its_body() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--user-requests-per-second", "1"]).await?;
    let answers = post_at_once(&api.client("ada"), 10).await?;
    let limited = answers.iter().filter(|answer| header(answer, "ratelimit-policy") == r#""requests";q=1;w=1"#);
    assert_eq!(limited.count(), 10);
    let head = format!(
        "POST {EVENTS} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 1000\r\n\r\n",
        token("ada", None)
    );
    // A body that never arrives: a request that is not limited waits for it.
    let first_line = async || {
        let mut stream = api.connect().await?;
        stream.write_all(head.as_bytes()).await?;
        let mut start = [0; 12];
        stream.read_exact(&mut start).await?;
        anyhow::Ok(String::from_utf8_lossy(&start).into_owned())
    };
    let both = futures_util::future::select(Box::pin(first_line()), Box::pin(first_line()));
    let (line, _) = tokio::time::timeout(Duration::from_secs(5), both).await?.factor_first();
    assert_eq!(line?, "HTTP/1.1 429");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_bodies_are_limited() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--user-bytes-per-second", "1000"]).await?;
    let client = api.client("ada");
    assert_eq!(client.post(BATCH, &batch(90)).await?.status, 202, "a large body passes while nothing was taken");
    let next = client.post(EVENTS, &event()).await?;
    assert_eq!((next.status, next.json["code"].as_str()), (429, Some("rate_limited")), "{}", next.text);
    assert_eq!(header(&next, "ratelimit-policy"), r#""bytes";q=1000;w=1;qu="content-bytes""#);
    assert_eq!(api.client("bob").post(EVENTS, &event()).await?.status, 202);
    Ok(())
}

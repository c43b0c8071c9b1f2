//! Graceful stop: a worker ends in time without PostgreSQL, and an API serves the connections that it has accepted.

use std::time::{Duration, Instant};

use pulse_tests::{Process, TestEnv, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn worker_drains_in_time_without_postgresql() -> anyhow::Result<()> {
    let mut env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let mut worker = Process::start(&env, "worker", &["--drain-timeout", "2s"]).await?;
    let client = api.client("ada");
    // One attempt ends before the drain timeout and cannot be settled; the other does not end.
    for name in ["sleep:1500", "sleep:600000"] {
        client.post_event(name).await?;
    }
    eventually("both tasks run", TIMEOUT, async || {
        Ok(env.number("SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL").await? == 2)
    })
    .await?;
    env.crash_postgres().await?;
    let started = Instant::now();
    assert_eq!(worker.stop().await?, 0);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "drained in {took:?}; expected 2 s, and up to 5 s to release the tasks");
    env.start_postgres().await?;
    assert_eq!(env.number("SELECT count(*) FROM tasks").await?, 2, "nothing is lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_api_answers_idle_connections_and_partial_requests() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut api = Process::start(&env, "api", &["--drain-delay", "0s"]).await?;
    let address = api.address().to_owned();
    let request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut idle = TcpStream::connect(&address).await?;
    let mut partial = TcpStream::connect(&address).await?;
    partial.write_all(&request[..20]).await?;
    // A response on a later connection shows that the API has accepted both.
    assert_eq!(api.client("ada").get("/api/v1/events").await?.status, 200);
    let clients = async {
        eventually("new connections are refused", TIMEOUT, async || Ok(TcpStream::connect(&address).await.is_err()))
            .await?;
        idle.write_all(request).await?;
        partial.write_all(&request[20..]).await?;
        for client in [&mut idle, &mut partial] {
            let mut answer = String::new();
            client.read_to_string(&mut answer).await?;
            assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("connection: close"), "{answer:?}");
        }
        anyhow::Ok(())
    };
    let (code, answered) = tokio::join!(api.stop(), clients);
    answered?;
    assert_eq!(code?, 0);
    Ok(())
}

//! A worker ends in time, whatever is away; an API answers whoever reached it.

use std::time::{Duration, Instant};

use pulse_tests::{Process, TestEnv, eventually};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_drains_in_time_without_postgresql() -> anyhow::Result<()> {
    let mut world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let mut worker = Process::start(&world, "worker", &["--drain-timeout", "2s"]).await?;
    let client = api.client("ada");
    // One ends before the time-out and cannot be settled, one does not end.
    for name in ["sleep:1500", "sleep:600000"] {
        client.post("/api/v1/events", &json!({"event_name": name, "event_type": "t"})).await?;
    }
    eventually("both run", SOON, async || {
        Ok(world.number("SELECT count(*) FROM tasks WHERE lease_until IS NOT NULL").await? == 2)
    })
    .await?;
    world.crash_postgres().await?;
    let begun = Instant::now();
    assert_eq!(worker.stop().await?, 0);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "drained in {took:?}: 2 s, and 5 s for handing back");
    world.start_postgres().await?;
    assert_eq!(world.number("SELECT count(*) FROM tasks").await?, 2, "nothing is lost");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_ends_answers_whoever_has_connected_or_begun_to_send() -> anyhow::Result<()> {
    let world = TestEnv::start().await?;
    let mut api = Process::start(&world, "api", &["--drain-delay", "0s"]).await?;
    let address = api.url.trim_start_matches("http://").to_owned();
    let request = b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut silent = TcpStream::connect(&address).await?;
    let mut begun = TcpStream::connect(&address).await?;
    begun.write_all(&request[..20]).await?;
    // What is accepted after both, and answered, says that both are there.
    assert_eq!(api.client("ada").get("/api/v1/events").await?.status, 200);
    let clients = async {
        eventually("nobody else is accepted", SOON, async || Ok(TcpStream::connect(&address).await.is_err())).await?;
        silent.write_all(request).await?;
        begun.write_all(&request[20..]).await?;
        for client in [&mut silent, &mut begun] {
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

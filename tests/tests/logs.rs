//! Logs contain no payloads, tokens or addresses, also when a request or task fails.

use std::time::Duration;

use http::Method;
use pulse_tests::{Client, Process, TestEnv, token};
use serde_json::json;

const CANARY: &str = "canary-4f1c9e";
const ADDRESS: &str = "203.0.113.77";

#[tokio::test(flavor = "multi_thread")]
async fn logs_contain_no_payload_token_or_address() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let debug = ["--log", "debug"];
    let api = Process::start(&env, "api", &debug).await?;
    let worker = Process::start(&env, "worker", &["--log", "debug", "--retry-base", "0.1"]).await?;
    let scheduler = Process::start(&env, "scheduler", &debug).await?;
    let client = api.client("ada");
    for name in ["good", "fail", "panic", "constraint", "invalid"] {
        let event = json!({"event_name": name, "event_type": "t", "payload": {"x": CANARY}, "ip_address": ADDRESS});
        assert_eq!(client.post("/api/v1/events", &event).await?.status, 202);
    }
    // The contents of refused requests must not be logged either.
    let bad =
        json!({"event_name": "", "event_type": "t", "payload": CANARY, "ip_address": format!("{ADDRESS}.{CANARY}")});
    assert_eq!(client.post("/api/v1/events", &bad).await?.status, 422);
    let broken = format!("{{\"payload\":\"{CANARY}");
    assert_eq!(client.send(Method::POST, "/api/v1/events", &[], broken.into()).await?.status, 400);
    assert_eq!(client.get(&format!("/api/v1/events?source={CANARY}&limit=x")).await?.status, 422);
    let good = token("ada", None);
    let tampered = format!("{}x", good);
    assert_eq!(Client::new(&api.url, &tampered).get("/api/v1/events").await?.status, 401);
    env.wait_until_settled(Duration::from_secs(30)).await?;

    let mut lines = 0;
    for role in [&api, &worker, &scheduler] {
        let log = std::fs::read_to_string(&role.log)?;
        lines += log.lines().count();
        for secret in [CANARY, ADDRESS, pulse_tests::SECRET, &good, &good[40..80]] {
            assert!(!log.contains(secret), "`{secret}` is in {}", role.log.display());
        }
    }
    assert!(lines > 30, "the logs have only {lines} lines");
    let request = client.send(Method::GET, "/api/v1/events", &[("x-request-id", "find-me-1")], "".into()).await?;
    assert_eq!(request.headers["x-request-id"], "find-me-1");
    assert!(std::fs::read_to_string(&api.log)?.contains("\"request_id\":\"find-me-1\""), "the request ID is logged");
    Ok(())
}

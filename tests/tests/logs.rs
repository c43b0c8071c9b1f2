//! Logs contain no payloads, tokens or addresses, also when a request or task fails; the access log has what its flags say.

use std::time::Duration;

use http::Method;
use pulse_tests::{Client, Process, TestEnv, token};
use serde_json::{Value, json};

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

/// The lines of the access log of a process, each as JSON.
fn access_lines(process: &Process) -> anyhow::Result<Vec<Value>> {
    let log = std::fs::read_to_string(&process.log)?;
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(lines.filter(|line| line["target"] == "access").collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn access_log_has_a_line_for_each_request_that_it_covers() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let proxies = ["--trusted-proxies", "127.0.0.0/8,10.0.0.0/8"];
    let full = [&["--access-log", "all", "--access-log-address", "full"], &proxies[..]].concat();
    let errors = [&["--access-log", "errors"], &proxies[..]].concat();
    let (all, errors) = (Process::start(&env, "api", &full).await?, Process::start(&env, "api", &errors).await?);
    let off = Process::start(&env, "api", &[]).await?;
    let forwarded = format!("198.51.100.1, {ADDRESS}, 10.0.0.9");
    let good = token("ada", None);
    for api in [&all, &errors, &off] {
        for (bearer, id) in [(good.as_str(), "good-1"), ("x", "bad-1")] {
            let headers = [("x-request-id", id), ("x-forwarded-for", forwarded.as_str())];
            Client::new(&api.url, bearer).send(Method::GET, "/api/v1/events", &headers, "".into()).await?;
        }
    }
    let parts = |line: &Value| {
        let names = ["request_id", "subject", "client", "method", "route", "status", "code"];
        json!(names.map(|name| line[name].clone()))
    };
    let lines = access_lines(&all)?;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(parts(&lines[0]), json!(["good-1", "ada", ADDRESS, "GET", "/api/v1/events", 200, null]));
    assert_eq!(parts(&lines[1]), json!(["bad-1", null, ADDRESS, "GET", "/api/v1/events", 401, "invalid_token"]));
    assert!(lines.iter().all(|line| line["duration_ms"].is_f64() && line["timestamp"].is_string()), "{lines:?}");
    let lines: Vec<Value> = access_lines(&errors)?.iter().map(parts).collect();
    assert_eq!(lines, [json!(["bad-1", null, "203.0.113.0", "GET", "/api/v1/events", 401, "invalid_token"])]);
    assert!(access_lines(&off)?.is_empty());
    Ok(())
}

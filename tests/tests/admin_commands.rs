//! Commands of administrators: tasks, check, token, user, queue and demo; traces and waiting for the schema.

use std::time::Duration;

use pulse_tests::{Client, Process, SECRET, TestEnv, binary, eventually, pulse_output};
use serde_json::{Value, json};
use tokio::process::Command;

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn dead_tasks_are_listed_retried_and_cancelled() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let _worker = Process::start(&env, "worker", &["--retry-base", "0.1"]).await?;
    let client = api.client("ada");
    let mut ids = Vec::new();
    for name in ["fail", "invalid"] {
        ids.push(client.post_event(name).await?);
    }
    let state = async |id: &str| -> anyhow::Result<String> {
        let task = client.get(&format!("/api/v1/tasks/{id}")).await?.json;
        Ok(task["state"].as_str().unwrap_or_default().to_owned())
    };
    for id in &ids {
        eventually("the task is dead", TIMEOUT, async || Ok(state(id).await? == "dead")).await?;
    }
    let (code, list) = pulse_output(&env, &["tasks", "list"]).await?;
    assert!(code == 0 && ids.iter().all(|id| list.contains(id.as_str())), "{list}");
    let (code, task) = pulse_output(&env, &["tasks", "inspect", &ids[0]]).await?;
    assert!(code == 0 && task.matches("as scripted").count() == 3 && task.contains("3 of 3"), "{task}");
    let (_, list) = pulse_output(&env, &["tasks", "list", "--reason", "invalid_payload", "--json"]).await?;
    let listed: Value = serde_json::from_str(list.lines().next().unwrap_or_default())?;
    assert_eq!(listed["id"], json!(ids[1]));

    // The cause is fixed: the retried task completes under the same ID.
    sqlx::query("UPDATE events SET event_name = 'good' WHERE event_name = 'fail'").execute(&env.db).await?;
    let (code, output) = pulse_output(&env, &["tasks", "retry", &ids[0]]).await?;
    assert_eq!((code, output.contains("1 tasks are pending again")), (0, true), "{output}");
    eventually("the task is completed", TIMEOUT, async || Ok(state(&ids[0]).await? == "completed")).await?;
    let (_, output) = pulse_output(&env, &["tasks", "cancel", "--all"]).await?;
    assert!(output.contains("1 tasks cancelled"), "{output}");
    assert_eq!(state(&ids[1]).await?, "cancelled");
    let (code, output) = pulse_output(&env, &["tasks", "retry"]).await?;
    assert!(code == 1 && output.contains("--all"), "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_each_unsafe_setting_with_its_fix() -> anyhow::Result<()> {
    let env = TestEnv::with_redis_setting("maxmemory-policy", "allkeys-lru").await?;
    let (code, output) = pulse_output(&env, &["check"]).await?;
    assert_eq!(code, 25, "{output}");
    assert!(output.contains("set maxmemory-policy noeviction"), "{output}");
    sqlx::query("ALTER DATABASE pulse SET synchronous_commit = off").execute(&env.db).await?;
    let (code, output) = pulse_output(&env, &["check", "--json"]).await?;
    let report: Value = serde_json::from_str(output.lines().next().unwrap_or_default())?;
    let unsafe_names: Vec<&str> = report["checks"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|check| check["ok"] == false)
        .filter_map(|check| check["name"].as_str())
        .collect();
    assert_eq!((code, unsafe_names), (25, vec!["synchronous_commit", "maxmemory-policy"]));
    assert_eq!(pulse_output(&env, &["migrate"]).await?.0, 25, "migrate refuses unsafe settings");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn issued_token_works_until_its_user_is_disabled() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let (code, token) = pulse_output(&env, &["token", "issue", "--user", "ada", "--expires", "1h"]).await?;
    assert_eq!(code, 0, "{token}");
    let client = Client::new(&api.url, token.trim());
    assert_eq!(client.get("/api/v1/events").await?.status, 200);
    assert!(pulse_output(&env, &["user", "list"]).await?.1.contains("ada"));
    assert_eq!(pulse_output(&env, &["user", "disable", "ada"]).await?.0, 0);
    eventually("the disabled user is refused", TIMEOUT, async || Ok(client.get("/api/v1/events").await?.status == 403))
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn user_can_be_disabled_before_its_first_token_and_created_by_an_administrator() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--auto-provision", "false"]).await?;
    for (command, user, code) in [
        ("disable", "leaked", 0),
        ("create", "grace", 0),
        ("create", "grace", 0),
        ("enable", "missing", 1),
        ("erase", "missing", 1),
        ("export", "missing", 1),
        ("hold", "missing", 1),
        ("release", "missing", 1),
        ("create", "", 2),
        ("disable", "a\nb", 2),
    ] {
        let (exit, output) = pulse_output(&env, &["user", command, user]).await?;
        assert_eq!(exit, code, "user {command} {user:?}: {output}");
    }
    for (user, status, code) in [("leaked", 403, "user_disabled"), ("missing", 403, "unknown_user"), ("grace", 200, "")]
    {
        let answer = api.client(user).get("/api/v1/events").await?;
        assert_eq!((answer.status, answer.json["code"].as_str().unwrap_or_default()), (status, code), "{user}");
    }
    let acts = "SELECT string_agg(action || ' ' || target, ', ' ORDER BY id) FROM audit_log WHERE action LIKE 'user.%'";
    let acts: String = sqlx::query_scalar(acts).fetch_one(&env.db).await?;
    assert_eq!(acts, "user.disable leaked, user.create grace");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn jwt_secret_with_a_line_end_verifies_the_tokens_of_its_issuer() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    for line_end in ["\n", "\r\n"] {
        let secret = format!("{SECRET}{line_end}");
        let api = Process::start(&env, "api", &["--jwt-secret", &secret]).await?;
        assert_eq!(api.client("ada").get("/api/v1/events").await?.status, 200, "{line_end:?}");
        let issue = ["token", "issue", "--user", "ada", "--jwt-secret", &secret];
        let (code, token) = pulse_output(&env, &issue).await?;
        assert_eq!(code, 0, "{token}");
        assert_eq!(Client::new(&api.url, token.trim()).get("/api/v1/events").await?.status, 200, "{line_end:?}");
    }
    let api = Process::start(&env, "api", &["--jwt-secret", &format!("{SECRET} ")]).await?;
    assert_eq!(api.client("ada").get("/api/v1/events").await?.status, 401, "a blank is part of the secret");
    assert!(std::fs::read_to_string(&api.log)?.contains("the JWT secret ends with white space"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn purged_queue_is_refilled_from_unsettled_tasks() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    for _ in 0..20 {
        client.post_event("a").await?;
    }
    let (code, output) = pulse_output(&env, &["queue", "purge"]).await?;
    assert_eq!(code, 0, "{output}");
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    env.wait_until_settled(TIMEOUT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn role_waiting_for_schema_is_live_and_answers_503() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    // A migration that this version does not know and that is not additive, so older versions must not run on it.
    let unknown =
        "INSERT INTO pulse_migrations (version, name, checksum, additive) VALUES (99999999999999, 'x', '', false)";
    sqlx::query(unknown).execute(&env.db).await?;
    let api = Process::start_unready(&env, "api", &[]).await?;
    let answer = api.client("ada").get("/api/v1/events").await?;
    assert_eq!((answer.status, answer.json["code"].as_str()), (503, Some("unavailable")), "{}", answer.text);
    assert!(answer.headers.contains_key("retry-after"));
    let ready = api.admin().get("/readyz").await?;
    assert!(ready.status == 503 && ready.text.contains("99999999999999"), "{}", ready.text);
    assert_eq!(api.admin().get("/livez").await?.status, 200);
    sqlx::query("DELETE FROM pulse_migrations WHERE version = 99999999999999").execute(&env.db).await?;
    // Kubernetes sends requests as soon as a pod is ready.
    eventually("the API is ready", TIMEOUT, async || Ok(api.admin().get("/readyz").await?.status == 200)).await?;
    let answer = api.client("ada").get("/api/v1/events").await?;
    assert_eq!(answer.status, 200, "{}", answer.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_follows_its_events_until_they_are_processed() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let token = pulse_tests::token("ada", None);
    let (code, output) = pulse_output(&env, &["demo", "--url", &api.url, "--token", &token]).await?;
    assert_eq!(code, 0, "{output}");
    assert_eq!(output.matches("is \"completed\" after attempt 1").count(), 2, "{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_are_sent_to_the_otlp_endpoint() -> anyhow::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let env = TestEnv::start().await?;
    let collector = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", collector.local_addr()?);
    let api = Process::start(&env, "api", &["--otlp-endpoint", &endpoint]).await?;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let event = json!({"event_name": "a", "event_type": "t"}).to_string();
    let client = api.client("ada");
    let accepted =
        client.send(http::Method::POST, "/api/v1/events", &[("traceparent", traceparent)], event.into()).await?;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let task = client.get(&format!("/api/v1/tasks/{}", accepted.json["task_id"].as_str().unwrap_or_default())).await?;
    assert_eq!(task.json["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{}", task.text);

    let received = async {
        loop {
            let (mut stream, _) = collector.accept().await?;
            let mut request = Vec::new();
            let mut buffer = [0; 16 * 1024];
            while !request.windows(12).any(|bytes| bytes == b"http_request") {
                let read = stream.read(&mut buffer).await?;
                if read == 0 {
                    break;
                }
                request.extend_from_slice(&buffer[..read]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            let trace_id =
                [0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36];
            if request.starts_with(b"POST /v1/traces") && request.windows(16).any(|bytes| bytes == trace_id) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(TIMEOUT, received).await?
}

#[tokio::test]
async fn settings_are_also_read_from_the_variables_of_celery_deployments() -> anyhow::Result<()> {
    let run = async |variables: &[(&str, &str)]| -> anyhow::Result<String> {
        let urls = ["--database-url", "postgres://a@127.0.0.1:1/a", "--redis-url", "redis://127.0.0.1:1"];
        let output = Command::new(binary()).arg("api").args(urls).envs(variables.iter().copied()).output().await?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let error = run(&[("EVENT_MAX_RETRIES", "0")]).await?;
    assert!(error.contains("invalid value '0' for '--max-attempts"), "{error}");
    // The setting's first name wins, and then only the key is missing.
    let error = run(&[("EVENT_MAX_RETRIES", "0"), ("PULSE_MAX_ATTEMPTS", "5")]).await?;
    assert!(error.contains("PULSE_JWT_SECRET"), "{error}");
    Ok(())
}

//! Tasks that ended or run as they should, and every kind of id.

use http::Method;
use pulse_tests::{Process, TestEnv, eventually, pulse_output};
use serde_json::json;

use crate::env::{TIMEOUT, execute, leased, names, names_both, why};

#[tokio::test(flavor = "multi_thread")]
async fn each_end_of_a_task_is_named_for_each_kind_of_id() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-attempts", "1"]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers = [("x-request-id", "checkout-17"), ("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))];
    let event = json!({"event_name": "good", "event_type": "t"}).to_string();
    let posted = client.send(Method::POST, "/api/v1/events", &headers, event.into()).await?;
    let (task, event) = (posted.json["task_id"].as_str().unwrap_or_default(), posted.json["event_id"].to_string());
    for id in [task, event.trim_matches('"'), "checkout-17", trace] {
        names(&env, id, "completed").await?;
        assert_eq!(why(&env, id).await?["task"]["id"], task, "{id}");
    }
    let chain = why(&env, task).await?;
    assert_eq!(
        (&chain["timeline"]["request_id"], &chain["timeline"]["trace_id"]),
        (&"checkout-17".into(), &trace.into())
    );
    let steps: Vec<&str> =
        chain["timeline"]["steps"].as_array().into_iter().flatten().filter_map(|step| step["kind"].as_str()).collect();
    assert_eq!(steps, ["request", "accept", "claim", "settlement"]);

    names(&env, &client.post_event("fail").await?, "dead_attempts").await?;
    names(&env, &client.post_event("invalid").await?, "dead_invalid_payload").await?;
    let fine = client.post_event("sleep:600000").await?;
    names(&env, &fine, "running").await?;
    let (code, output) = pulse_output(&env, &["tasks", "cancel", &fine]).await?;
    assert_eq!(code, 0, "{output}");
    names(&env, &fine, "cancelled").await?;
    let (_, output) = pulse_output(&env, &["user", "disable", "ada"]).await?;
    names_both(&env, task, "completed", "user_disabled").await.map_err(|error| error.context(output))?;

    let (code, text) = pulse_output(&env, &["why", task]).await?;
    assert!(code == 0 && text.contains("It completed at") && text.contains("request checkout-17"), "{text}");
    let (code, text) = pulse_output(&env, &["why", "no-such-request"]).await?;
    assert!(code == 1 && text.contains("nothing has the id `no-such-request`"), "{text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_named_before_it_is_dead() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--max-attempts", "1"]).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let poison = api.client("eve").post_event("abort").await?;
    let expire = "UPDATE tasks SET lease_until = now() - interval '1 s' WHERE lease_until IS NOT NULL";
    for cause in ["no_worker", "poison"] {
        let mut worker = Process::spawn(&env, "worker", &[])?;
        eventually("the worker dies", TIMEOUT, async || worker.has_ended()).await?;
        // The first time, the task is not known as the cause, and no worker is left: a pair.
        names(&env, &poison, cause).await?;
        execute(&env, expire).await?;
        leased(&env, 0).await?;
    }
    names(&env, &poison, "dead_crash").await
}

#[tokio::test(flavor = "multi_thread")]
async fn task_of_a_deleted_user_waits_for_a_worker_and_ends_orphaned() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let task = api.client("ada").post_event("a").await?;
    execute(&env, "DELETE FROM users").await?;
    names_both(&env, &task, "no_worker", "user_deleted").await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    names(&env, &task, "orphaned").await
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_waits_for_its_child() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &["--retry-base", "1000"]).await?;
    let event = |name| json!({"event_name": name, "event_type": "t"});
    let batch = json!({"events": [event("a"), event("fail"), event("b")]});
    let posted = api.client("ada").post("/api/v1/events/batch", &batch).await?;
    let task = posted.json["task_id"].as_str().unwrap_or_default();
    names_both(&env, task, "child", "backoff").await
}

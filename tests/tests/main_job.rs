//! Main path over HTTP: events are posted, processed and read back; batches, idempotency keys and migrations.

use std::time::Duration;

use anyhow::Context;
use http::Method;
use pulse_core::TEXT_FIELDS;
use pulse_tests::{Process, TestEnv, eventually, pulse_output};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn event_is_accepted_processed_and_read_back() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let worker = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    let event = json!({
        "event_name": "page_view", "event_type": "engagement", "source": "web", "session_id": "sess_123",
        "payload": {"page": "/dashboard", "duration": 45, "scroll_depth": 75},
        "ip_address": "192.168.1.1", "user_agent": "Mozilla/5.0...",
    });
    let accepted = client.post("/api/v1/events", &event).await?;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    assert_eq!(accepted.json["status"], "enqueued");
    assert_eq!(accepted.json["message"], "Event enqueued for processing");
    let path = format!("/api/v1/events/{}", accepted.json["event_id"]);
    eventually("the event is processed", TIMEOUT, async || Ok(client.get(&path).await?.json["processed"] == true))
        .await?;

    let read = client.get(&path).await?.json;
    for (field, value) in event.as_object().into_iter().flatten() {
        assert_eq!(read[field], *value, "{field}");
    }
    assert_eq!(read["properties"]["original"], event["payload"]);
    assert_eq!(read["properties"]["timestamp"], read["event_timestamp"]);
    assert!(read["processed_at"].as_str().is_some_and(|time| time.ends_with('Z')));
    assert!(read["processing_error"].is_null());

    let task = client.get(&format!("/api/v1/tasks/{}", accepted.json["task_id"].as_str().unwrap_or_default())).await?;
    assert_eq!((task.json["state"].as_str(), task.json["attempts"].as_i64()), (Some("completed"), Some(1)));
    assert_eq!(task.json.get("worker"), None, "users do not learn the names of pods");
    assert_eq!(api.client("eve").get(&path).await?.status, 404, "another user's event must not be found");
    assert_eq!(worker.metric("pulse_tasks_settled_total{outcome=\"completed\"}").await?, 1.0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_receives_every_field_of_the_event() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    let mut full: Value = TEXT_FIELDS.iter().map(|field| (field.name.to_owned(), json!(field.example))).collect();
    full["event_name"] = json!("echo");
    full["event_timestamp"] = json!("2026-01-02T03:04:05.678901Z");
    for event in [full, json!({"event_name": "echo", "event_type": "t"})] {
        let accepted = client.post("/api/v1/events", &event).await?.json;
        env.wait_until_settled(TIMEOUT).await?;
        let read = client.get(&format!("/api/v1/events/{}", accepted["event_id"])).await?.json;
        let received = read["properties"].as_object().context("the processor's result")?;
        assert_eq!(received["task_id"], accepted["task_id"]);
        for (field, value) in received.iter().filter(|(field, _)| *field != "task_id") {
            assert_eq!(*value, read[field], "{field}");
        }
        assert_eq!(received.len(), TEXT_FIELDS.len() + 5, "{received:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn payload_numbers_keep_all_their_digits() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    let payload = r#"{"n": 123456789012345678901234567890, "d": 0.10000000000000000000000000001}"#;
    let body = format!(r#"{{"event_name": "a", "event_type": "t", "payload": {payload}}}"#);
    let accepted = client.send(Method::POST, "/api/v1/events", &[], body.into()).await?;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    env.wait_until_settled(TIMEOUT).await?;
    for path in [format!("/api/v1/events/{}", accepted.json["event_id"]), "/api/v1/events".to_owned()] {
        let text = client.get(&path).await?.text;
        for number in [r#""n": 123456789012345678901234567890"#, r#""d": 0.10000000000000000000000000001"#] {
            assert_eq!(text.matches(number).count(), 2, "expected in payload and in properties: {text}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_is_one_task_with_ids_in_order() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let client = api.client("ada");
    let events: Vec<_> = (0..100).map(|n| json!({"event_name": format!("e{n}"), "event_type": "t"})).collect();
    let accepted = client.post("/api/v1/events/batch", &json!({ "events": events })).await?;
    assert_eq!((accepted.status, accepted.json["event_count"].as_i64()), (202, Some(100)), "{}", accepted.text);
    assert_eq!(accepted.json["message"], "Batch of 100 events enqueued for processing");
    env.wait_until_settled(TIMEOUT).await?;
    for (n, id) in accepted.json["event_ids"].as_array().into_iter().flatten().enumerate().step_by(33) {
        let event = client.get(&format!("/api/v1/events/{id}")).await?.json;
        assert_eq!(
            (event["event_name"].as_str(), event["processed"].as_bool()),
            (Some(format!("e{n}").as_str()), Some(true))
        );
    }
    // Follow the cursor through all pages: each event appears once, newest first.
    let (mut seen, mut path) = (Vec::new(), "/api/v1/events?limit=30".to_owned());
    loop {
        let page = client.get(&path).await?.json;
        seen.extend(page["events"].as_array().into_iter().flatten().filter_map(|event| event["id"].as_i64()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/api/v1/events?limit=30&cursor={cursor}");
    }
    let expected: Vec<i64> =
        accepted.json["event_ids"].as_array().into_iter().flatten().rev().filter_map(|id| id.as_i64()).collect();
    assert_eq!(seen, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_with_invalid_item_is_refused_unless_lenient() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let batch = json!({"events": [{"event_name": "a", "event_type": "t"}, {"event_name": "b"}]});
    let strict = client.post("/api/v1/events/batch", &batch).await?;
    assert_eq!((strict.status, strict.json["errors"][0]["index"].as_i64()), (422, Some(1)));
    assert_eq!(env.number("SELECT count(*) FROM events").await?, 0);
    let lenient = client
        .send(Method::POST, "/api/v1/events/batch", &[("prefer", "handling=lenient")], batch.to_string().into())
        .await?;
    assert_eq!((lenient.status, lenient.json["accepted"].as_i64()), (202, Some(1)), "{}", lenient.text);
    assert_eq!(lenient.json["results"][1]["status"], "rejected");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn idempotency_key_sent_100_times_stores_one_event() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = std::sync::Arc::new(api.client("ada"));
    let body = json!({"event_name": "a", "event_type": "t"}).to_string();
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let (client, body) = (client.clone(), body.clone());
        sending.spawn(async move {
            client.send(Method::POST, "/api/v1/events", &[("idempotency-key", "k")], body.into()).await
        });
    }
    let mut ids = std::collections::BTreeSet::new();
    let mut fresh = 0;
    while let Some(answer) = sending.join_next().await {
        let answer = answer??;
        assert!([202, 409].contains(&answer.status), "{}", answer.text);
        ids.extend(answer.json["event_id"].as_i64());
        fresh += usize::from(answer.status == 202 && !answer.headers.contains_key("idempotency-replayed"));
    }
    assert_eq!((ids.len(), fresh, env.number("SELECT count(*) FROM events").await?), (1, 1, 1));
    let other = json!({"event_name": "b", "event_type": "t"}).to_string();
    let reused = client.send(Method::POST, "/api/v1/events", &[("idempotency-key", "k")], other.into()).await?;
    assert_eq!((reused.status, reused.json["code"].as_str()), (422, Some("idempotency_key_reused")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_refuses_unapproved_plan_other_instance_and_changed_checksum() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let (code, output) = pulse_output(&env, &["migrate", "--plan"]).await?;
    let plan: serde_json::Value = serde_json::from_str(output.lines().next().unwrap_or_default())?;
    assert_eq!((code, plan["pending"].as_array().map(Vec::len)), (0, Some(0)), "{output}");
    assert_eq!(pulse_output(&env, &["migrate", "--expect-plan", "abc"]).await?.0, 23);
    assert_eq!(pulse_output(&env, &["migrate", "--instance", "other/one"]).await?.0, 24);
    assert_eq!(pulse_output(&env, &["migrate", "--instance", "other/one", "--take-over"]).await?.0, 0);
    sqlx::query("UPDATE pulse_migrations SET checksum = 'x'").execute(&env.db).await?;
    assert_eq!(pulse_output(&env, &["migrate"]).await?.0, 20);
    Ok(())
}

//! Forms of paths and values that FastAPI and pydantic read.

use anyhow::Context;
use http::Method;
use pulse_tests::{Client, Process, TestEnv};
use serde_json::{Value, json};

const EVENTS: &str = "/api/v1/events";
const STRICT: [(&str, &str); 1] = [("prefer", "handling=strict")];

/// An event with one more field.
fn event(field: &str, value: &Value) -> Value {
    json!({"event_name": "a", "event_type": "b", field: value})
}

/// Posts one event and reads it back, with the codes of its warnings.
async fn stored(client: &Client, event: &Value) -> anyhow::Result<(Value, Vec<Value>)> {
    let answer = client.post(EVENTS, event).await?;
    anyhow::ensure!(answer.status == 202, "{event}: {}", answer.text);
    let warnings = answer.json["warnings"].as_array().cloned().unwrap_or_default();
    let read = client.get(&format!("{EVENTS}/{}", answer.json["event_id"])).await?.json;
    Ok((read, warnings.iter().map(|warning| warning["code"].clone()).collect()))
}

#[tokio::test(flavor = "multi_thread")]
async fn times_of_bodies_and_filters_have_all_forms_that_pydantic_reads() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    for time in [
        json!("2025-12-18 10:30:00.123456"),
        json!("2025-12-18T12:30:00.123456789+0200"),
        json!("2025-12-18 12:30:00.123456+02"),
        json!(1766053800.123456),
        json!("1766053800123.456"),
    ] {
        for name in ["event_timestamp", "timestamp"] {
            let (read, warnings) = stored(&client, &event(name, &time)).await?;
            assert_eq!(read["event_timestamp"], "2025-12-18T10:30:00.123456Z", "{time}");
            assert_eq!(warnings, [] as [Value; 0]);
        }
    }
    for (time, read_back) in [("1969-07-20 20:17", "1969-07-20T20:17:00Z"), ("0001-01-01", "0001-01-01T00:00:00Z")] {
        let (read, _) = stored(&client, &event("event_timestamp", &json!(time))).await?;
        assert_eq!(read["event_timestamp"], read_back);
    }
    for time in ["yesterday", "0000-12-31", "2025-12-18T10:30:00+25:00"] {
        let answer = client.post(EVENTS, &event("event_timestamp", &json!(time))).await?;
        assert_eq!((answer.status, &answer.json["errors"][0]["type"]), (422, &json!("datetime_parsing")), "{time}");
    }

    let count = async |query: &str| -> anyhow::Result<usize> {
        let answer = client.get(&format!("{EVENTS}?limit=500&{query}")).await?;
        anyhow::ensure!(answer.status == 200, "{query}: {}", answer.text);
        Ok(answer.json["events"].as_array().context("a list")?.len())
    };
    for time in ["2025-12-18", "2025-12-18+10:30:00", "2025-12-18T10:30:00+02:00", "1766053800", "1766053800000"] {
        assert_eq!(count(&format!("from={time}")).await?, 12, "from={time}");
        assert_eq!(count(&format!("to={time}")).await?, 0, "to={time}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_addresses_and_times_are_ignored_with_a_warning_unless_handling_is_strict() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let odd = ["", "1.2.3.4:5678", "[::1]", "fe80::1%eth0", "1.2.3.4, 5.6.7.8", "unknown"];
    for address in odd {
        let event = event("ip_address", &json!(address));
        let (read, warnings) = stored(&client, &event).await?;
        assert_eq!(
            (&read["ip_address"], &warnings[..]),
            (&Value::Null, &[json!("invalid_ip_address")][..]),
            "{address}"
        );
        let refused = client.send(Method::POST, EVENTS, &STRICT, event.to_string().into()).await?;
        assert_eq!((refused.status, &refused.json["errors"][0]["type"]), (422, &json!("ip_address")), "{address}");
    }
    let batch = json!({"events": odd.map(|address| event("ip_address", &json!(address)))});
    let answer = client.post(&format!("{EVENTS}/batch"), &batch).await?;
    assert_eq!((answer.status, &answer.json["event_count"]), (202, &json!(6)), "{}", answer.text);
    let warning = &answer.json["warnings"][5];
    assert_eq!((&warning["field"], &warning["index"]), (&json!("ip_address"), &json!(5)), "{warning}");

    let (read, warnings) = stored(&client, &event("event_timestamp", &json!(""))).await?;
    assert_eq!((&read["event_timestamp"], warnings), (&read["created_at"], vec![json!("empty_timestamp")]));
    let mut differing = event("event_timestamp", &json!("2025-12-18T10:30:00Z"));
    differing["timestamp"] = json!("2025-12-18T10:30:01Z");
    let (read, warnings) = stored(&client, &differing).await?;
    assert_eq!(
        (&read["event_timestamp"], warnings),
        (&json!("2025-12-18T10:30:00Z"), vec![json!("differing_timestamp")])
    );
    for event in [event("event_timestamp", &json!("")), differing] {
        let refused = client.send(Method::POST, EVENTS, &STRICT, event.to_string().into()).await?;
        assert_eq!(refused.status, 422, "{event}: {}", refused.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_with_a_slash_at_their_end_and_other_spellings_of_true_are_answered() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let client = api.client("ada");
    let posted = client.post("/api/v1/events/", &event("source", &json!("web"))).await?;
    assert_eq!(posted.status, 202, "{}", posted.text);
    let batch = client.post("/api/v1/events/batch/", &json!({"events": [event("source", &json!("web"))]})).await?;
    assert_eq!(batch.status, 202, "{}", batch.text);
    let (id, task) = (&posted.json["event_id"], posted.json["task_id"].as_str().context("a task id")?);
    for path in [format!("{EVENTS}/{id}"), format!("{EVENTS}/status/unprocessed"), format!("/api/v1/tasks/{task}")] {
        let (without, with) = (client.get(&path).await?, client.get(&format!("{path}/")).await?);
        assert_eq!((with.status, with.json["id"].clone()), (200, without.json["id"].clone()), "{path}");
    }
    for (value, count) in [("True", 0), ("on", 0), ("1", 0), ("False", 2), ("no", 2), ("0", 2)] {
        let answer = client.get(&format!("{EVENTS}/?processed={value}")).await?;
        assert_eq!(answer.json["events"].as_array().map(Vec::len), Some(count), "{value}: {}", answer.text);
    }
    let delete = client.send(Method::DELETE, "/api/v1/events/", &[], Vec::new().into()).await?;
    assert_eq!((delete.status, delete.headers["allow"].to_str()?), (405, "GET,HEAD,POST"), "as without the slash");

    let anyone = Client::new(&api.url, "");
    let documents = [anyone.get("/openapi.json").await?, anyone.get("/api/v1/openapi.json").await?];
    assert_eq!((documents[0].status, &documents[0].text), (200, &documents[1].text));
    let metrics = api.admin().get("/metrics").await?.text;
    assert!(!metrics.contains(r#"route="/api/v1/events/""#), "one route has one label: {metrics}");
    Ok(())
}

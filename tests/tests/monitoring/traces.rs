//! Traces, at the receiver of the OpenTelemetry Collector.

use anyhow::Context;
use http::Method;
use pulse_tests::{OtlpReceiver, Process, TestEnv, eventually};
use serde_json::Value;

use crate::TIMEOUT;

const EVENT: &str = r#"{"event_name":"a","event_type":"t"}"#;
const CALLER: &str = "00f067aa0ba902b7";

/// Posts an event in a trace of the client, who asks for the trace with `01` and for none with `00`.
async fn post(api: &Process, trace_id: &str, flags: &str) -> anyhow::Result<()> {
    let traceparent = format!("00-{trace_id}-{CALLER}-{flags}");
    let headers = [("content-type", "application/json"), ("traceparent", &*traceparent)];
    let answer = api.client("ada").send(Method::POST, "/api/v1/events", &headers, EVENT.into()).await?;
    anyhow::ensure!(answer.status == 202, "{}", answer.text);
    Ok(())
}

fn named<'a>(spans: &'a [Value], name: &str) -> Option<&'a Value> {
    spans.iter().find(|span| span["name"] == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_has_request_commit_attempt_and_settlement() -> anyhow::Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let env = TestEnv::start().await?;
    let receiver = OtlpReceiver::start(&env).await?;
    let traced = ["--otlp-endpoint", &receiver.url];
    let api = Process::start(&env, "api", &traced).await?;
    let _worker = Process::start(&env, "worker", &traced).await?;
    post(&api, TRACE, "00").await?;
    let trace = || {
        let mut spans = receiver.spans()?;
        spans.retain(|span| span["traceId"] == TRACE);
        anyhow::Ok(spans)
    };
    eventually("four spans are exported", TIMEOUT, async || Ok(trace()?.len() >= 4)).await?;
    let spans = trace()?;
    let parent_of = |name: &str| named(&spans, name).map(|span| span["parentSpanId"].clone());
    let id_of = |name: &str| named(&spans, name).map(|span| span["spanId"].clone());
    assert_eq!(parent_of("http_request"), Some(CALLER.into()), "{spans:#?}");
    for (child, parent) in
        [("accept", "http_request"), ("process_task", "http_request"), ("settle_task", "process_task")]
    {
        assert_eq!(parent_of(child), id_of(parent), "{child}: {spans:#?}");
    }
    // A statement serves many traces, so it has a trace for itself and links to them.
    for (statement, of) in [("commit", "accept"), ("settle", "settle_task")] {
        let links = async || {
            let spans = receiver.spans()?;
            let statement = named(&spans, statement).context("no span")?;
            Ok(statement["links"][0]["spanId"] == id_of(of).unwrap_or_default() && statement["traceId"] != TRACE)
        };
        eventually(&format!("{statement} links to {of}"), TIMEOUT, links).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn client_does_not_decide_which_traces_are_exported() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let receiver = OtlpReceiver::start(&env).await?;
    let api = Process::start(&env, "api", &["--otlp-endpoint", &receiver.url, "--trace-share", "0.5"]).await?;
    let _worker = Process::start(&env, "worker", &["--otlp-endpoint", &receiver.url]).await?;
    for number in 1..=200 {
        post(&api, &format!("{number:032x}"), "01").await?;
    }
    let unsettled = async || Ok(env.number("SELECT count(*) FROM tasks").await? == 0);
    eventually("all tasks are settled", TIMEOUT, unsettled).await?;
    let count = |name: &str| anyhow::Ok(receiver.spans()?.iter().filter(|span| span["name"] == name).count());
    let complete = async || {
        let requests = count("http_request")?;
        Ok(requests >= 50 && count("process_task")? == requests && count("settle_task")? == requests)
    };
    eventually("a share of the traces is exported, each with its task", TIMEOUT, complete).await?;
    let requests = count("http_request")?;
    assert!(requests <= 150, "{requests} of 200 traces");
    Ok(())
}

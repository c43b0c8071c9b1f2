//! Metrics are well formed, and every query of rules and dashboards finds them.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::Context;
use pulse_tests::operator::OperatorEnv;
use pulse_tests::queue::TestQueue;
use pulse_tests::{Process, Prometheus, TestEnv, eventually, free_port};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::{TIMEOUT, rules};

/// Metrics without a series in this test, and why.
const ABSENT: [(&str, &str); 6] = [
    ("pulse_memory_limit_bytes", "the machine of the test may have no limit"),
    ("pulse_archived_rows_total", "no month is old"),
    ("pulse_archive_blocked", "no month is old"),
    ("pulse_operator_unreadable", "each object can be read"),
    ("pulse_operator_condition{type=\"Stalled\"}", "the condition is absent unless an object is stalled"),
    ("pulse_operator_decisions_total", "no number of workers has changed"),
];

/// Queries that find nothing while nothing is wrong.
const EMPTY: [&str; 2] = ["== 0", "== 1"];

async fn check_with_promtool(admin: &str) -> anyhow::Result<()> {
    let text = pulse_tests::Client::new(admin, "").get("/metrics").await?.text;
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().context("on Debian, run `apt-get install prometheus`")?;
    promtool.stdin.take().context("stdin")?.write_all(text.as_bytes()).await?;
    let output = promtool.wait_with_output().await?;
    let remarks = [output.stdout, output.stderr].concat();
    let remarks = String::from_utf8_lossy(&remarks);
    anyhow::ensure!(output.status.success() && remarks.is_empty(), "{admin}: {remarks}{text}");
    Ok(())
}

/// The queries of all dashboards, with their titles.
fn dashboard_queries() -> anyhow::Result<Vec<(String, String)>> {
    let mut queries = Vec::new();
    for file in std::fs::read_dir(rules::folder().join("dashboards"))? {
        let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file?.path())?)?;
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            assert!(
                !panel["description"].as_str().unwrap_or_default().is_empty(),
                "{} has no description",
                panel["title"]
            );
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().context("a query")?;
                let query = query.replace("$namespace", ".*").replace("$instance", ".*");
                queries.push((panel["title"].to_string(), query.replace("$__rate_interval", "10s")));
            }
        }
    }
    Ok(queries)
}

/// The selectors of series in an expression, without the status of requests that failed.
fn selectors(expression: &str) -> BTreeSet<String> {
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut selectors = BTreeSet::new();
    let mut rest = expression;
    while let Some(start) = rest.find(|character: char| character.is_ascii_alphabetic()) {
        rest = &rest[start..];
        let end = rest.find(|character| !is_name(character)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let labels = after.starts_with('{').then(|| after.split_inclusive('}').next()).flatten().unwrap_or_default();
        if ["pulse_", "http_server_", "process_"].iter().any(|prefix| name.starts_with(prefix)) {
            selectors.insert(format!("{name}{}", labels.replace(r#", status=~"50[^1]""#, "")));
        }
        rest = &after[labels.len()..];
    }
    selectors
}

/// Traffic that touches each metric: accepted, rejected and limited requests, reads, and tasks that succeed, fail and die.
/// Each user may post one event per second.
async fn load(api: &Process, console: &Process) -> anyhow::Result<()> {
    for name in ["page_view", "fail", "invalid", "sleep:20"] {
        api.client(name).post("/api/v1/events", &json!({ "event_name": name, "event_type": "t" })).await?;
    }
    let client = api.client("page_view");
    client.post("/api/v1/events", &json!({ "event_name": "without a type" })).await?;
    client.get("/api/v1/events").await?;
    console.client("").get("/").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_query_of_rules_and_dashboards_is_empty_and_promtool_has_no_remarks() -> anyhow::Result<()> {
    let env = TestEnv::with_redis_setting("maxmemory", "64mb").await?;
    let traces = format!("http://127.0.0.1:{}", free_port()?);
    let traced = ["--otlp-endpoint", &traces];
    let api = Process::start(&env, "api", &[&traced[..], &["--user-events-per-second", "1"]].concat()).await?;
    let worker = Process::start(&env, "worker", &traced).await?;
    let scheduler = Process::start(&env, "scheduler", &["--retain-events", "90d", "--retain-history", "90d"]).await?;
    let console = Process::start(&env, "console", &[]).await?;
    let cluster = OperatorEnv::start("monitoring").await?;
    let queue = TestQueue::start(&format!("{}/main", cluster.namespace)).await?;
    cluster.create_secrets(&queue.url).await?;
    let operator = cluster.start_operator(&[]).await?;
    let autoscaling = json!({ "workers": { "autoscaling": { "minReplicas": 2, "maxReplicas": 10 } } });
    cluster.install("main", autoscaling).await?;

    let admins = [&api.admin, &worker.admin, &scheduler.admin, &console.admin, &operator.admin].map(String::as_str);
    let prometheus = Prometheus::start(&env, &admins, &rules::text()?).await?;
    let missing = async || {
        load(&api, &console).await?;
        let mut missing = Vec::new();
        for alert in rules::alerts()? {
            for selector in selectors(alert["expr"].as_str().unwrap_or_default()) {
                if prometheus.query(&selector).await?.is_empty() {
                    missing.push(selector);
                }
            }
        }
        for (title, query) in dashboard_queries()? {
            if prometheus.query(&query).await?.is_empty() && !EMPTY.iter().any(|end| query.ends_with(end)) {
                missing.push(format!("{title}: {query}"));
            }
        }
        missing.retain(|query| !ABSENT.iter().any(|(name, _)| query.contains(name)));
        anyhow::Ok(missing)
    };
    let complete = eventually("every query has data", TIMEOUT, async || Ok(missing().await?.is_empty())).await;
    assert!(complete.is_ok(), "no data: {:#?}", missing().await?);
    let exemplars = prometheus.exemplars("http_server_request_duration_seconds_bucket").await?;
    let trace = &exemplars.first().context("an exemplar")?["exemplars"][0]["labels"]["trace_id"];
    assert_eq!(trace.as_str().map(str::len), Some(32), "{exemplars:?}");
    for admin in admins {
        check_with_promtool(admin).await?;
    }
    Ok(())
}

//! Acts on many tasks: bounded steps at a rate, progress, stop, and one row in the audit log whatever happens.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use pulse_tests::{Client, Process, TestEnv, eventually, token};
use serde_json::{Value, json};

use super::{ADMIN, Browser, header, started};

const TIMEOUT: Duration = Duration::from_secs(30);
const ACTS: &str = "/api/v1/admin/acts";

/// Adds dead letters of two errors.
async fn die(env: &TestEnv, number: i32, error: &str) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO users (subject) VALUES ('ada') ON CONFLICT DO NOTHING").execute(&env.db).await?;
    let dead = "INSERT INTO dead_tasks (id, kind, user_id, event_ids, created_at, attempts, max_attempts, fencing_token,
                                        bytes, reason, errors)
                SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0')
                        || substr(replace(gen_random_uuid()::text, '-', ''), 13))::uuid, 'process_event', (SELECT id FROM users LIMIT 1), ARRAY[-n], now(), 3, 3, 1, 600,
                       'timeout', jsonb_build_array(jsonb_build_object('attempt', 3, 'at', now(), 'reason', 'timeout',
                                                                       'error', $2::text))
                FROM generate_series(1, $1) AS n";
    sqlx::query(dead).bind(number).bind(error).execute(&env.db).await?;
    Ok(())
}

fn admin(console: &Process) -> Client {
    Client::new(&console.url, &token("ops", Some(ADMIN)))
}

/// Starts a slow retry of all dead letters; returns the id of the act.
async fn slow_act(console: &Process, rate: i32) -> anyhow::Result<String> {
    let body = json!({ "do": "retry", "filter": "state:dead", "rate": rate, "reason": "fixed" });
    let act = admin(console).post(ACTS, &body).await?;
    anyhow::ensure!(act.status == 202 && act.json["state"] == "running", "{}", act.text);
    Ok(act.json["act"].as_str().unwrap_or_default().to_owned())
}

/// The rows of an act in the audit log: outcome, and whether the count is that of the retried tasks.
async fn audited(env: &TestEnv) -> anyhow::Result<Vec<(String, bool)>> {
    let rows = "SELECT outcome, count = (SELECT count(*) FROM tasks) FROM audit_log WHERE action = 'tasks.retry'
                AND actor = 'ops' AND reason = 'fixed' AND target = 'state:dead'";
    Ok(sqlx::query_as(rows).fetch_all(&env.db).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn act_on_100_000_dead_letters_delays_no_event_and_is_stopped() -> anyhow::Result<()> {
    let (env, console) = started(&[]).await?;
    let api = Process::start(&env, "api", &[]).await?;
    die(&env, 100_000, "inventory is away").await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    let confirm = browser.get("/acts/new?do=retry&q=state:dead").await?.text;
    // A loaded machine may count only a part of them in its time.
    assert!(confirm.contains("Retry 100,000 dead letters") || confirm.contains("Retry at least"), "{confirm}");
    let form = format!("csrf={}&do=retry&q=state:dead&rate=5000&reason=fixed", browser.csrf().await?);
    let begun = browser.post("/acts", &form).await?;
    let path = header(&begun, "location").to_owned();
    let page = browser.get(&path).await?;
    assert_eq!(header(&page, "refresh"), "2", "{}", page.text);
    assert!(page.text.contains("Retry: running") && page.text.contains("<progress"), "{}", page.text);
    assert!(browser.get("/dead-letters").await?.text.contains("Retry: running"), "the page of dead letters shows it");
    let client = api.client("ada");
    for _ in 0..5 {
        let started = Instant::now();
        client.post_event("a").await?;
        assert!(started.elapsed() < Duration::from_secs(5), "an event waits for the act");
    }
    let csrf = browser.csrf().await?;
    assert_eq!(browser.post(&format!("{path}/stop"), &format!("csrf={csrf}")).await?.status, 303);
    let stopped = async || Ok(browser.get(&path).await?.text.contains("Retry: stopped"));
    eventually("the act is stopped", TIMEOUT, stopped).await?;
    let exact = "SELECT count(*) FROM audit_log WHERE outcome = 'stopped' AND actor = 'ops' AND reason = 'fixed'
                 AND count = 100000 - (SELECT count(*) FROM dead_tasks) AND count BETWEEN 1 AND 99999";
    assert_eq!(env.number(exact).await?, 1, "one row has the exact count");
    assert_eq!(env.number("SELECT count(*) FROM running_acts").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn act_keeps_its_rate_and_ends_with_its_console() -> anyhow::Result<()> {
    let (env, mut console) = started(&[]).await?;
    die(&env, 1000, "inventory is away").await?;
    slow_act(&console, 20).await?;
    let keeps = "SELECT (moved <= 20 * extract(epoch FROM now() - started_at) + 5)::int::bigint FROM running_acts";
    let moved = async || {
        anyhow::ensure!(env.number(keeps).await? == 1, "the act is too fast");
        Ok(env.number("SELECT moved FROM running_acts").await? >= 40)
    };
    eventually("40 tasks are retried", TIMEOUT, moved).await?;
    assert_eq!(console.stop().await?, 0);
    assert_eq!(audited(&env).await?, [("stopped".to_owned(), true)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn act_of_a_killed_console_is_ended_with_its_exact_count() -> anyhow::Result<()> {
    let (env, console) = started(&[]).await?;
    die(&env, 5000, "inventory is away").await?;
    slow_act(&console, 200).await?;
    console.kill().await?;
    // As if 30 s had passed.
    sqlx::query("UPDATE running_acts SET seen_at = seen_at - interval '31 s'").execute(&env.db).await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let ended = async || Ok(audited(&env).await? == [("interrupted".to_owned(), true)]);
    eventually("the scheduler ends the act", TIMEOUT, ended).await
}

#[tokio::test(flavor = "multi_thread")]
async fn acts_take_a_selection_or_what_a_filter_matches() -> anyhow::Result<()> {
    let (env, console) = started(&[]).await?;
    die(&env, 7, "currency \"EURO is\nnot ISO").await?;
    die(&env, 5, "inventory is away").await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    let page = browser.get("/tasks?q=state:dead").await?.text;
    let boxes: Vec<&str> =
        page.split("name=\"id\" value=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(boxes.len(), 12, "{page}");
    let selected = format!("do=discard&id={}&id={}", boxes[0], boxes[1]);
    assert!(browser.get(&format!("/acts/new?{selected}")).await?.text.contains("Discard 2 dead letters"));
    let csrf = browser.csrf().await?;
    assert_eq!(browser.post("/acts", &format!("csrf={csrf}&{selected}")).await?.status, 303);
    assert_eq!(env.number("SELECT count(*) FROM task_history WHERE outcome = 'cancelled'").await?, 2);

    // The filter of a group comes from its link, with all that a quote or a line break could break.
    let groups = browser.get("/dead-letters").await?.text;
    let links = groups.split("href=\"").filter(|rest| rest.starts_with("/acts/new?do=retry"));
    let mut counts = Vec::new();
    for link in links {
        let link = link.split('"').next().unwrap_or_default().replace("&amp;", "&");
        let text = browser.get(&link).await?.text;
        let title = text.split("<h1>Retry ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        counts.push(title.parse::<i64>().unwrap_or_default());
    }
    let dead = env.number("SELECT count(*) FROM dead_tasks").await?;
    assert!(counts.len() == 2 && counts.iter().sum::<i64>() == dead, "{counts:?} of {dead}");

    let act = async |body: Value| admin(&console).send(Method::POST, ACTS, &[], Bytes::from(body.to_string())).await;
    let dry = act(json!({ "do": "retry", "filter": "error:inventory", "dry_run": true })).await?;
    let away = env.number("SELECT count(*) FROM dead_tasks WHERE errors::text LIKE '%inventory%'").await?;
    assert_eq!((dry.status, dry.json["matching"]["tasks"].as_i64()), (200, Some(away)), "{}", dry.text);
    let done =
        act(json!({ "do": "retry", "filter": "error:inventory reason:timeout user:ada since:1h", "limit": 2 })).await?;
    assert_eq!((done.status, &done.json["state"], &done.json["moved"]), (202, &json!("completed"), &json!(2)));
    let again = admin(&console).get(&format!("{ACTS}/{}", done.json["act"].as_str().unwrap_or_default())).await?;
    assert_eq!(again.json, done.json, "an act is found after its end");
    let cancelled = act(json!({ "do": "cancel", "filter": "user:ada" })).await?;
    assert_eq!(cancelled.json["moved"], 2, "only the retried ones are unsettled: {}", cancelled.text);
    for (body, status) in [
        (json!({ "do": "retry" }), 422),
        (json!({ "do": "retry", "filter": " " }), 422),
        (json!({ "do": "retry", "filter": "state:gone" }), 422),
        (json!({ "do": "retry", "filter": "state:dead oops" }), 422),
        (json!({ "do": "retry", "filter": "state:dead", "ids": [boxes[2]] }), 422),
        (json!({ "do": "retry", "filter": "state:dead", "rate": 0 }), 422),
        (json!({ "do": "retry", "filter": "state:dead", "limit": -1 }), 422),
        (json!({ "do": "drop", "filter": "state:dead" }), 422),
        (json!({ "do": "retry", "filters": "state:dead" }), 422),
        (json!({ "do": "retry", "filter": "user:unknown" }), 202),
    ] {
        let answer = act(body.clone()).await?;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
    let rows = env.number("SELECT count(*) FROM audit_log WHERE via IN ('console', 'api')").await?;
    assert_eq!(rows, 4, "each act has one row, and what was refused or dry has none");
    Ok(())
}

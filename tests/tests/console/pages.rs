//! Pages: headers, escaping, and the way from a dead letter to its retry.

use std::time::Duration;

use http::Method;
use pulse_tests::{Process, eventually};
use serde_json::json;

use super::{ADMIN, Browser, header, started};

const PAGES: [&str; 8] = ["/", "/tasks", "/dead-letters", "/workers", "/events", "/schedules", "/queue", "/audit"];

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_small_and_allows_nothing_inline() -> anyhow::Result<()> {
    let (_env, console) = started(&[]).await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    for path in PAGES.into_iter().chain(["/?range=24h", "/?range=7d", "/login", "/nothing"]) {
        let page = browser.get(path).await?;
        let policy = header(&page, "content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        if path == "/nothing" {
            continue;
        }
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!((page.status, header(&page, "x-frame-options")), (200, "DENY"), "{path}: {}", page.text);
        assert_eq!((header(&page, "cache-control"), header(&page, "referrer-policy")), ("no-store", "same-origin"));
        assert!(page.text.len() < 100_000, "{path}: {} bytes", page.text.len());
        let inline = ["<script>", "<style", " style=", " onclick", "javascript:"];
        assert!(inline.iter().all(|text| !page.text.contains(text)), "{path}: {}", page.text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_of_events_and_filters_are_escaped() -> anyhow::Result<()> {
    let (env, console) = started(&[]).await?;
    let api = Process::start(&env, "api", &[]).await?;
    let evil = "<script>x</script>\"'";
    let event = json!({ "event_name": evil, "event_type": evil, "source": evil, "session_id": evil, "payload": {} });
    let accepted = api.client(evil).post("/api/v1/events", &event).await?;
    assert_eq!(accepted.status, 202, "{}", accepted.text);
    let task = accepted.json["task_id"].as_str().unwrap_or_default().to_owned();
    let failed = json!([{ "attempt": 1, "at": "2026-01-01T00:00:00Z", "reason": "timeout", "error": evil }]);
    sqlx::query("UPDATE tasks SET attempts = 1, errors = $1, worker = $2")
        .bind(failed)
        .bind(evil)
        .execute(&env.db)
        .await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    let quoted = "%3Cscript%3Ex%3C%2Fscript%3E%22";
    let paths = ["/tasks".into(), format!("/tasks/{task}"), "/events".into(), format!("/tasks?q={quoted}")];
    for path in paths {
        let page = browser.get(&path).await?;
        assert_eq!(page.status, 200, "{path}: {}", page.text);
        assert!(!page.text.contains("<script>x") && page.text.contains("&lt;script&gt;x"), "{path}: {}", page.text);
    }
    let missing = browser.get(&format!("/go?id={quoted}")).await?;
    assert!(missing.status == 404 && !missing.text.contains("<script>x"), "{}", missing.text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn task_says_why_it_waits_and_only_an_administrator_reads_who_paused() -> anyhow::Result<()> {
    let (env, console) = started(&[]).await?;
    let api = Process::start(&env, "api", &[]).await?;
    let task = api.client("ada").post_event("a").await?;
    let (ops, ada) = (Browser::new(&console, "ops", ADMIN), Browser::new(&console, "ada", "events:read"));
    let form = format!("csrf={}&reason=%3Cb%3Ecalm", ops.csrf().await?);
    assert_eq!(ops.post("/queue/pause", &form).await?.status, 303);
    let page = ops.get(&format!("/tasks/{task}")).await?.text;
    for text in ["Why it waits", "ops paused all claims at", "&lt;b&gt;calm", "To do: ", "Also: No worker runs"] {
        assert!(page.contains(text), "{text}: {page}");
    }
    let page = ada.get(&format!("/tasks/{task}")).await?.text;
    assert!(page.contains("an administrator sees what") && !page.contains("calm"), "{page}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_is_found_and_retried_from_the_browser() -> anyhow::Result<()> {
    let (env, console) = started(&[]).await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let headers = [("x-request-id", "order-4711")];
    let event = json!({ "event_name": "invalid", "event_type": "t" }).to_string();
    let accepted = api.client("ada").send(Method::POST, "/api/v1/events", &headers, event.into()).await?;
    let task = accepted.json["task_id"].as_str().unwrap_or_default().to_owned();
    let dead = async || Ok(env.number("SELECT count(*) FROM dead_tasks").await? == 1);
    eventually("the task is dead", Duration::from_secs(20), dead).await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    let found = browser.get("/go?id=order-4711").await?;
    assert_eq!(header(&found, "location"), format!("/tasks/{task}"));
    let page = browser.get(&format!("/tasks/{task}")).await?.text;
    assert!(page.contains("order-4711") && page.contains("Retry now") && page.contains("Why it is dead"), "{page}");
    let groups = browser.get("/dead-letters").await?.text;
    let link = groups.split("href=\"").find(|rest| rest.starts_with("/acts/new?do=retry")).unwrap_or_default();
    let link = link.split('"').next().unwrap_or_default().replace("&amp;", "&");
    let confirm = browser.get(&link).await?;
    assert!(confirm.text.contains("Retry 1 dead letters"), "{link}: {}", confirm.text);
    let form =
        format!("{}&limit=1&csrf={}&reason=fixed", link.split('?').nth(1).unwrap_or_default(), browser.csrf().await?);
    let answer = browser.post("/acts", &form).await?;
    let progress = browser.get(header(&answer, "location")).await?;
    assert!(progress.text.contains("Retry: completed") && header(&progress, "refresh").is_empty(), "{}", progress.text);
    let audited = "SELECT count(*) FROM audit_log WHERE actor = 'ops' AND action = 'tasks.retry' AND reason = 'fixed' AND count = 1";
    assert_eq!(env.number(audited).await?, 1);
    Ok(())
}

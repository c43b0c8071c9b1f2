//! Page Instance: the operator's decisions, from a file. And the metrics of the console.

use std::time::Duration;

use http::Method;
use pulse_tests::eventually;
use serde_json::json;

use super::{ADMIN, Browser, started};

const TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn instance_page_follows_the_file_of_the_operator() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("decisions.json");
    let (_env, console) = started(&["--decisions-file", file.to_str().unwrap_or_default()]).await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    assert!(browser.get("/").await?.text.contains("href=\"/instance\""), "it is in the navigation");
    let page = browser.get("/instance").await?;
    assert!(page.status == 200 && page.text.contains("has not written its decisions yet"), "{}", page.text);

    let condition = json!({
        "name": "Ready", "status": "False", "reason": "RolloutInProgress", "message": "<b>rolling", "since": "2026-01-02T03:04:05Z",
    });
    let scaling =
        json!({ "at": "2026-01-02T03:04:05Z", "from": 2, "to": 5, "reason": "BacklogTarget", "message": "700 tasks" });
    for image in ["pulse:1", "pulse:2"] {
        let decisions = json!({ "active": image, "desired": "pulse:2", "scaling": scaling, "conditions": [condition] });
        // As the kubelet does it: a new file in the place of the old one.
        let next = folder.path().join("next");
        std::fs::write(&next, decisions.to_string())?;
        std::fs::rename(&next, &file)?;
        let page = browser.get("/instance").await?.text;
        for text in [image, "2 → 5 at", "BacklogTarget", "700 tasks", "RolloutInProgress", "&lt;b&gt;rolling"] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(page.len() < 100_000);
    }
    std::fs::write(&file, "x".repeat(100_000))?;
    let page = browser.get("/instance").await?;
    assert!(page.status == 200 && page.text.contains("it is longer than 65536 bytes"), "{}", page.text);

    let user = Browser::new(&console, "ada", "events:read");
    assert_eq!(user.get("/instance").await?.status, 403);
    assert!(!user.get("/tasks").await?.text.contains("/instance"), "only administrators see it");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn instance_page_is_absent_without_an_operator() -> anyhow::Result<()> {
    let (_env, console) = started(&[]).await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    assert_eq!(browser.get("/instance").await?.status, 404);
    assert!(!browser.get("/").await?.text.contains("/instance"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn console_exports_viewers_requests_age_of_figures_and_refused_sign_ins() -> anyhow::Result<()> {
    let (_env, console) = started(&[]).await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    let metric = async |filter: &str| console.metric(filter).await;
    assert_eq!(metric("pulse_console_viewers").await?, 0.0);
    let stream = super::live::viewer(&console).await?;
    eventually("one viewer", TIMEOUT, async || Ok(metric("pulse_console_viewers").await? == 1.0)).await?;
    drop(stream);
    eventually("it is gone", TIMEOUT, async || Ok(metric("pulse_console_viewers").await? == 0.0)).await?;

    assert_eq!(browser.get("/tasks").await?.status, 200);
    let requests = "http_server_request_duration_seconds_count{route=\"/tasks\",method=\"GET\",status=\"200\"}";
    assert_eq!(metric(requests).await?, 1.0);
    eventually("the figures are read", TIMEOUT, async || Ok(metric("pulse_console_figures_age_seconds").await? < 2.0))
        .await?;

    let form = [("content-type", "application/x-www-form-urlencoded")];
    for _ in 0..11 {
        browser.client.send(Method::POST, "/login", &form, "token=wrong".into()).await?;
    }
    assert_eq!(metric("pulse_console_sign_ins_refused_total{reason=\"token\"}").await?, 10.0);
    assert_eq!(metric("pulse_console_sign_ins_refused_total{reason=\"attempts\"}").await?, 1.0);
    Ok(())
}

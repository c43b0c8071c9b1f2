//! Acts: each needs the token of its form, and leaves a row in the audit log.

use pulse_tests::{Client, token};
use serde_json::json;

use super::{ADMIN, Browser, header, started};

#[tokio::test(flavor = "multi_thread")]
async fn acts_need_the_form_of_the_session_and_are_audited() -> anyhow::Result<()> {
    let (env, console) = started(&[]).await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    let other = Browser::new(&console, "other", ADMIN).csrf().await?;
    for form in ["", "csrf=", &format!("csrf={other}")] {
        assert_eq!(browser.post("/queue/pause", form).await?.status, 403, "{form}");
    }
    assert_eq!(env.number("SELECT count(*) FROM pause").await?, 0);
    let csrf = browser.csrf().await?;
    let answer = browser.post("/queue/pause", &format!("csrf={csrf}&reason=%3Cb%3Ecalm%3C%2Fb%3E")).await?;
    assert_eq!((answer.status, header(&answer, "location")), (303, "/queue"), "{answer:?}");
    let page = browser.get("/queue").await?.text;
    assert!(page.contains("by ops: &lt;b&gt;calm") && page.contains("Resume all claims"), "{page}");
    assert_eq!(browser.post("/queue/resume", &format!("csrf={csrf}")).await?.status, 303);
    let audit = browser.get("/audit").await?.text;
    assert!(audit.contains("resume") && audit.contains("&lt;b&gt;calm") && audit.contains("console"), "{audit}");
    for form in ["do=retry&limit=5", "do=retry&q=state:dead&limit=0", "do=drop&q=state:dead", "do=retry&q=gone"] {
        let answer = browser.post("/acts", &format!("csrf={csrf}&{form}")).await?;
        assert_eq!(answer.status, 422, "{form}");
    }
    assert_eq!(env.number("SELECT count(*) FROM audit_log WHERE action LIKE 'tasks.%'").await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_console_shows_and_does_nothing() -> anyhow::Result<()> {
    let (env, console) = started(&["--read-only"]).await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    let page = browser.get("/queue").await?;
    assert!(page.status == 200 && !page.text.contains("Pause all claims"), "{}", page.text);
    let form = format!("csrf={}", browser.csrf().await?);
    let acts = ["/queue/pause", "/queue/resume", "/acts", "/acts/0193a8f1-7c22-7d0e-b1f4-66d94c1e9a07/stop"];
    for path in acts {
        assert_eq!(browser.post(path, &format!("{form}&do=cancel&q=user:a")).await?.status, 403, "{path}");
    }
    let client = Client::new(&console.url, &token("ops", Some(ADMIN)));
    for (path, body) in
        [("pause", json!({})), ("resume", json!({})), ("acts", json!({ "do": "cancel", "filter": "user:a" }))]
    {
        let answer = client.post(&format!("/api/v1/admin/{path}"), &body).await?;
        assert_eq!((answer.status, answer.json["code"].as_str()), (403, Some("read_only")), "{path}: {}", answer.text);
    }
    let done = "SELECT (SELECT count(*) FROM pause) + (SELECT count(*) FROM audit_log WHERE via IN ('console', 'api'))";
    assert_eq!(env.number(done).await?, 0);
    Ok(())
}

//! Acts: each needs the token of its form, and leaves a row in the audit log.

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
    for form in ["do=retry&limit=5", "do=retry&group=x&limit=0", "do=drop&group=x&limit=1"] {
        let answer = browser.post("/dead-letters/act", &format!("csrf={csrf}&{form}")).await?;
        assert_eq!(answer.status, 400, "{form}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn read_only_console_shows_and_does_nothing() -> anyhow::Result<()> {
    let (env, console) = started(&["--read-only"]).await?;
    let browser = Browser::new(&console, "ops", ADMIN);
    let page = browser.get("/queue").await?;
    assert!(page.status == 200 && !page.text.contains("Pause all claims"), "{}", page.text);
    let form = format!("csrf={}", browser.csrf().await?);
    assert_eq!(browser.post("/queue/pause", &form).await?.status, 403);
    assert_eq!(env.number("SELECT count(*) FROM pause").await?, 0);
    Ok(())
}

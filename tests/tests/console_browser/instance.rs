//! The page of the operator's decisions.

use pulse_tests::{Process, TestEnv, eventually, token};
use serde_json::json;

use crate::driver::Browser;
use crate::{TIMEOUT, axe, watched};

#[tokio::test(flavor = "multi_thread")]
async fn instance_page_is_accessible_and_fits_a_phone() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("decisions.json");
    let since = "2026-01-02T03:04:05Z";
    let conditions = json!([
        { "name": "Ready", "status": "False", "reason": "RolloutInProgress", "message": "2 of 5 pods run", "since": since },
        { "name": "QueueReachable", "status": "True", "reason": "Sampled", "message": "", "since": since },
    ]);
    let scaling = json!({ "at": since, "from": 2, "to": 5, "reason": "BacklogTarget", "message": "700 tasks" });
    let decisions = json!({ "active": "pulse:1", "desired": "pulse:2", "scaling": scaling, "conditions": conditions });
    std::fs::write(&file, decisions.to_string())?;
    let env = TestEnv::start().await?;
    let console = Process::start(&env, "console", &["--decisions-file", file.to_str().unwrap_or_default()]).await?;

    let (browser, axe) = (Browser::start(true).await?, axe::Axe::load().await?);
    browser.page.goto(format!("{}/instance", console.url)).await?;
    browser.find("#token").await?.send_keys(token("ops", Some("admin"))).await?;
    browser.press("Sign in").await?;
    let open = async || {
        browser.page.goto(format!("{}/instance", console.url)).await?;
        Ok(browser.text("main h1").await? == "Instance")
    };
    eventually("the page of the instance", TIMEOUT, open).await?;
    browser.shows("RolloutInProgress").await?;
    browser.shows("700 tasks").await?;
    let mut problems = Vec::new();
    for theme in ["dark", "light"] {
        browser.find(&format!(".top button[value={theme}]")).await?.click().await?;
        problems.extend(axe.problems(&browser, theme).await?);
        for width in [320, 390, 768, 1024] {
            browser.resize(width, 844).await?;
            problems.extend(watched::sideways(&browser, "/instance", width).await?);
        }
        browser.resize(1280, 900).await?;
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    watched::nothing_is_wrong(&browser, &console.url).await?;
    browser.quit().await
}

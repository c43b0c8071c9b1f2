//! Every page and action without script.

use pulse_tests::eventually;

use crate::driver::Browser;
use crate::shop::Shop;
use crate::{PAGES, TIMEOUT};

#[tokio::test(flavor = "multi_thread")]
async fn every_page_and_action_works_without_script() -> anyhow::Result<()> {
    let mut shop = Shop::open("1h").await?;
    let failing = shop.prints("the first payment that fails").await?;
    let browser = Browser::start(false).await?;
    shop.sign_in(&browser).await?;
    for (path, heading) in PAGES {
        browser.page.goto(shop.url("/")).await?;
        browser.find(&format!(".nav a[href='{path}']")).await?.click().await?;
        let shown = async || Ok(browser.text("main h1").await? == heading);
        eventually(heading, TIMEOUT, shown).await?;
    }
    browser.find(".top button[value=dark]").await?.click().await?;
    let is_dark = async || Ok(browser.find("html").await?.attr("data-theme").await?.as_deref() == Some("dark"));
    eventually("the theme is dark", TIMEOUT, is_dark).await?;
    filter_and_one_task(&shop, &browser, &failing).await?;
    groups(&shop, &browser).await?;

    browser.page.goto(shop.url("/queue")).await?;
    browser.press("Pause all claims").await?;
    browser.shows("Paused").await?;
    browser.press("Resume all claims").await?;
    browser.shows("Workers claim tasks").await?;
    browser.page.goto(shop.url("/audit")).await?;
    for act in ["pause", "resume", "tasks.retry", "tasks.cancel"] {
        browser.shows(act).await?;
    }
    browser.find(".foot button").await?.click().await?;
    browser.shows("Sign in to the console").await?;
    browser.quit().await
}

/// Finds a task by the filter and by an id, retries it, and discards it when it is dead again.
async fn filter_and_one_task(shop: &Shop, browser: &Browser, failing: &str) -> anyhow::Result<()> {
    browser.page.goto(shop.url("/tasks")).await?;
    browser.find("#q").await?.send_keys("state:dead,retrying user:shop-payments\n").await?;
    let found = async || {
        browser.page.refresh().await?;
        Ok(browser.text("main table").await?.contains("no exchange rate"))
    };
    eventually("the filter finds failing payments", TIMEOUT, found).await?;
    browser.find("#go").await?.send_keys(format!("{failing}\n")).await?;
    let state = async |wanted: &str| {
        let reached = async || {
            browser.page.refresh().await?;
            Ok(browser.text("main h1").await?.contains(wanted))
        };
        eventually(wanted, TIMEOUT, reached).await
    };
    state("dead").await?;
    browser.press("Retry now").await?;
    state("dead").await?;
    browser.press("Discard").await?;
    state("cancelled").await
}

/// Retries and discards dead letters of a group.
async fn groups(shop: &Shop, browser: &Browser) -> anyhow::Result<()> {
    for (link, button) in [("Retry…", "Retry"), ("Discard…", "Discard")] {
        let confirms = async || {
            browser.page.goto(shop.url("/dead-letters")).await?;
            Ok(browser.press(link).await.is_ok())
        };
        eventually("there are dead letters", TIMEOUT, confirms).await?;
        browser.shows("Dry run").await?;
        browser.press(button).await?;
        // The page of a running act loads itself again.
        let done = async || Ok(browser.text("main h1").await?.ends_with(": completed"));
        eventually("the act is done", TIMEOUT, done).await?;
    }
    Ok(())
}

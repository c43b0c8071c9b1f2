//! The console in a real browser, while the story of the shop runs.

mod axe;
mod driver;
mod instance;
mod lists;
mod scriptless;
mod shop;
mod watched;

use std::time::Duration;

use pulse_tests::eventually;

use self::driver::Browser;
use self::shop::Shop;

/// Each page that the navigation leads to, with its heading.
const PAGES: [(&str, &str); 8] = [
    ("/", "Overview"),
    ("/tasks", "Tasks"),
    ("/dead-letters", "Dead letters"),
    ("/workers", "Workers"),
    ("/events", "Events"),
    ("/schedules", "Schedules"),
    ("/queue", "Queue"),
    ("/audit", "Audit log"),
];

const TIMEOUT: Duration = Duration::from_secs(40);
const EVENTS: &str = "SELECT count(*) FROM events";
/// Claims later than one second after the pause.
const LATE_CLAIMS: &str = "SELECT count(*) FROM (SELECT started_at FROM tasks UNION ALL SELECT started_at FROM task_history \
                           UNION ALL SELECT started_at FROM dead_tasks) AS claims, pause \
                           WHERE started_at > paused_at + interval '1 second'";

#[tokio::test(flavor = "multi_thread")]
async fn failing_task_is_found_by_its_request_id_explained_and_retried() -> anyhow::Result<()> {
    let mut shop = Shop::open("20s").await?;
    let failing = shop.prints("the first payment that fails").await?;
    let browser = Browser::start(true).await?;
    shop.sign_in(&browser).await?;
    let dead = async || {
        browser.page.goto(shop.url(&format!("/go?id={failing}"))).await?;
        Ok(browser.text("main h1").await?.contains("dead"))
    };
    eventually("the payment is dead", TIMEOUT, dead).await?;
    browser.page.goto(shop.url("/")).await?;
    let jump = browser.find("#go").await?;
    jump.send_keys(format!("{failing}\n")).await?;
    browser.shows(&failing).await?;
    browser.shows("no exchange rate for CHF in rates.json of release 2.8.0").await?;
    let id = browser.text(".head .id").await?;
    assert!(browser.page.current_url().await?.path().ends_with(&id), "{id}");
    shop.prints("rolled back").await?;
    browser.find("#reason").await?.send_keys("release 2.8.0 is rolled back").await?;
    browser.press("Retry now").await?;
    let completed = async || {
        browser.page.goto(shop.url(&format!("/tasks/{id}"))).await?;
        Ok(browser.text("main h1").await?.contains("completed"))
    };
    eventually("the payment is captured", TIMEOUT, completed).await?;
    browser.page.goto(shop.url("/audit")).await?;
    browser.shows("release 2.8.0 is rolled back").await?;
    watched::nothing_is_wrong(&browser, &shop.url("/")).await?;
    browser.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn pause_stops_claims_within_a_second_and_resume_drains() -> anyhow::Result<()> {
    let shop = Shop::open("1s").await?;
    let browser = Browser::start(true).await?;
    shop.sign_in(&browser).await?;
    // The heading, the charts and the page stay: only the figures are replaced.
    browser.page.execute("document.querySelector('main h1').dataset.seen = 'yes'", vec![]).await?;
    let before = browser.text("main time").await?;
    let moved = async || Ok(browser.text("main time").await? != before && browser.text(".rib").await?.contains("/s"));
    eventually("the figures move", TIMEOUT, moved).await?;
    assert_eq!(browser.find("main h1").await?.attr("data-seen").await?.as_deref(), Some("yes"), "no reload");

    browser.page.goto(shop.url("/queue")).await?;
    browser.find("#reason").await?.send_keys("the bank is away").await?;
    browser.press("Pause all claims").await?;
    browser.shows("the bank is away").await?;
    let posted = shop.number(EVENTS).await?;
    eventually("the shop posts on", TIMEOUT, async || Ok(shop.number(EVENTS).await? > posted + 40)).await?;
    assert_eq!(shop.number(LATE_CLAIMS).await?, 0, "claims stop");
    browser.page.goto(shop.url("/")).await?;
    browser.shows("All claims are paused").await?;

    browser.page.goto(shop.url("/queue")).await?;
    browser.press("Resume all claims").await?;
    browser.shows("Workers claim tasks").await?;
    let waiting = "SELECT count(*) FROM tasks WHERE started_at IS NULL AND created_at < now() - interval '3 seconds'";
    eventually("the backlog drains", TIMEOUT, async || Ok(shop.number(waiting).await? == 0)).await?;
    watched::nothing_is_wrong(&browser, &shop.url("/")).await?;
    browser.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_accessible_in_both_themes_and_fits_a_phone() -> anyhow::Result<()> {
    let mut shop = Shop::open("1h").await?;
    let failing = shop.prints("the first payment that fails").await?;
    let browser = Browser::start(true).await?;
    let axe = axe::Axe::load().await?;
    browser.page.goto(shop.url("/login")).await?;
    let mut problems = axe.problems(&browser, "sign in").await?;
    shop.sign_in(&browser).await?;
    let group = async || {
        browser.page.goto(shop.url("/dead-letters")).await?;
        Ok(browser.press("Retry…").await.is_ok())
    };
    eventually("there are dead letters", TIMEOUT, group).await?;
    let confirm = browser.page.current_url().await?;
    let confirm = format!("{}?{}", confirm.path(), confirm.query().unwrap_or_default());
    let task = format!("/go?id={failing}");
    let more = [(confirm.as_str(), "Retry"), (task.as_str(), "dead"), ("/tasks?q=state:nothing", "Tasks")];
    for theme in ["dark", "light"] {
        browser.find(&format!(".top button[value={theme}]")).await?.click().await?;
        for (path, heading) in PAGES.into_iter().chain(more) {
            browser.resize(1280, 900).await?;
            browser.page.goto(shop.url(path)).await?;
            let shown = browser.text("main h1").await?;
            assert!(shown.contains(heading), "{path}: {shown}");
            problems.extend(axe.problems(&browser, &format!("{path} {theme}")).await?);
            for width in [320, 390, 768, 1024] {
                browser.resize(width, 844).await?;
                problems.extend(watched::sideways(&browser, path, width).await?);
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    watched::nothing_is_wrong(&browser, &shop.url("/")).await?;
    browser.quit().await
}

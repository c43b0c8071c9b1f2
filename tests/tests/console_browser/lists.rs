//! Lists: what moves in them, and what is selected.

use pulse_tests::eventually;

use crate::TIMEOUT;
use crate::driver::Browser;
use crate::shop::Shop;
use crate::watched;

/// Texts of all elements.
async fn texts(browser: &Browser, css: &str) -> anyhow::Result<Vec<String>> {
    let script = "return [...document.querySelectorAll(arguments[0])].map(element => element.innerText.trim())";
    let texts = browser.page.execute(script, vec![css.into()]).await?;
    Ok(serde_json::from_value(texts.json().clone())?)
}

/// Waits until the text of an element changes although its page is not loaded again.
async fn moves(browser: &Browser, css: &str) -> anyhow::Result<()> {
    browser.page.execute("document.querySelector('main h1').dataset.seen = 'yes'", vec![]).await?;
    let before = browser.text(css).await?;
    eventually(css, TIMEOUT, async || Ok(browser.text(css).await? != before)).await?;
    assert_eq!(browser.find("main h1").await?.attr("data-seen").await?.as_deref(), Some("yes"), "no reload");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn new_events_appear_by_their_filter_and_counts_of_states_move() -> anyhow::Result<()> {
    let shop = Shop::open("1h").await?;
    let browser = Browser::start(true).await?;
    shop.sign_in(&browser).await?;
    browser.page.goto(shop.url("/events")).await?;
    moves(&browser, "main tbody tr:first-child").await?;

    let users = async || texts(&browser, "main tbody td:nth-child(3)").await;
    browser.find("#q").await?.send_keys("user:shop-payments nonsense\n").await?;
    browser.shows("“nonsense” is not a condition").await?;
    let selected = async || Ok(users().await?.iter().any(|user| user == "shop-payments"));
    eventually("the events of one user", TIMEOUT, selected).await?;
    for _ in 0..2 {
        moves(&browser, "main tbody tr:first-child").await?;
        let shown = users().await?;
        assert!(!shown.is_empty() && shown.iter().all(|user| user == "shop-payments"), "{shown:?}");
    }

    browser.page.goto(shop.url("/tasks")).await?;
    moves(&browser, ".rail a[href*='dead'] span:last-child").await?;
    watched::nothing_is_wrong(&browser, &shop.url("/")).await?;
    browser.quit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn selected_dead_letters_are_retried_and_audited() -> anyhow::Result<()> {
    let shop = Shop::open("1h").await?;
    let browser = Browser::start(true).await?;
    shop.sign_in(&browser).await?;
    let two = async || {
        browser.page.goto(shop.url("/tasks?q=state:dead")).await?;
        Ok(texts(&browser, "main tbody input[name=id]").await?.len() >= 2)
    };
    eventually("two dead letters", TIMEOUT, two).await?;
    for row in 1..=2 {
        browser.find(&format!("main tbody tr:nth-child({row}) input[name=id]")).await?.click().await?;
    }
    browser.press("Retry…").await?;
    browser.shows("Retry 2 dead letters").await?;
    browser.find("#reason").await?.send_keys("two of them").await?;
    browser.press("Retry").await?;
    let done = async || Ok(browser.text("main h1").await?.ends_with(": completed"));
    eventually("the act is done", TIMEOUT, done).await?;
    browser.page.goto(shop.url("/audit")).await?;
    browser.shows("two of them").await?;
    let rows = texts(&browser, "main tbody tr").await?;
    let row = rows.iter().find(|row| row.contains("two of them")).map(|row| row.split_whitespace().collect::<Vec<_>>());
    assert!(row.as_ref().is_some_and(|cells| cells.contains(&"tasks.retry") && cells.contains(&"2")), "{row:?}");
    watched::nothing_is_wrong(&browser, &shop.url("/")).await?;
    browser.quit().await
}

//! What the browser itself says about the pages.

use serde_json::Value;

use crate::driver::Browser;

/// Fails if a page logged an error, or asked for anything outside `origin`.
pub(crate) async fn nothing_is_wrong(browser: &Browser, origin: &str) -> anyhow::Result<()> {
    let logged = browser.page.browser_log().await?;
    let errors: Vec<&str> =
        logged.iter().filter(|entry| entry.level == "SEVERE").map(|entry| entry.message.as_str()).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let mut requests = 0;
    for entry in browser.page.get_log("performance").await? {
        let event: Value = serde_json::from_str(&entry.message)?;
        let event = &event["message"];
        let url = match event["method"].as_str() {
            Some("Network.requestWillBeSent") => event["params"]["request"]["url"].as_str(),
            Some("Network.webSocketCreated") => event["params"]["url"].as_str(),
            _ => None,
        };
        // Chromium's own start page.
        if let Some(url) = url.filter(|url| !url.starts_with("chrome")) {
            requests += 1;
            assert!(url.starts_with(origin) || url.starts_with("data:"), "a page asked for {url}");
        }
    }
    assert!(requests > 5, "the log of requests has {requests}");
    Ok(())
}

/// What makes the page wider than its window.
pub(crate) async fn sideways(browser: &Browser, page: &str, width: u32) -> anyhow::Result<Option<String>> {
    let script = "const root = document.documentElement; \
                  if (root.scrollWidth <= root.clientWidth) return null; \
                  const wide = [...document.body.querySelectorAll('*')]; \
                  const end = element => element.getBoundingClientRect().right; \
                  wide.sort((one, other) => end(other) - end(one)); \
                  return wide[0].outerHTML.slice(0, 200)";
    let widest = browser.page.execute(script, vec![]).await?;
    Ok(widest.json().as_str().map(|element| format!("{page} scrolls sideways at {width} px: {element}")))
}

//! axe-core: rules of accessibility, run in the page.

use anyhow::Context;
use serde_json::Value;

use crate::driver::Browser;

pub(crate) struct Axe(String);

impl Axe {
    pub(crate) async fn load() -> anyhow::Result<Self> {
        let packages = pulse_tests::npm_packages("tests/axe").await?;
        Ok(Self(std::fs::read_to_string(packages.join("axe-core/axe.min.js"))?))
    }

    /// What is serious or critical on the page that the browser shows, one line each.
    pub(crate) async fn problems(&self, browser: &Browser, page: &str) -> anyhow::Result<Vec<String>> {
        browser.page.execute(&*self.0, vec![]).await?;
        let run = "const done = arguments[0]; \
                   axe.run().then(result => done(result.violations), error => done(String(error)));";
        let result = browser.page.execute_async(run, vec![]).await?;
        let found = result.json().as_array().with_context(|| format!("{page}: {}", result.json()))?.clone();
        let serious = |rule: &&Value| ["serious", "critical"].contains(&rule["impact"].as_str().unwrap_or_default());
        let line = |rule: &Value| format!("{page}: {} at {}", rule["help"], rule["nodes"][0]["html"]);
        Ok(found.iter().filter(serious).map(line).collect())
    }
}

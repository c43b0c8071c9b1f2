//! The console over HTTP, as a browser without script uses it.

mod acts;
mod attacks;
mod bulk;
mod instance;
mod json;
mod live;
mod pages;
mod sessions;

use bytes::Bytes;
use http::Method;
use pulse_tests::{Client, Process, Response, TestEnv, token};

const ADMIN: &str = "admin events:read";

/// A signed-in browser.
struct Browser {
    client: Client,
    cookie: String,
}

impl Browser {
    fn new(console: &Process, user: &str, scope: &str) -> Self {
        Self::with(console, &token(user, Some(scope)))
    }

    fn with(console: &Process, token: &str) -> Self {
        Self { client: Client::new(&console.url, ""), cookie: format!("pulse_console={token}") }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.client.send(Method::GET, path, &[("cookie", &self.cookie)], Bytes::new()).await
    }

    /// Sends a form; fields are already encoded.
    async fn post(&self, path: &str, form: &str) -> anyhow::Result<Response> {
        let headers = [("cookie", self.cookie.as_str()), ("content-type", "application/x-www-form-urlencoded")];
        self.client.send(Method::POST, path, &headers, Bytes::from(form.to_owned())).await
    }

    /// The token that the forms of this session have.
    async fn csrf(&self) -> anyhow::Result<String> {
        let page = self.get("/tasks").await?.text;
        let token = page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        token.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("no form: {page}"))
    }
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn started(more: &[&str]) -> anyhow::Result<(TestEnv, Process)> {
    let env = TestEnv::start().await?;
    let console = Process::start(&env, "console", more).await?;
    Ok((env, console))
}

//! The console under load: many viewers, a long history, large pages, a slow PostgreSQL, restarts.

mod history;
mod restart;
mod sizes;
mod slow;
mod viewers;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Method;
use pulse_tests::{Client, Process, Response, TestEnv, token};
use sqlx::AssertSqlSafe;

const TIMEOUT: Duration = Duration::from_secs(30);

#[expect(clippy::print_stderr, reason = "prints measurements")]
fn print(measurement: &str) {
    eprintln!("{measurement}");
}

/// The cookie of a signed-in administrator.
fn cookie() -> String {
    format!("pulse_console={}", token("ops", Some("admin events:read")))
}

/// The browser of a signed-in administrator.
struct Browser {
    client: Client,
    cookie: String,
}

impl Browser {
    fn new(console: &Process) -> Self {
        Self { client: Client::new(&console.url, ""), cookie: cookie() }
    }

    async fn get(&self, path: &str) -> anyhow::Result<Response> {
        self.client.send(Method::GET, path, &[("cookie", &self.cookie)], Bytes::new()).await
    }

    /// The page, and how long it took.
    async fn timed(&self, path: &str) -> anyhow::Result<(Response, Duration)> {
        let started = Instant::now();
        let page = self.get(path).await?;
        Ok((page, started.elapsed()))
    }
}

/// Runs statements.
async fn run(env: &TestEnv, sql: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&env.db).await?;
    Ok(())
}

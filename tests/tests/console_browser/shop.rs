//! `pulse dev` with the story of the shop.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use pulse_tests::{binary, eventually};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::driver::Browser;

pub(crate) struct Shop {
    ready: Value,
    /// What the story printed.
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    /// Ends with the shop.
    _processes: [Child; 2],
    _data: tempfile::TempDir,
}

impl Shop {
    /// Starts everything. The bad release is deployed at once, and rolled back after `bad_for`.
    pub(crate) async fn open(bad_for: &str) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        std::fs::set_permissions(data.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        let folder: PathBuf = data.path().join("data");
        let mut dev = Command::new(binary());
        dev.args(["dev", "--json", "--port", "0", "--admin-port", "0", "--console-port", "0", "--data-dir"])
            .arg(folder);
        let mut dev =
            dev.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(dev.stdout.take().context("stdout")?).lines();
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await?;
        let ready: Value = serde_json::from_str(&line?.context("pulse dev ended")?)?;
        let mut story = Command::new(binary());
        story.args(["demo", "--story", "shop", "--rate", "4", "--noisy-rate", "20", "--bad-after", "0s", "--bad-for"]);
        story.args([bad_for, "--url", field(&ready, "api")]).env("PULSE_JWT_SECRET", field(&ready, "jwt_secret"));
        let mut story =
            story.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let lines = BufReader::new(story.stdout.take().context("stdout")?).lines();
        Ok(Self { ready, lines, _processes: [dev, story], _data: data })
    }

    /// Waits for a line that contains `text`, and returns its last word.
    pub(crate) async fn prints(&mut self, text: &str) -> anyhow::Result<String> {
        let printed = async {
            loop {
                let line = self.lines.next_line().await?.context("the story ended")?;
                if line.contains(text) {
                    return Ok(line.rsplit(' ').next().unwrap_or_default().to_owned());
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), printed)
            .await
            .with_context(|| format!("the story printed no {text}"))?
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", field(&self.ready, "console"))
    }

    /// Reads one number from PostgreSQL.
    pub(crate) async fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let mut database = PgConnection::connect(field(&self.ready, "database_url")).await?;
        Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(&mut database).await?)
    }

    /// Signs in as a person does.
    pub(crate) async fn sign_in(&self, browser: &Browser) -> anyhow::Result<()> {
        browser.page.goto(self.url("/")).await?;
        browser.find("#token").await?.send_keys(field(&self.ready, "admin_token")).await?;
        browser.press("Sign in").await?;
        let signed_in = async || Ok(browser.text("main h1").await? == "Overview");
        eventually("signed in", Duration::from_secs(20), signed_in).await
    }
}

fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

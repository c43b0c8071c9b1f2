//! `examples/usage.py` gets the same answers from the service built on FastAPI and from this one, but for the differences
//! that MIGRATING.md lists.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use pulse_tests::{
    Client, Process, SECRET, TestEnv, eventually, free_port, python_with_requirements, repository, run, token,
};
use tokio::process::{Child, Command};

use crate::differences::{Answer, differences};

const TIMEOUT: Duration = Duration::from_secs(90);
/// The line of MIGRATING.md after which the table of differences starts.
const TABLE: &str = "| difference | what it means |";

#[tokio::test(flavor = "multi_thread")]
async fn usage_script_gets_the_answers_of_fastapi_but_for_the_listed_differences() -> anyhow::Result<()> {
    let python = python_with_requirements("tests/legacy_server/requirements.txt").await?;
    let script = async |url: &str| -> anyhow::Result<Vec<Answer>> {
        let mut command = Command::new(&python);
        command.arg(repository().join("examples/usage.py"));
        command.env("PULSE_URL", url).env("PULSE_TOKEN", token("1", None));
        let output = tokio::time::timeout(TIMEOUT, run(&mut command)).await??;
        output.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    };

    let port = free_port()?;
    let legacy_url = format!("http://127.0.0.1:{port}");
    let _legacy = start_legacy_server(&python, port)?;
    let client = Client::new(&legacy_url, "");
    let answers = async || Ok(client.get("/openapi.json").await.is_ok_and(|answer| answer.status == 200));
    eventually("the FastAPI service answers", TIMEOUT, answers).await?;
    let legacy = script(&legacy_url).await?;

    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let ours = script(&api.url).await?;

    let found = differences(&legacy, &ours);
    assert_eq!(found, listed_differences()?, "MIGRATING.md lists exactly the differences that were found");
    Ok(())
}

fn start_legacy_server(python: &std::path::Path, port: u16) -> anyhow::Result<Child> {
    let mut command = Command::new(python);
    command.args(["-B", "-m", "uvicorn", "app:app", "--log-level", "warning", "--port", &port.to_string()]);
    command.arg("--app-dir").arg(repository().join("tests/legacy_server"));
    command.env("JWT_SECRET", SECRET).kill_on_drop(true).stdin(Stdio::null());
    Ok(command.spawn()?)
}

/// The code in the first column of the table of MIGRATING.md.
fn listed_differences() -> anyhow::Result<BTreeSet<String>> {
    let text = std::fs::read_to_string(repository().join("MIGRATING.md"))?;
    let (_, table) = text.split_once(TABLE).context("MIGRATING.md has the table")?;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let first_column = rows.filter_map(|row| row.split('|').nth(1));
    Ok(first_column.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect())
}

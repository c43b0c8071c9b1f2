//! The examples work against real processes.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, python_tool, repository, run, token};
use tokio::process::Command;

const LOCUST: &str = "2.47.0";
const TIMEOUT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn usage_script_gets_every_expected_response() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let script = |token: String| {
        let mut command = Command::new("bash");
        command.arg(repository().join("examples/usage.sh")).env("PULSE_URL", &api.url).env("PULSE_TOKEN", token);
        command
    };
    let output = tokio::time::timeout(TIMEOUT, run(&mut script(token("ada", None)))).await??;
    assert!(output.contains("both tasks are completed"), "{output}");
    assert_eq!(env.number("SELECT count(*) FROM events WHERE processed").await?, 4);

    let refused = tokio::time::timeout(TIMEOUT, run(&mut script("wrong".into()))).await?;
    let error = format!("{:#}", refused.expect_err("a wrong token makes the script fail"));
    assert!(error.contains("POST /api/v1/events answered 401, not 202"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn locustfile_has_no_failed_request() -> anyhow::Result<()> {
    let tool = python_tool("locust", LOCUST).await?;
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let mut command = Command::new(tool);
    command.current_dir(env.data.path()).env("PULSE_TOKEN", token("ada", None));
    command.arg("-f").arg(repository().join("examples/locustfile.py")).args(["--host", &api.url, "--headless"]);
    command.args(["-u", "10", "-r", "10", "-t", "10s", "--only-summary", "--csv", "locust"]);
    // Locust exits with code 1 after a failed request.
    let output = tokio::time::timeout(TIMEOUT, run(&mut command)).await??;
    for name in ["single", "batch", "list"] {
        assert!(output.contains(name), "{name} was called: {output}");
    }
    let stats = std::fs::read_to_string(env.file("locust_stats.csv"))?;
    let total = stats.lines().find_map(|line| line.strip_prefix(",Aggregated,")).unwrap_or_default();
    let counts: Vec<_> = total.split(',').take(2).collect();
    assert!(counts.first().is_some_and(|requests| *requests != "0") && counts.get(1) == Some(&"0"), "{stats}");
    env.wait_until_settled(TIMEOUT).await
}

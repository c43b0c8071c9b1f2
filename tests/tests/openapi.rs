//! A fuzzer that reads the OpenAPI document finds no status of the server that the document lacks.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, python_tool, run, token};
use tokio::process::Command;

const SCHEMATHESIS: &str = "4.32.5";
/// Time limit of the fuzzer, in seconds.
const MAX_TIME: &str = "45";

#[tokio::test(flavor = "multi_thread")]
async fn openapi_fuzzer_finds_no_server_error_and_no_undocumented_status() -> anyhow::Result<()> {
    let tool = python_tool("schemathesis", SCHEMATHESIS).await?;
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let mut command = Command::new(tool);
    command.current_dir(env.data.path()).args(["run", "--no-color"]);
    command.args(["--header", &format!("Authorization: Bearer {}", token("ada", None))]);
    command.args(["--checks", "not_a_server_error,status_code_conformance", "--seed", "20"]);
    command.args(["--max-time", MAX_TIME, "--warnings", "off", "--continue-on-failure"]);
    command.arg(format!("{}/api/v1/openapi.json", api.url));
    let output = tokio::time::timeout(Duration::from_secs(120), run(&mut command)).await??;
    assert!(output.contains("Operations:"), "the fuzzer tested no operation: {output}");
    let posted = env.number("SELECT count(*) FROM events").await?;
    assert!(posted > 0, "no event of the fuzzer was accepted: {output}");
    Ok(())
}

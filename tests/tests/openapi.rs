//! The OpenAPI document and the server agree: a fuzzer that reads the one finds no undocumented status of the other.

use std::time::Duration;

use pulse_tests::{Process, TestEnv, python_tool, run, token};
use tokio::process::Command;

const SCHEMATHESIS: &str = "4.32.5";
/// For the whole run of the fuzzer, in seconds.
const BUDGET: &str = "45";

#[tokio::test(flavor = "multi_thread")]
async fn a_fuzzer_finds_no_server_error_and_no_undocumented_status() -> anyhow::Result<()> {
    let tool = python_tool("schemathesis", SCHEMATHESIS).await?;
    let world = TestEnv::start().await?;
    let api = Process::start(&world, "api", &[]).await?;
    let _worker = Process::start(&world, "worker", &[]).await?;
    let mut command = Command::new(tool);
    command.current_dir(world.data.path()).args(["run", "--no-color"]);
    command.args(["--header", &format!("Authorization: Bearer {}", token("ada", None))]);
    command.args(["--checks", "not_a_server_error,status_code_conformance", "--seed", "20"]);
    command.args(["--max-time", BUDGET, "--warnings", "off", "--continue-on-failure"]);
    command.arg(format!("{}/api/v1/openapi.json", api.url));
    let output = tokio::time::timeout(Duration::from_secs(120), run(&mut command)).await??;
    assert!(output.contains("Operations:"), "it tested something: {output}");
    let posted = world.number("SELECT count(*) FROM events").await?;
    assert!(posted > 0, "some of its events were accepted: {output}");
    Ok(())
}

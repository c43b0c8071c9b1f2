//! `pulse load` in the background, with a ledger of the accepted events.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Child;

use crate::client::token;
use crate::env::{TestEnv, pulse};
use crate::process::Process;

/// Starts a load run of `rate` events per second for `seconds`. It records each 202 in the test's file `ledger`.
///
/// # Errors
/// If the binary cannot be started.
pub fn load(env: &TestEnv, api: &Process, rate: u32, seconds: u32) -> anyhow::Result<Child> {
    let (rate, seconds) = (rate.to_string(), format!("{seconds}s"));
    let ledger = env.file("ledger");
    let ledger = ledger.to_string_lossy();
    let token = token("load", None);
    let args = ["load", "--url", &api.url, "--token", &token, "--rate", &rate, "--duration", &seconds];
    let mut command = pulse(env, &args);
    command.args(["--connections", "16", "--json", "--ledger", &ledger]).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// Waits for the end of a load run and returns its report.
///
/// # Errors
/// If the run printed no report.
pub async fn report(load: Child) -> anyhow::Result<Value> {
    let output = load.wait_with_output().await?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

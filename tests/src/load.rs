//! `pulse load` in the background, with a ledger of what was promised.

use std::process::Stdio;

use serde_json::Value;
use tokio::process::Child;

use crate::{Process, TestEnv, pulse, token};

/// Posts `rate` events per second for `seconds`, each 202 into the file `ledger` of the test.
///
/// # Errors
/// If it cannot be started.
pub fn load(world: &TestEnv, api: &Process, rate: u32, seconds: u32) -> anyhow::Result<Child> {
    let (rate, seconds) = (rate.to_string(), format!("{seconds}s"));
    let ledger = world.file("ledger");
    let ledger = ledger.to_string_lossy();
    let token = token("load", None);
    let args = ["load", "--url", &api.url, "--token", &token, "--rate", &rate, "--duration", &seconds];
    let mut command = pulse(world, &args);
    command.args(["--connections", "16", "--json", "--ledger", &ledger]).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// The report of a load run, when it has ended.
///
/// # Errors
/// If it printed none.
pub async fn report(load: Child) -> anyhow::Result<Value> {
    let output = load.wait_with_output().await?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

//! The test suite of h2spec, with and without TLS.

use std::time::Duration;

use anyhow::Context;
use pulse_tests::cluster::protocol_program;
use pulse_tests::{Process, TestEnv, eventually};
use tokio::process::Command;

use crate::certificates::Certificates;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Runs the suite; returns its output.
async fn h2spec(address: &str, more: &[&str]) -> anyhow::Result<(bool, String)> {
    let (host, port) = address.rsplit_once(':').context("an address")?;
    let mut command = Command::new(protocol_program("h2spec").await?);
    command.args(["--host", host, "--port", port, "--path", "/docs", "--timeout", "5"]).args(more);
    let output = command.kill_on_drop(true).output().await?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn h2spec_finds_no_fault_over_tls_and_without_it() -> anyhow::Result<()> {
    let (env, tls) = (TestEnv::start().await?, Certificates::new()?);
    let flags = tls.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let plain = Process::start(&env, "api", &[]).await?;
    let secure = Process::spawn(&env, "api", &flags)?;
    eventually("the API listens", TIMEOUT, async || Ok(secure.connect().await.is_ok())).await?;
    for (api, more) in [(&plain, &[][..]), (&secure, &["--tls", "--insecure"])] {
        let (passed, report) = h2spec(api.address(), more).await?;
        let summary = report.lines().rfind(|line| line.contains("tests,")).unwrap_or_default().to_owned();
        println!("h2spec {more:?}: {summary}");
        assert!(passed && summary.contains(" 0 failed"), "{more:?}:\n{report}");
    }
    Ok(())
}

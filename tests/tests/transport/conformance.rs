//! The test suite of h2spec, with and without TLS.

#![expect(clippy::print_stdout, reason = "the tests print what they measure")]

use std::time::Duration;

use anyhow::Context;
use pulse_tests::cluster::protocol_program;
use pulse_tests::{Process, TestEnv, eventually};
use tokio::process::Command;

use crate::certificates::Certificates;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum number of runs of the suite.
const RUNS: u32 = 5;

/// Runs the suite; returns the names of the tests that failed, and the output.
async fn h2spec(address: &str, more: &[&str]) -> anyhow::Result<(Vec<String>, String)> {
    let (host, port) = address.rsplit_once(':').context("an address")?;
    let mut command = Command::new(protocol_program("h2spec").await?);
    command.args(["--host", host, "--port", port, "--path", "/openapi.json", "--timeout", "5"]).args(more);
    let output = command.kill_on_drop(true).output().await?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let failures = report.split("Failures:").nth(1).unwrap_or_default().lines();
    let names = failures.filter_map(|line| Some(line.trim().strip_prefix("× ")?.to_owned())).collect();
    Ok((names, report))
}

#[tokio::test(flavor = "multi_thread")]
async fn h2spec_finds_no_fault_over_tls_and_without_it() -> anyhow::Result<()> {
    let (env, tls) = (TestEnv::start().await?, Certificates::new()?);
    let flags = tls.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let plain = Process::start(&env, "api", &[]).await?;
    let secure = Process::spawn(&env, "api", &flags)?;
    eventually("the API listens", TIMEOUT, async || Ok(secure.connect().await.is_ok())).await?;
    // Without TLS, bytes that are not the preface of HTTP/2 are a request of HTTP/1.1, and answered so.
    let only_http1 = ["2: Sends invalid connection preface"];
    for (api, more, expected) in [(&plain, &[][..], &only_http1[..]), (&secure, &["--tls", "--insecure"], &[])] {
        let (mut failed, mut report) = h2spec(api.address(), more).await?;
        // Some tests send a frame that is wrong after a whole request, which may be answered before that frame arrives: a
        // fault fails each time.
        for _ in 1..RUNS {
            if failed == expected {
                break;
            }
            let again = h2spec(api.address(), more).await?;
            failed.retain(|name| again.0.contains(name));
            report = again.1;
        }
        let summary = report.lines().rfind(|line| line.contains("tests,")).unwrap_or_default().to_owned();
        println!("h2spec {more:?}: {summary}");
        assert!(!summary.is_empty() && failed == expected, "{more:?}: {failed:?}\n{report}");
    }
    Ok(())
}

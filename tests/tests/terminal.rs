//! What people read in a terminal: no text of a client moves the cursor or turns the text around, and a panic is one record
//! of the log.

use std::path::Path;
use std::time::Duration;

use pulse_tests::{Process, TestEnv, binary, eventually, pulse, pulse_output};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Clears the screen, sets the title, writes colours with one byte, turns the text around, and begins a new record.
const HOSTILE: &str = "a\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}b\r\n2026-01-01T00:00:00Z ERROR forged";
/// The characters of it that a terminal obeys.
const OBEYED: [char; 5] = ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}', '\r'];

fn assert_harmless(name: &str, output: &str) {
    assert!(!output.contains(OBEYED), "{name}: {output:?}");
    assert!(output.lines().all(|line| !line.starts_with("2026-01-01T00:00:00Z")), "{name}: {output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_and_logs_show_what_a_terminal_would_obey_as_escapes() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &["--log-format", "text", "--log", "debug", "--access-log", "all"]).await?;
    let worker = ["--retry-base", "0.1", "--log-format", "text", "--log", "debug"];
    let worker = Process::start(&env, "worker", &worker).await?;
    let json = Process::start(&env, "scheduler", &["--log", "debug"]).await?;
    // A `sub` has no control characters.
    let client = api.client("ada\u{202e}");
    let task = client.post_event(&format!("fail_with:{HOSTILE}")).await?;
    let dead = async || Ok(env.number("SELECT count(*) FROM dead_tasks").await? == 1);
    eventually("the task is dead", TIMEOUT, dead).await?;
    let error: String =
        sqlx::query_scalar("SELECT errors -> -1 ->> 'error' FROM dead_tasks").fetch_one(&env.db).await?;
    assert!(OBEYED.iter().all(|char| error.contains(*char)), "the error is stored as it is: {error:?}");

    let paused = pulse_output(&env, &["pause", "--actor", HOSTILE, "--because", HOSTILE]).await?;
    assert_eq!(paused.0, 0);
    for command in [
        &["why", &task][..],
        &["why", &task, "--json"],
        &["tasks", "list"],
        &["tasks", "list", "--json"],
        &["tasks", "inspect", &task],
        &["tasks", "inspect", &task, "--json"],
        &["user", "list"],
        &["user", "list", "--json"],
        &["user", "disable", "ada\u{202e}"],
        &["user", "enable", "gone\u{202e}"],
        &["user", "export", "ada\u{202e}"],
        &["user", "hold", "ada\u{202e}"],
        &["user", "erase", "ada\u{202e}", "--yes"],
        &["user", "release", "ada\u{202e}"],
        &["check"],
        &["check", "--json"],
        &["pause"],
        &["check", "--database-url", HOSTILE],
    ] {
        let mut output = pulse(&env, command);
        let output = output.env("PULSE_LOG_FORMAT", "text").output().await?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        assert!(!text.is_empty(), "{command:?}");
        assert_harmless(&format!("{command:?}"), &text);
    }
    let (_, inspected) = pulse_output(&env, &["tasks", "inspect", &task, "--json"]).await?;
    let inspected: Value = serde_json::from_str(inspected.lines().next().unwrap_or_default())?;
    assert_eq!(inspected["errors"][0]["error"], error, "JSON means what is stored");
    for process in [&api, &worker, &json] {
        assert_harmless("a log", &std::fs::read_to_string(&process.log)?);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_shows_what_a_terminal_would_obey_as_escapes() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let plugin = folder.path().join("kubectl-pulse");
    std::os::unix::fs::symlink(binary(), &plugin)?;
    let missing = Path::new(folder.path()).join("gone\u{1b}[2J\u{202e}");
    let output = tokio::process::Command::new(plugin).args(["status", "main", "--kubeconfig"]).arg(missing).output();
    let error = String::from_utf8(output.await?.stderr)?;
    assert!(error.contains("gone\\u{1b}[2J\\u{202e}"), "{error:?}");
    assert_harmless("the plugin", &error);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_is_one_record_of_the_log_with_its_backtrace() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let json = Process::start(&env, "worker", &["--retry-base", "0.1"]).await?;
    api.client("ada").post_event("panic").await?;
    env.wait_until_settled(TIMEOUT).await?;
    let log = std::fs::read_to_string(&json.log)?;
    let records: Vec<Value> = log.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let panics: Vec<&Value> = records.iter().filter(|record| record["message"] == "a thread panicked").collect();
    assert_eq!(panics.len(), 3, "{log}");
    let [location, backtrace] = ["location", "backtrace"].map(|name| panics[0][name].as_str().unwrap_or_default());
    assert_eq!((&panics[0]["panic"], &panics[0]["level"]), (&"as scripted".into(), &"ERROR".into()));
    assert!(location.contains("main.rs:") && backtrace.contains("src/main.rs:"), "{location}: {backtrace}");
    assert!(backtrace.len() <= 8 * 1024, "{}", backtrace.len());
    assert!(json.kill().await.is_ok());

    let text = Process::start(&env, "worker", &["--retry-base", "0.1", "--log-format", "text"]).await?;
    api.client("ada").post_event("panic").await?;
    env.wait_until_settled(TIMEOUT).await?;
    let log = std::fs::read_to_string(&text.log)?;
    let begins = |line: &str| line.starts_with("20") || line.starts_with("    | ");
    assert!(log.contains(": a thread panicked panic=\"as scripted\"") && log.lines().all(begins), "{log}");
    Ok(())
}

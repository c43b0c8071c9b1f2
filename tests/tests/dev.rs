//! `pulse dev`: the printed curl command works, data is kept or removed, and no server outlives it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Method;
use pulse_tests::{Client, binary, eventually, free_port, send_signal};
use rustix::process::Signal;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, Command};

const TIMEOUT: Duration = Duration::from_secs(15);

fn dev(args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("dev").args(["--port", "0", "--admin-port", "0"]).args(args);
    if !args.contains(&"--console-port") {
        command.args(["--console-port", "0"]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn wait_for_line<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>, text: &str) -> anyhow::Result<String> {
    let mut seen = String::new();
    let found = async {
        while let Some(line) = lines.next_line().await? {
            if line.contains(text) {
                return Ok(line);
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        anyhow::bail!("no line with `{text}`")
    };
    let found = tokio::time::timeout(Duration::from_secs(30), found).await.unwrap_or_else(|late| Err(late.into()));
    found.with_context(|| seen)
}

async fn read_ready_json(child: &mut Child) -> anyhow::Result<Value> {
    let mut lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    Ok(serde_json::from_str(&wait_for_line(&mut lines, "api").await?)?)
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Data folder of the private servers, from the URL of Redis.
fn data_folder(ready: &Value) -> &Path {
    Path::new(text(ready, "redis_url").trim_start_matches("unix://").trim_end_matches("/redis/redis.sock"))
}

/// Whether a PostgreSQL or Redis process with `folder` in its command line runs.
fn servers_are_running(folder: &Path) -> bool {
    let folder = folder.to_string_lossy();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok()).any(|line| {
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains(&*folder) && (line.contains("postgres") || line.contains("redis"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_prints_a_curl_command_that_works() -> anyhow::Result<()> {
    let mut child = dev(&[]).spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines();
    let first = wait_for_line(&mut lines, "curl -sS").await?;
    let rest = wait_for_line(&mut lines, "-d '").await?;
    wait_for_line(&mut lines, "Ready in").await?;
    let pasted = format!("{}\n{rest}", first.trim_start());
    let output = Command::new("bash").arg("-c").arg(&pasted).output().await?;
    let accepted: Value = serde_json::from_slice(&output.stdout).with_context(|| pasted.clone())?;
    assert_eq!(accepted["status"], "enqueued", "{accepted}");
    let url = pasted.split_whitespace().find(|word| word.starts_with("http")).context("a URL")?;
    let token = pasted.split("Bearer ").nth(1).and_then(|rest| rest.split('\'').next()).context("a token")?;
    let client = Client::new(url, token);
    eventually("the event is processed", TIMEOUT, async || {
        Ok(client.get(&format!("/{}", accepted["event_id"])).await?.json["processed"] == true)
    })
    .await?;
    send_signal(child.id(), Signal::TERM)?;
    assert!(child.wait().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_console_opens_at_the_printed_url_with_the_admin_token() -> anyhow::Result<()> {
    let port = free_port()?.to_string();
    let mut child = dev(&["--json", "--console-port", &port]).spawn()?;
    let ready = read_ready_json(&mut child).await?;
    assert_eq!(text(&ready, "console"), format!("http://127.0.0.1:{port}"));
    let browser = Client::new(text(&ready, "console"), "");
    let cookie = format!("pulse_console={}", text(&ready, "admin_token"));
    let page = browser.send(Method::GET, "/", &[("cookie", &cookie)], Bytes::new()).await?;
    assert!(page.status == 200 && page.text.contains("Overview"), "{}", page.text);
    let refused = browser.send(Method::GET, "/", &[], Bytes::new()).await?;
    assert_eq!((refused.status, &refused.headers["location"]), (303, &http::HeaderValue::from_static("/login")));
    let metrics = Client::new(text(&ready, "admin"), "").get("/metrics").await?.text;
    let route = "http_server_request_duration_seconds_count{route=\"\",method=\"GET\",status=\"200\"} 1";
    assert!(metrics.contains("\npulse_console_viewers 0") && metrics.contains(route), "{metrics}");
    send_signal(child.id(), Signal::TERM)?;
    assert!(child.wait().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_servers_end_after_sigterm_sigint_and_sigkill() -> anyhow::Result<()> {
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let mut child = dev(&["--json"]).spawn()?;
        let ready = read_ready_json(&mut child).await?;
        let folder = data_folder(&ready);
        assert!(servers_are_running(folder), "the servers run");
        send_signal(child.id(), signal)?;
        let status = child.wait().await?;
        assert!(signal == Signal::KILL || status.success(), "{signal:?}: {status}");
        eventually("no server is left", TIMEOUT, async || Ok(!servers_are_running(folder))).await?;
        if signal == Signal::KILL {
            std::fs::remove_dir_all(folder)?;
        }
        assert!(!folder.exists(), "the temporary data is removed");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_data_dir_keeps_events_and_secret() -> anyhow::Result<()> {
    let kept = tempfile::Builder::new().prefix("pulse-kept-").tempdir()?;
    std::fs::set_permissions(kept.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let data_dir = kept.path().join("data").to_string_lossy().into_owned();
    let mut secrets = Vec::new();
    for run in 1..=2 {
        let mut child = dev(&["--json", "--data-dir", &data_dir]).spawn()?;
        let ready = read_ready_json(&mut child).await?;
        let client = Client::new(text(&ready, "api"), text(&ready, "token"));
        let event = serde_json::json!({"event_name": "a", "event_type": "t"});
        assert_eq!(client.post("/api/v1/events", &event).await?.json["event_id"], run);
        secrets.push(text(&ready, "jwt_secret").to_owned());
        send_signal(child.id(), Signal::TERM)?;
        assert!(child.wait().await?.success());
    }
    assert_eq!(secrets[0], secrets[1]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_exposes_each_metric_once_and_all_are_documented() -> anyhow::Result<()> {
    let mut child = dev(&["--json"]).spawn()?;
    let ready = read_ready_json(&mut child).await?;
    let text = Client::new(text(&ready, "admin"), "").get("/metrics").await?.text;
    let mut types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let count = types.len();
    types.sort_unstable();
    types.dedup();
    assert_eq!(types.len(), count, "{text}");
    assert!(
        types.contains(&"# TYPE pulse_tasks_settled_total counter")
            && types.contains(&"# TYPE pulse_task_retries_total counter")
    );
    let metrics = std::fs::read_to_string(pulse_tests::repository().join("docs/reference/metrics.md"))?;
    for line in types {
        let words: Vec<&str> = line.split(' ').collect();
        let row = format!("| `{}` | {} |", words[2], words[3]);
        assert!(metrics.contains(&row), "docs/reference/metrics.md has no row {row}");
    }
    send_signal(child.id(), Signal::TERM)?;
    assert!(child.wait().await?.success());
    Ok(())
}

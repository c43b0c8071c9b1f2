//! Secrets: each can come from a file, and no help or error shows one.

use std::process::Stdio;

use anyhow::Context;
use futures_util::future::try_join_all;
use pulse_tests::{Client, Process, SECRET, TestEnv, binary, pulse_output, repository};
use tokio::process::Command;

/// A part of each secret.
const MARKER: &str = "m4rk3r-9f2c";

#[tokio::test(flavor = "multi_thread")]
async fn roles_and_commands_read_their_secrets_from_files() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let file = |name: &str, content: &str| -> anyhow::Result<String> {
        let path = env.file(name);
        std::fs::write(&path, format!("{content}\n"))?;
        Ok(path.display().to_string())
    };
    let (database, redis) = (file("database-url", &env.database_url)?, file("redis-url", &env.redis_url)?);
    let secret = file("jwt-secret", SECRET)?;
    let stores = ["--database-url-file", database.as_str(), "--redis-url-file", redis.as_str()];
    let tokens = ["--jwt-secret-file", secret.as_str()];
    let api = Process::start(&env, "api", &[&stores[..], &tokens].concat()).await?;
    let _console = Process::start(&env, "console", &[&stores[..], &tokens].concat()).await?;
    let _worker = Process::start(&env, "worker", &stores).await?;
    let _scheduler = Process::start(&env, "scheduler", &stores).await?;
    for (command, stores) in [
        (&["check"][..], &stores[..]),
        (&["migrate"], &stores[..2]),
        (&["user", "list"], &stores[..2]),
        (&["tasks", "list"], &stores[..2]),
    ] {
        let (code, output) = pulse_output(&env, &[command, stores].concat()).await?;
        assert_eq!(code, 0, "{command:?}: {output}");
    }
    let (code, token) = pulse_output(&env, &[&["token", "issue", "--user", "ada"], &tokens[..]].concat()).await?;
    assert_eq!(code, 0, "{token}");
    assert_eq!(Client::new(&api.url, token.trim()).get("/api/v1/events").await?.status, 200);
    let token = file("token", token.trim())?;
    let load = ["load", "--url", &api.url, "--token-file", &token, "--duration", "100ms", "--connections", "1"];
    let (code, output) = pulse_output(&env, &load).await?;
    assert_eq!(code, 0, "{output}");

    let both = ["check", "--database-url-file", &database, "--database-url", &env.database_url];
    let (code, output) = pulse_output(&env, &both).await?;
    assert!(code == 2 && output.contains("cannot be used with"), "{output}");
    let (code, output) = pulse_output(&env, &["user", "list", "--database-url-file", "/gone"]).await?;
    assert!(code == 1 && output.contains("cannot use /gone of --database-url-file: No such file"), "{output}");
    Ok(())
}

/// Runs `pulse` with these variables only; returns stdout and stderr.
async fn run(args: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut command = Command::new(binary());
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").kill_on_drop(true).stdin(Stdio::null());
    command.envs(variables.iter().copied());
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), command.output());
    let output = output.await.with_context(|| format!("{args:?} did not end"))??;
    Ok(String::from_utf8([output.stdout, output.stderr].concat())?)
}

/// All commands, without `pulse` in front: those with sections in the reference, which `scripts/reference --check` compares.
fn commands() -> anyhow::Result<Vec<String>> {
    let mut commands = Vec::new();
    for page in std::fs::read_dir(repository().join("docs/reference/commands"))? {
        let text = std::fs::read_to_string(page?.path())?;
        let headings =
            text.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(" `pulse")?.strip_suffix('`'));
        commands.extend(headings.map(|name| name.trim().to_owned()));
    }
    Ok(commands)
}

#[tokio::test(flavor = "multi_thread")]
async fn help_and_errors_show_no_secret() -> anyhow::Result<()> {
    let secret = format!("{MARKER}-of-at-least-32-bytes-as-the-api-wants");
    let commands = commands()?;
    assert!(commands.len() > 20 && commands.contains(&"user erase".to_owned()), "{commands:?}");
    // No server answers there, or the URL cannot be used.
    for (database, redis, otlp) in [
        ("postgres://u:MARKER@127.0.0.1:1/d", "redis://:MARKER@127.0.0.1:1/0", "http://u:MARKER@127.0.0.1:1"),
        ("postgres://u:MARKER@127.0.0.1:port/d", "redis://:MARKER@127.0.0.1:port/0", "http://u:MARKER@127.0.0.1:port"),
        ("postgres://u:MARKER", "redis://u:MARKER", "MARKER"),
        ("mysql://u:MARKER@h/d", "http://:MARKER@h", "MARKER://"),
        ("postgres://u@127.0.0.1:1/d?password=MARKER&sslmode=x", "rediss://:MARKER@127.0.0.1:1/x", "http://[MARKER"),
        ("MARKER", "MARKER", "http://MARKER MARKER"),
        ("", "", ""),
    ] {
        let [database, redis, otlp] = [database, redis, otlp].map(|url| url.replace("MARKER", MARKER));
        let variables = [
            ("PULSE_DATABASE_URL", database.as_str()),
            ("PULSE_REDIS_URL", redis.as_str()),
            ("PULSE_JWT_SECRET", secret.as_str()),
            ("PULSE_TOKEN", secret.as_str()),
        ];
        let with_otlp = [&variables[..], &[("PULSE_OTLP_ENDPOINT", otlp.as_str())]].concat();
        let check = async |args: &[&str], variables: &[(&str, &str)]| -> anyhow::Result<()> {
            let output = run(args, variables).await?;
            anyhow::ensure!(!output.contains(MARKER), "{args:?} with {database}, {redis}: {output}");
            Ok(())
        };
        let failing = [
            &["check"][..],
            &["migrate"],
            &["migrate", "--plan"],
            &["user", "list"],
            &["tasks", "list"],
            &["why", "0193a8f1-7c22-7d0e-b1f4-66d94c1e9a07"],
            &["pause"],
            &["queue", "purge", "--yes"],
            &["load", "--duration", "100ms", "--url", "http://127.0.0.1:1"],
            &["demo", "--url", "http://127.0.0.1:1"],
            &["token", "issue"],
            &["api", "--listen", "nothing"],
            &["user", "limit"],
        ];
        try_join_all(failing.into_iter().map(|args| check(args, &variables))).await?;
        check(&["user", "list"], &with_otlp).await?;
        check(&["user", "list", "--require-tls"], &with_otlp).await?;
        if database.starts_with("postgres://u:m4rk3r-9f2c@127.0.0.1:1") {
            for command in &commands {
                let words: Vec<&str> = command.split(' ').filter(|word| !word.is_empty()).collect();
                for help in ["--help", "-h"] {
                    check(&[&words[..], &[help]].concat(), &with_otlp).await?;
                }
            }
        }
    }
    Ok(())
}

//! Every command in README and docs is run by a test, or a rule here says why not. Those of `pulse` and `kubectl pulse` are
//! parsed by the programs, those of psql and redis-cli run against real servers.

use std::path::PathBuf;

use anyhow::Context;
use pulse_tests::{TestEnv, binary, repository};
use tokio::process::Command;

/// The beginnings of commands that run elsewhere, or not at all.
const ELSEWHERE: &[(&str, &str)] = &[
    ("make run", "scripts/first-event runs it, and the tests of `pulse dev` run its command"),
    ("curl", "readme.rs, troubleshooting.rs and the tests of the console send the same requests"),
    ("export", "sets a variable for the commands behind it"),
    ("kubectl", "needs a whole cluster: make e2e runs those of README and of the page about a processor"),
    ("helm", "make e2e"),
    ("kind", "needs docker: the tests check the file that it reads"),
    ("tilt", "needs docker: tilt.rs evaluates the Tiltfile, and the test of the dev loop does what it does"),
    ("docker", "needs docker: tests/compose runs them"),
    ("cargo run -p pulse-scaling", "scripts/scaling-table --check"),
    ("cargo", "examples.rs builds the processor of that page"),
    ("git", "reads the repository"),
];

/// The commands of a page: indented blocks, in which a quoted text may end in a later line.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut is_open = false;
    for line in text.lines() {
        let Some(code) = line.strip_prefix("    ") else {
            is_open = false;
            continue;
        };
        let code = code.split("   #").next().unwrap_or_default();
        match commands.last_mut().filter(|_| is_open) {
            Some(command) => *command = format!("{command}\n{code}"),
            None => commands.push(code.trim_start().to_owned()),
        }
        let command = commands.last().map(String::as_str).unwrap_or_default();
        is_open =
            command.ends_with('\\') || command.matches('"').count() % 2 == 1 || command.matches('\'').count() % 2 == 1;
    }
    let programs =
        ["pulse ", "psql ", "redis-cli ", "make ", "curl ", "export ", "kubectl ", "helm ", "kind ", "tilt "];
    let more = ["docker ", "cargo ", "git "];
    commands.retain(|command| programs.iter().chain(&more).any(|program| command.starts_with(program)));
    commands
}

/// README and the pages, without the generated ones.
fn pages() -> anyhow::Result<Vec<PathBuf>> {
    let (mut folders, mut pages) = (vec![repository().join("docs")], vec![repository().join("README.md")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("commands") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

/// Checks that the program knows the command and its flags. `--help` is the last argument, so nothing runs.
async fn check_flags(program: &str, command: &str) -> anyhow::Result<()> {
    let mut shell = Command::new("bash");
    let command = command.split(['|', '>']).next().unwrap_or_default().trim();
    let command = command.replace(['…', '\\'], "").replace("TASK_ID", "00000000-0000-7000-8000-000000000000");
    shell.args(["-c", &format!("exec -a {program} \"$BINARY\" {command} --help")]).env("BINARY", binary());
    let output = shell.output().await?;
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    anyhow::ensure!(output.status.success(), "{program} {command}: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_documentation_are_run_or_known_to_run_elsewhere() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let mut count = 0;
    for page in pages()? {
        for command in commands(&std::fs::read_to_string(&page)?) {
            count += 1;
            let checked = if let Some(arguments) = command.strip_prefix("pulse ") {
                check_flags("pulse", arguments).await
            } else if let Some((_, arguments)) = command.split_once(" -- /pulse ") {
                check_flags("pulse", arguments).await
            } else if let Some(arguments) = command.strip_prefix("kubectl pulse ") {
                check_flags("kubectl-pulse", arguments).await
            } else if command.starts_with("psql") || command.starts_with("redis-cli") {
                // The Redis of the tests has no port.
                let socket = format!("-s {}", env.redis_url.trim_start_matches("unix://"));
                let command = command.replace(r#"-u "$PULSE_REDIS_URL""#, &socket);
                let mut shell = Command::new("bash");
                shell.args(["-o", "pipefail", "-c", &command]).env("PULSE_DATABASE_URL", &env.database_url);
                let output = shell.output().await?;
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                if output.status.success() && text.is_empty() {
                    Ok(())
                } else {
                    Err(anyhow::anyhow!("{command}: {text}"))
                }
            } else {
                let known = ELSEWHERE.iter().any(|(beginning, _)| command.starts_with(beginning));
                if known { Ok(()) } else { Err(anyhow::anyhow!("no test runs `{command}`")) }
            };
            checked.with_context(|| page.display().to_string())?;
        }
    }
    assert!(count > 80, "{count} commands");
    Ok(())
}

//! Every command in README and docs is run by a test, or a rule here says why not. Those of `pulse` and `kubectl pulse` are
//! parsed by the programs, those of psql and redis-cli run against real servers.

use std::path::PathBuf;

use anyhow::Context;
use pulse_tests::documented::{self, Shell};
use pulse_tests::{Process, TestEnv, binary, pulse_output, repository};
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

/// The programs of commands. Other code is an example of a file, a query or an output.
const PROGRAMS: &[&str] = &[
    "pulse",
    "psql",
    "redis-cli",
    "make",
    "curl",
    "export",
    "kubectl",
    "helm",
    "kind",
    "tilt",
    "docker",
    "cargo",
    "git",
];

fn is_command(code: &str) -> bool {
    code.split_once(' ').is_some_and(|(program, _)| PROGRAMS.contains(&program))
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
    let shell = Shell::new(&env)?;
    let mut count = 0;
    for page in pages()? {
        for command in
            documented::commands(&std::fs::read_to_string(&page)?).into_iter().filter(|code| is_command(code))
        {
            count += 1;
            let checked = if let Some(arguments) = command.strip_prefix("pulse ") {
                check_flags("pulse", arguments).await
            } else if let Some((_, arguments)) = command.split_once(" -- /pulse ") {
                check_flags("pulse", arguments).await
            } else if let Some(arguments) = command.strip_prefix("kubectl pulse ") {
                check_flags("kubectl-pulse", arguments).await
            } else if command.starts_with("psql") || command.starts_with("redis-cli") {
                let (succeeds, text) = shell.run(&command).await?;
                if succeeds && !text.contains("ERROR") { Ok(()) } else { Err(anyhow::anyhow!("{command}: {text}")) }
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

#[tokio::test(flavor = "multi_thread")]
async fn page_of_settings_has_a_row_for_each_check() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let _scheduler = Process::start(&env, "scheduler", &[]).await?;
    let page = std::fs::read_to_string(repository().join("docs/reference/settings.md"))?;
    let rows: Vec<Vec<&str>> =
        page.lines().map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')).collect()).collect();
    let (code, output) = pulse_output(&env, &["check", "--json"]).await?;
    assert_eq!(code, 0, "{output}");
    let checks: serde_json::Value = serde_json::from_str(output.lines().next().unwrap_or_default())?;
    let checks = checks["checks"].as_array().context("checks")?;
    assert!(checks.len() > 10, "{output}");
    for check in checks {
        let (part, name) = (check["part"].as_str().unwrap_or_default(), check["name"].as_str().unwrap_or_default());
        let is_found = rows.iter().any(|row| row.len() > 2 && row[1].eq_ignore_ascii_case(part) && row[2] == name);
        assert!(is_found, "docs/reference/settings.md has no row for {part} {name}");
    }
    Ok(())
}

/// The sources of a test binary.
fn sources(test: &str) -> anyhow::Result<String> {
    let folder = repository().join("tests/tests");
    if let Ok(text) = std::fs::read_to_string(folder.join(format!("{test}.rs"))) {
        return Ok(text);
    }
    let files = std::fs::read_dir(folder.join(test)).with_context(|| format!("there is no test {test}"))?;
    files.map(|file| Ok(std::fs::read_to_string(file?.path())?)).collect()
}

#[test]
fn page_of_faults_names_tests_that_exist() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(repository().join("docs/reference/faults.md"))?;
    let arguments: Vec<(&str, &str)> = page.split('`').skip(1).step_by(2).filter_map(|it| it.split_once(' ')).collect();
    let tests: Vec<_> = arguments.into_iter().filter(|(test, _)| !PROGRAMS.contains(test)).collect();
    assert!(tests.len() > 40, "{}", tests.len());
    for (test, name) in tests {
        assert!(sources(test)?.contains(&format!("fn {name}(")), "there is no test {test} {name}");
    }
    Ok(())
}

//! The first command of a runbook, run after its alert fires.

use anyhow::Context;
use pulse_tests::documented::{self, Shell};
use pulse_tests::{Prometheus, eventually, repository};

use crate::TIMEOUT;

/// Runs the commands below "First command" of the alert's runbook, until one of them prints the cause. A query of Prometheus is
/// one too. `ID` in a command is the first task that an earlier one has printed.
pub(super) async fn shows(shell: &Shell, prometheus: &Prometheus, alert: &str, cause: &str) -> anyhow::Result<()> {
    let page = std::fs::read_to_string(repository().join(format!("docs/runbooks/{alert}.md")))?;
    let (_, page) = page.split_once("## First command\n").context("there is no first command")?;
    let commands = documented::commands(page.split("\n## ").next().unwrap_or_default());
    anyhow::ensure!(!commands.is_empty(), "{alert} has no first command");
    let mut printed = String::new();
    let shown = eventually(cause, TIMEOUT, async || {
        printed.clear();
        for command in &commands {
            let command = with_id(command, &printed);
            let is_query = !["kubectl ", "psql ", "redis-cli "].iter().any(|program| command.starts_with(program));
            let output = if is_query {
                serde_json::to_string(&prometheus.query(&command).await?)?
            } else {
                shell.run(&command).await?.1
            };
            printed.push_str(&format!("{output}\n"));
        }
        Ok(printed.contains(cause))
    })
    .await;
    shown.with_context(|| format!("{alert}: {commands:?} printed {printed}"))
}

fn with_id(command: &str, printed: &str) -> String {
    let is_id = |word: &&str| word.len() == 36 && word.matches('-').count() == 4;
    let id = printed.split_whitespace().map(|word| word.trim_matches('"')).find(is_id).unwrap_or_default();
    command.replace(" TASK_ID", " ID").replace(" ID", &format!(" {id}"))
}

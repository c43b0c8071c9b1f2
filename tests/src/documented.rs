//! Commands of the documentation, run as a reader would.

use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;
use tokio::process::Command;

use crate::cluster::{Access, program};
use crate::env::TestEnv;
use crate::host::binary;

/// The code of a page, one command or query each: indented lines. A text in quotes or parentheses may end in a later line.
pub fn commands(text: &str) -> Vec<String> {
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
        let is_odd = |quote: char| command.matches(quote).count() % 2 == 1;
        let has_open_parenthesis = command.matches('(').count() > command.matches(')').count();
        is_open = command.ends_with('\\') || is_odd('"') || is_odd('\'') || has_open_parenthesis;
    }
    commands
}

/// A shell that has `pulse` in its PATH, and parts of commands that name what the test has instead.
pub struct Shell {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
    replacements: Vec<(String, String)>,
}

impl Shell {
    /// A shell with the URLs of an instance.
    ///
    /// # Errors
    /// If its folder cannot be created.
    pub fn new(env: &TestEnv) -> anyhow::Result<Self> {
        let mut shell = Self { folder: tempfile::tempdir()?, variables: Vec::new(), replacements: Vec::new() };
        shell.link("pulse", &binary())?;
        shell.variables.push(("PULSE_DATABASE_URL", env.database_url.clone()));
        shell.variables.push(("PULSE_REDIS_URL", env.redis_url.clone()));
        // Not the cluster of the person who runs the test.
        shell.variables.push(("KUBECONFIG", "/dev/null".into()));
        // The Redis of the tests has no port.
        let socket = format!("-s {}", env.redis_url.trim_start_matches("unix://"));
        Ok(shell.replacing(r#"-u "$PULSE_REDIS_URL""#, &socket))
    }

    /// Adds kubectl with its plugin, as a user of a cluster.
    ///
    /// # Errors
    /// If kubectl was not built.
    pub async fn with_kubectl(mut self, access: &Access) -> anyhow::Result<Self> {
        self.link("kubectl", &program("kubectl").await?)?;
        self.link("kubectl-pulse", &binary())?;
        self.variables.push(("KUBECONFIG", access.kubeconfig().display().to_string()));
        Ok(self)
    }

    /// Has commands with `to` instead of `from`.
    #[must_use]
    pub fn replacing(mut self, from: &str, to: &str) -> Self {
        self.replacements.push((from.into(), to.into()));
        self
    }

    /// Runs a command. Returns what it printed, and whether it succeeded.
    ///
    /// # Errors
    /// If there is no shell.
    pub async fn run(&self, command: &str) -> anyhow::Result<(bool, String)> {
        let command =
            self.replacements.iter().fold(command.to_owned(), |command, (from, to)| command.replace(from, to));
        let mut shell = Command::new("bash");
        shell.args(["-o", "pipefail", "-c", &command]).kill_on_drop(true);
        shell.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.folder.path().display()));
        let output = shell.envs(self.variables.iter().map(|(name, value)| (name, value))).output().await?;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        Ok((output.status.success(), text))
    }

    fn link(&self, name: &str, program: &Path) -> anyhow::Result<()> {
        std::os::unix::fs::symlink(program, self.folder.path().join(name)).with_context(|| name.to_owned())
    }
}

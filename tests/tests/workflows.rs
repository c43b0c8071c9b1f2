//! GitHub workflows.

use std::path::PathBuf;

use pulse_tests::cluster::packaging_program;
use pulse_tests::{python_tool, repository, run};
use tokio::process::Command;

#[tokio::test]
async fn github_workflows_pass_actionlint() -> anyhow::Result<()> {
    let folder = repository().join(".github/workflows");
    let files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    assert!(!files.is_empty(), "{} is empty", folder.display());
    // actionlint checks the shell scripts in them as well, if shellcheck is installed.
    run(Command::new(packaging_program("actionlint").await?).args(files)).await?;
    Ok(())
}

/// Known ways to attack a workflow: injected expressions, actions that are not pinned, more permissions than needed.
#[tokio::test]
async fn github_workflows_pass_zizmor() -> anyhow::Result<()> {
    let tool = python_tool("zizmor", "1.32.0").await?;
    run(Command::new(tool).args(["--offline", "--no-progress"]).arg(repository().join(".github/workflows"))).await?;
    Ok(())
}

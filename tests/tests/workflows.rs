//! GitHub workflows.

use std::path::PathBuf;

use pulse_tests::cluster::packaging_program;
use pulse_tests::{repository, run};
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

//! The workflows of the repository's host.

use std::path::PathBuf;

use pulse_tests::cluster::packaging_program;
use pulse_tests::{repository, run};
use tokio::process::Command;

#[tokio::test]
async fn every_workflow_is_one_that_its_host_understands() -> anyhow::Result<()> {
    let folder = repository().join(".github/workflows");
    let files: Vec<PathBuf> =
        std::fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    assert!(!files.is_empty(), "{} is empty", folder.display());
    // Their shell lines too, where the machine has shellcheck.
    run(Command::new(packaging_program("actionlint").await?).args(files)).await?;
    Ok(())
}

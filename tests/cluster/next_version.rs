//! Images of later versions of `pulse`: the same source with more migrations, built with the tests' scripted processor.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pulse_tests::{repository, run, target_dir_for_copy, without_cargo_env};
use tokio::process::Command;

/// Migration of the next version, which succeeds.
const NEXT: (&str, &str) = ("20991231000001_add_a_note", "ALTER TABLE events ADD COLUMN note text;");
/// Migration of the version after it, which fails.
const BROKEN: (&str, &str) = ("20991231000002_alter_a_missing_table", "ALTER TABLE nowhere ADD COLUMN note text;");

/// Builds `localhost/pulse:next`, whose migration succeeds, and returns the path of its archive.
pub(crate) async fn build_next() -> anyhow::Result<PathBuf> {
    build("next", &[NEXT]).await
}

/// Builds `localhost/pulse:broken`, whose second migration fails. Both builds use one folder: do not run them at once.
pub(crate) async fn build_broken() -> anyhow::Result<PathBuf> {
    build("broken", &[NEXT, BROKEN]).await
}

/// Copies the source of this repository into a folder of the tests, and returns it with the folder of its builds.
pub(crate) async fn copy_source() -> anyhow::Result<(PathBuf, PathBuf)> {
    let folder = repository().join("target/e2e");
    let source = folder.join("source");
    let mut copy = Command::new("bash");
    // Modification times are kept, so that a second run rebuilds nothing.
    let script = r#"mkdir -p "$1" && rm -rf "$1"/{.sqlx,crates,migrations,tests}
        git ls-files -z Cargo.* .cargo .sqlx crates migrations tests rust-toolchain.toml |
            xargs -0 cp --parents --preserve=timestamps -t "$1""#;
    run(copy.args(["-euo", "pipefail", "-c", script, "copy"]).arg(&source).current_dir(repository())).await?;
    Ok((source, target_dir_for_copy(&folder).await?))
}

async fn build(tag: &str, migrations: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let (source, target) = copy_source().await?;
    for (name, statement) in migrations {
        write_if_changed(&source.join(format!("migrations/{name}.sql")), &format!("-- additive: yes\n{statement}\n"))?;
    }
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "-q", "-p", "pulse-tests", "--bin", "pulse-under-test"]).current_dir(&source);
    run(without_cargo_env(cargo.env("CARGO_TARGET_DIR", &target))).await?;
    let program = target.join("debug/pulse-under-test");
    let mut image = Command::new(repository().join("scripts/image"));
    image.arg("--binary").arg(program).args(["--tag", tag]);
    let printed = run(&mut image).await?;
    Ok(PathBuf::from(printed.lines().last().context("the path of the archive")?))
}

/// Writes a file unless it already has this content, so that its modification time stays.
fn write_if_changed(file: &Path, content: &str) -> anyhow::Result<()> {
    if std::fs::read_to_string(file).is_ok_and(|found| found == content) {
        return Ok(());
    }
    Ok(std::fs::write(file, content)?)
}

//! The next versions of `pulse`: the same source with one more migration, truly built, and with the tests' step.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pulse_tests::{forget_cargo, repository, run, target_of_copy};
use tokio::process::Command;

/// What a version's migration does.
const NEXT: (&str, &str) = ("20991231000001_add_a_note", "ALTER TABLE events ADD COLUMN note text;");
const BROKEN: (&str, &str) = ("20991231000002_change_what_is_not_there", "ALTER TABLE nowhere ADD COLUMN note text;");

/// The archive of `localhost/pulse:next`, whose migration works.
pub(crate) async fn next() -> anyhow::Result<PathBuf> {
    build("next", &[NEXT]).await
}

/// The archive of `localhost/pulse:broken`, which comes after it and whose migration fails. Built after it, too.
pub(crate) async fn broken() -> anyhow::Result<PathBuf> {
    build("broken", &[NEXT, BROKEN]).await
}

async fn build(tag: &str, migrations: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let folder = repository().join("target/e2e");
    let source = folder.join("source");
    let mut copy = Command::new("bash");
    // With their times, so that a second run builds nothing.
    let script = r#"mkdir -p "$1/migrations" && rm -f "$1"/migrations/2099* && git ls-files -z Cargo.* .cargo .sqlx crates migrations tests rust-toolchain.toml |
        xargs -0 cp --parents --preserve=timestamps -t "$1""#;
    run(copy.args(["-euo", "pipefail", "-c", script, "copy"]).arg(&source).current_dir(repository())).await?;
    for (name, statement) in migrations {
        write(&source.join(format!("migrations/{name}.sql")), &format!("-- additive: yes\n{statement}\n"))?;
    }
    let target = target_of_copy(&folder).await?;
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "-q", "-p", "pulse-tests", "--bin", "pulse-under-test"]).current_dir(&source);
    run(forget_cargo(cargo.env("CARGO_TARGET_DIR", &target))).await?;
    let program = target.join("debug/pulse-under-test");
    let mut image = Command::new(repository().join("scripts/image"));
    image.arg("--binary").arg(program).args(["--tag", tag]);
    let printed = run(&mut image).await?;
    Ok(PathBuf::from(printed.lines().last().context("the path of the archive")?))
}

/// Writes a file unless it has that content.
fn write(file: &Path, content: &str) -> anyhow::Result<()> {
    if std::fs::read_to_string(file).is_ok_and(|found| found == content) {
        return Ok(());
    }
    Ok(std::fs::write(file, content)?)
}

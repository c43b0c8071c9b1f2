//! The page about an own processor: its commands make a program and an image, and run them in the cluster.

use std::path::PathBuf;

use anyhow::Context;
use pulse_tests::{repository, run, without_cargo_env};
use serde_json::Value;
use tokio::process::Command;

use crate::e2e_env::{E2eEnv, commands};
use crate::next_version::copy_source;

const PAGE: &str = "docs/how-to/your-own-processor.md";
const KEY: &str = "a key of 23 characters!";

/// Runs the page's commands in a namespace with an instance.
pub(crate) async fn deploy(env: &E2eEnv) -> anyhow::Result<()> {
    env.load_image(build().await?).await?;
    let instance = commands(PAGE, "## The instance", &[("YOUR_API_KEY", KEY)])?;
    let posted = env.shell(&instance).await?;
    wait_until_processed(env, &posted, KEY).await?;
    env.shell(&commands(PAGE, "## More workers", &[])?).await?;
    let new_key = "a new key";
    env.shell(&commands(PAGE, "## A new key", &[("YOUR_API_KEY", new_key)])?).await?;
    let (_, post) = instance.split_once("kubectl port-forward").context("the page posts an event")?;
    let posted = env.shell(&format!("kubectl port-forward{post}")).await?;
    wait_until_processed(env, &posted, new_key).await
}

/// Waits until the processor of the page has processed the posted event with this key.
async fn wait_until_processed(env: &E2eEnv, posted: &str, key: &str) -> anyhow::Result<()> {
    // Messages of the commands may follow the answer without a line end.
    let answer = posted.find('{').map_or("", |begin| &posted[begin..]);
    let answer = serde_json::Deserializer::from_str(answer).into_iter::<Value>().next();
    let event = &answer.with_context(|| posted.to_owned())??["event_id"];
    let result = format!(r#"{{"region": "eu", "key_length": {}, "original": {{"total": 3}}}}"#, key.len());
    let sql = format!("SELECT count(*) FROM events WHERE id = {event} AND properties::jsonb = '{result}'::jsonb");
    env.wait_for("the processor had the key", async || Ok(env.database.number(&sql).await? == 1)).await
}

/// Runs the page's commands that make the program and its image, and returns the path of the archive. The program is built
/// in a copy of the workspace, for debugging and with the features of the tests, so that most of it is built already.
async fn build() -> anyhow::Result<PathBuf> {
    let (source, target) = copy_source().await?;
    let (folder, source) = (source.join("crates"), source.display().to_string());
    let cargo = "cargo build -p my-processor -p pulse-tests --bin my-processor";
    let program = commands(PAGE, "## The program", &[("PULSEBOARD", &source), ("cargo build --release", cargo)])?;
    // The script is not in the copy.
    let (repository, debug) = (repository().display().to_string(), target.join("debug").display().to_string());
    let image = commands(PAGE, "## The image", &[("PULSEBOARD", &repository), ("target/release", &debug)])?;
    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &(program + &image)]).current_dir(folder).env("CARGO_TARGET_DIR", target);
    let printed = run(without_cargo_env(&mut bash)).await?;
    let archive = printed.lines().find(|line| line.ends_with(".tar")).context("the path of the archive")?;
    Ok(PathBuf::from(archive))
}

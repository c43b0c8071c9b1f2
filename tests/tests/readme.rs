//! README's `curl` commands run unchanged, and the documentation's processors are the ones that are built.

use anyhow::Context;
use pulse_tests::{Process, TestEnv, token};
use serde_json::Value;
use tokio::process::Command;

/// The indented blocks that start with `curl`.
fn commands(readme: &str) -> Vec<String> {
    let blocks = readme.split("\n\n").filter(|block| block.starts_with("    curl "));
    blocks.map(str::to_owned).collect()
}

#[test]
fn processors_of_the_documentation_are_the_built_examples() {
    let readme = include_str!("../../README.md");
    let example = include_str!("../../crates/pulse/examples/my_processor.rs");
    assert!(readme.contains(&format!("```rust\n{example}```")), "README differs from examples/my_processor.rs");
    let page = include_str!("../../docs/your-own-processor.md");
    let example = include_str!("../../crates/pulse/examples/processor_with_key.rs");
    assert!(page.contains(&format!("```rust\n{example}```")), "the page differs from examples/processor_with_key.rs");
}

#[tokio::test(flavor = "multi_thread")]
async fn readme_curl_commands_work() -> anyhow::Result<()> {
    let env = TestEnv::start().await?;
    let api = Process::start(&env, "api", &[]).await?;
    let _worker = Process::start(&env, "worker", &[]).await?;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"))?;
    let commands = commands(&readme);
    assert!(commands.len() >= 6, "README has fewer commands than routes: {}", commands.len());
    let mut task_id = String::new();
    for command in commands {
        let command = command.replace("TASK_ID", &task_id);
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(&command).env("PULSE_TOKEN", token("ada", None)).env("PULSE_URL", &api.url);
        let output = bash.output().await?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("{command}\n{text}"))?;
        assert!(output.status.success() && answer.get("code").is_none(), "{command}\n{answer}");
        if let Some(id) = answer["task_id"].as_str() {
            id.clone_into(&mut task_id);
        }
    }
    Ok(())
}

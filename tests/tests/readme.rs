//! README's `curl` commands run unchanged, the documentation's processors are the ones that are built, and what the threat
//! model names exists.

use std::path::Path;

use anyhow::Context;
use pulse_tests::{Process, TestEnv, repository, token};
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
    let page = include_str!("../../docs/how-to/your-own-processor.md");
    let example = include_str!("../../crates/pulse/examples/processor_with_key.rs");
    assert!(page.contains(&format!("```rust\n{example}```")), "the page differs from examples/processor_with_key.rs");
}

/// The tests of a table row whose last cell has nothing else: `FILE::NAME`, divided by commas.
fn named_tests(row: &str) -> Vec<(&str, &str)> {
    let cell = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
    let names = cell.split(", ").map(|name| name.strip_prefix('`')?.strip_suffix('`')?.split_once("::"));
    names.collect::<Option<_>>().unwrap_or_default()
}

/// Whether a file has a function with this name and the attribute of a test.
fn has_test(file: &Path, name: &str) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else { return false };
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    attributes.contains("#[test]") || attributes.contains("#[tokio::test")
}

#[test]
fn threat_model_names_a_test_for_each_threat_and_each_exists() -> anyhow::Result<()> {
    let root = repository();
    let text = std::fs::read_to_string(root.join("docs/threat-model.md"))?;
    let mut rows = 0;
    for table in text.split("\n\n").filter(|part| part.starts_with("| threat |")) {
        for row in table.lines().skip(2) {
            rows += 1;
            let tests = named_tests(row);
            assert!(!tests.is_empty(), "this row names no test: {row}");
            for (file, name) in tests {
                let folder = if file.starts_with("pulse") { "crates" } else { "tests/tests" };
                assert!(has_test(&root.join(folder).join(file), name), "there is no test {name} in {folder}/{file}");
            }
        }
    }
    assert!(rows > 40, "the document has only {rows} threats");
    Ok(())
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

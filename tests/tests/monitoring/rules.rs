//! The rules and dashboards of the operator's chart.

use std::path::PathBuf;
use std::process::Stdio;

use pulse_tests::{repository, run};
use serde_json::Value;
use tokio::process::Command;

/// Longest range of a scaled rule, in seconds.
const LONGEST_RANGE: u64 = 20;
/// Longest time until a scaled rule fires, in seconds.
const LONGEST_FOR: u64 = 8;

pub(super) fn folder() -> PathBuf {
    repository().join("charts/pulse-operator/monitoring")
}

/// The text of the rules.
pub(super) fn text() -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(folder().join("rules.yaml"))?)
}

/// Each alert, with its fields.
pub(super) fn alerts() -> anyhow::Result<Vec<Value>> {
    let rules: Value = pulse_crd::yaml::read(&text()?)?;
    let groups = rules["groups"].as_array().into_iter().flatten();
    Ok(groups.flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect())
}

/// The rules with a second in place of each minute, up to the limits above.
pub(super) fn scaled() -> anyhow::Result<String> {
    let mut scaled = String::new();
    for line in text()?.lines() {
        if let Some((before, time)) = line.split_once("for: ") {
            scaled.push_str(&format!("{before}for: {}\n", scaled_time(time, LONGEST_FOR)));
            continue;
        }
        let mut parts = line.split('[');
        scaled.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let (time, rest) = part.split_once(']').unwrap_or((part, ""));
            scaled.push_str(&format!("[{}]{rest}", scaled_time(time, LONGEST_RANGE)));
        }
        scaled.push('\n');
    }
    Ok(scaled)
}

fn scaled_time(time: &str, longest: u64) -> String {
    let (number, unit) = time.split_at(time.len() - 1);
    let minutes = match unit {
        "m" => 1,
        "h" => 60,
        "d" => 24 * 60,
        _ => return time.to_owned(),
    };
    format!("{}s", number.parse::<u64>().map_or(longest, |number| (number * minutes).clamp(3, longest)))
}

#[tokio::test]
async fn each_alert_fires_on_its_series_and_has_a_runbook() -> anyhow::Result<()> {
    let mut promtool = Command::new("promtool");
    run(promtool.args(["test", "rules", "rules_test.yaml"]).current_dir(folder()).stdin(Stdio::null())).await?;
    let tests = std::fs::read_to_string(folder().join("rules_test.yaml"))?;
    let alerts = alerts()?;
    assert!(alerts.len() >= 13, "{} alerts", alerts.len());
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap_or_default();
        for case in ["fires", "is quiet"] {
            assert!(tests.contains(&format!("name: {name} {case}\n")), "rules_test.yaml has no case `{name} {case}`");
        }
        let runbook = alert["annotations"]["runbook"].as_str().unwrap_or_default();
        let text = std::fs::read_to_string(repository().join(runbook)).unwrap_or_default();
        assert!(text.starts_with(&format!("# {name}\n")), "{name} has no runbook {runbook}");
    }
    Ok(())
}
